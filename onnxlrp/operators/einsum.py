"""Einsum: linear where one operand carries relevance, a product where two do, taken apart into pairs where more do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Dim, Graph, Node
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Product, Refusal, Term, Weighted
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register
from onnxlrp.operators.scan import scan_signal

_ELLIPSIS = "..."


@dataclass(frozen=True)
class Equation:
    """The letters of each operand and of the result, one for each axis; an ellipsis has letters of its own."""

    operands: tuple[str, ...]
    result: str


def equation(node: Node, graph: Graph) -> Equation | Refusal:
    """The equation of an Einsum node, written out."""
    left, arrow, right = node.attribute("equation").replace(" ", "").partition("->")
    operands = left.split(",")
    used = set(left + right)
    fresh = "".join(c for c in ascii_letters if c not in used)
    widths = []
    for x, letters in zip(node.inputs, operands, strict=True):
        if _ELLIPSIS in letters:
            rank = graph.rank(x)
            if rank is None:
                return Refusal("the rank of an operand is not known", "run shape inference on the model first")
            widths.append(rank - len(letters) + len(_ELLIPSIS))
    dots = fresh[: max(widths, default=0)]
    if not arrow:
        once = sorted(c for c in used if left.count(c) == 1 and c in ascii_letters)
        right = (_ELLIPSIS if widths else "") + "".join(once)
    remaining = iter(widths)

    def written_out(letters: str) -> str:
        if _ELLIPSIS not in letters:
            return letters
        width = next(remaining)
        return letters.replace(_ELLIPSIS, dots[len(dots) - width :])

    return Equation(tuple(map(written_out, operands)), right.replace(_ELLIPSIS, dots))


def _einsum(b: Builder, tensors: Sequence[str], letters: Sequence[str], result: str) -> str:
    return b.op("Einsum", *tensors, equation=f"{','.join(letters)}->{result}")


@dataclass(frozen=True)
class _Operand:
    """One operand of an Einsum of at most two: the map from it to the result, given the other one."""

    graph: Graph
    equation: Equation
    inputs: tuple[str, ...]
    position: int

    @property
    def x(self) -> str:
        return self.inputs[self.position]

    @property
    def letters(self) -> str:
        return self.equation.operands[self.position]

    def forward(self, b: Builder, value: str, other: str | None) -> str:
        tensors = [value] if other is None else [value, other]
        letters = [self.letters, *self._other_letters]
        if self.position:
            tensors, letters = tensors[::-1], letters[::-1]
        return _einsum(b, tensors, letters, self.equation.result)

    def adjoint(self, b: Builder, s: str, other: str | None) -> str:
        """Contracts the result with the other operand; what was summed or taken from a diagonal is spread again."""
        distinct = "".join(dict.fromkeys(self.letters))
        known = set(self.equation.result).union(*self._other_letters)
        have = "".join(c for c in distinct if c in known)
        tensors, letters = [s], [self.equation.result]
        if other is not None:
            tensors, letters = [s, other], [self.equation.result, *self._other_letters]
        back = s if letters == [have] else _einsum(b, tensors, letters, have)
        missing = [i for i, c in enumerate(distinct) if c not in known]
        if missing:
            back = b.op("Unsqueeze", back, b.integers(missing))
        if missing or not self._sizes_agree():
            back = self._fitted(b, back, distinct)
        return self._on_diagonals(b, back, distinct) if distinct != self.letters else back

    @property
    def _other_letters(self) -> list[str]:
        return [t for i, t in enumerate(self.equation.operands) if i != self.position]

    def _dims(self) -> dict[str, set[Dim]]:
        """The sizes that each letter has in the operands."""
        dims: dict[str, set[Dim]] = {}
        for x, letters in zip(self.inputs, self.equation.operands, strict=True):
            shape = self.graph.shape(x) or (None,) * len(letters)
            for c, d in zip(letters, shape, strict=True):
                dims.setdefault(c, set()).add(d)
        return dims

    def _sizes_agree(self) -> bool:
        """Whether no letter can stand for 1 in one operand and for more in another."""
        return len(self.equation.operands) == 1 or all(len(d) == 1 and None not in d for d in self._dims().values())

    def _size(self, b: Builder, distinct: str) -> str:
        """The sizes of the letters of this operand."""
        static = self.graph.static_shape(self.x)
        first = [self.letters.index(c) for c in distinct]
        if static is not None:
            return b.integers([static[i] for i in first])
        return b.op("Gather", b.op("Shape", self.x), b.integers(first))

    def _fitted(self, b: Builder, back: str, distinct: str) -> str:
        """Spread over what is larger in this operand, summed over what is 1 in it."""
        size = self._size(b, distinct)
        whole = b.op("Expand", back, size)
        if self._sizes_agree():
            return whole
        stretched = b.op("Not", b.op("Equal", b.op("Shape", whole), size))
        axes = b.op("Squeeze", b.op("NonZero", stretched), b.integers([0]))
        return b.op("ReduceSum", whole, axes, keepdims=1, noop_with_empty_axes=1)

    def _on_diagonals(self, b: Builder, back: str, distinct: str) -> str:
        """A tensor over the distinct letters on the diagonals of one with repeated letters, zeros beside them."""
        first = {c: self.letters.index(c) for c in distinct}
        repeats = [i for i, c in enumerate(self.letters) if i != first[c]]
        rank, whole, size = len(self.letters), b.op("Unsqueeze", back, b.integers(repeats)), b.op("Shape", self.x)
        zero = b.scalar(0.0, back)

        def along(axis: int) -> str:
            count = b.op("Squeeze", b.op("Gather", size, b.integers([axis])))
            numbers = b.op("Range", b.constant_int(0), count, b.constant_int(1))
            return b.op("Reshape", numbers, b.integers([-1 if i == axis else 1 for i in range(rank)]))

        for i in repeats:
            whole = b.where(b.op("Equal", along(first[self.letters[i]]), along(i)), whole, zero)
        return whole


@register("Einsum", "linear", "linear rule of the table; with two data operands a product rule", "adjoint", data=None)
def einsum(at: Situation) -> Linear | Product | Refusal:
    node, y = at.node, at.y
    written = equation(node, at.graph)
    if isinstance(written, Refusal):
        return written
    if len(node.inputs) > 2 or (len(node.inputs) == 2 and node.inputs[0] == node.inputs[1]):
        return Refusal("it has more operands than are treated together", "export it as pairs of operands")
    operands = tuple(_Operand(at.graph, written, node.inputs, i) for i in range(len(node.inputs)))
    if len(operands) == 1:
        (only,) = operands

        def forward(b: Builder, value: str, bias: str | None) -> str:
            out = only.forward(b, value, None)
            return b.add(out, bias) if bias else out

        return Linear("average", (Term(only.x, Fixed(Map(forward, lambda b, s: only.adjoint(b, s, None)))),), y)
    first, second = operands
    if at.is_active(0) and at.is_active(1):

        def beside(b: Builder, g: str, factor: str, other: str) -> str:
            return (first if factor == first.x else second).adjoint(b, g, other)

        def partial(b: Builder, g: str, factor: str) -> str:
            return beside(b, g, factor, (second if factor == first.x else first).x)

        signal = scan_signal(at, first.x, second.x)
        note = f"{second.x if signal == first.x else first.x} belongs to the scan over a state" if signal else ""
        return Product(first.x, second.x, y, partial, signal, beside=beside, note=note or "two data operands")
    own, other = (first, second) if at.is_active(0) else (second, first)

    def weighted_forward(b: Builder, value: str, weight: str, bias: str | None) -> str:
        out = own.forward(b, value, weight)
        return b.add(out, bias) if bias else out

    weighted = Weighted(lambda b: other.x, weighted_forward, own.adjoint)
    return Linear("linear", (Term(own.x, weighted),), y)


@lowers("Einsum")
def in_pairs(at: Situation, b: Builder) -> tuple[str] | Refusal | None:
    """Two operands at a time, those that are constant first; a tensor that stands twice is copied."""
    node = at.node
    if len(node.inputs) == 1 or (len(node.inputs) == 2 and node.inputs[0] != node.inputs[1]):
        return None
    written = equation(node, at.graph)
    if isinstance(written, Refusal):
        return written
    copies: dict[str, str] = {}

    def distinct(x: str) -> str:
        copies[x] = b.op("Identity", copies[x]) if x in copies else x
        return copies[x]

    order = sorted(zip(node.inputs, written.operands, strict=True), key=lambda pair: pair[0] in at.active)
    pairs = [(distinct(x), letters) for x, letters in order]
    tensor, letters = pairs[0]
    for i, (following, others) in enumerate(pairs[1:], start=2):
        needed = set("".join((written.result, *(o for _, o in pairs[i:]))))
        kept = "".join(c for c in dict.fromkeys(letters + others) if c in needed)
        result = kept if i < len(pairs) else written.result
        tensor, letters = _einsum(b, (tensor, following), (letters, others), result), result
    return (tensor,)
