"""Linear reductions and norms: ReduceSum, ReduceMean, ReduceL2, ReduceL1, ReduceMax, ReduceMin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Selection, Term
from onnxlrp.operators.registry import Situation, register


@dataclass(frozen=True)
class Reduction:
    """Over which axes a node reduces, and how a reduced tensor is brought back to the input's rank.

    Attributes:
        axes: non-negative axes; None when every axis is reduced, or when the axes are known only at run time.
        at_run_time: the axes are computed by the model.
    """

    at: Situation
    axes: tuple[int, ...] | None
    at_run_time: bool = False

    @property
    def x(self) -> str:
        return self.at.node.inputs[0]

    @property
    def keeps(self) -> bool:
        return bool(self.at.node.attribute("keepdims", 1))

    def run(self, b: Builder, op: str, value: str, *, keepdims: bool | None = None) -> str:
        """Another reduction over the same axes."""
        keep = int(self.keeps if keepdims is None else keepdims)
        if self.at_run_time:
            noop = self.at.node.attribute("noop_with_empty_axes")
            return b.op(op, value, self.at.node.inputs[1], keepdims=keep, noop_with_empty_axes=noop)
        if self.axes == ():
            return value
        return b.op(op, value, *(() if self.axes is None else (b.integers(self.axes),)), keepdims=keep)

    def restored(self, b: Builder, tensor: str) -> str:
        """A reduced tensor with its reduced axes back as 1, so that it broadcasts against the input."""
        if self.keeps:
            return tensor
        if self.at_run_time:
            return b.op("Reshape", tensor, self._kept_shape(b))
        return b.op("Unsqueeze", tensor, b.integers(self.axes)) if self.axes else tensor

    def _kept_shape(self, b: Builder) -> str:
        """The shape of the input with 1 for the reduced axes."""
        axes, shape = self.at.node.inputs[1], b.op("Shape", self.x)
        ones = b.op("Expand", b.constant_int(1), b.op("Shape", axes))
        kept = b.op("ScatterElements", shape, axes, ones, axis=0)
        if self.at.node.attribute("noop_with_empty_axes", 0):
            return kept
        # No axes at all stand for all of them.
        empty = b.op("Equal", b.op("Size", axes), b.constant_int(0))
        return b.where(empty, b.constant_int(1), kept)

    def fraction(self, b: Builder) -> str:
        """1/n, n being the number of elements that each result is made from."""
        if not self.at_run_time:
            return b.fraction(self.x, self.axes)
        results, elements = (b.op("Cast", b.op("Size", t), to=b.dtype(self.x)) for t in (self.at.y, self.x))
        return b.div(results, elements)


def reduction(at: Situation) -> Reduction | Refusal:
    """The axes of a reduction: constant, absent, or computed at run time."""
    node = at.node
    given = node.attribute("axes")
    if given is None and node.input(1):
        given = at.facts.integers(node.input(1))
        if given is None:
            return Reduction(at, None, at_run_time=True)
    if not given:
        return Reduction(at, () if node.attribute("noop_with_empty_axes", 0) else None)
    rank = at.graph.rank(node.inputs[0])
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    return Reduction(at, tuple(sorted(a % rank for a in given)))


@register("ReduceSum ReduceMean", "average", "shared in proportion to the elements", "1 or 1/n, spread")
def reduce_linear(at: Situation) -> Linear | Refusal:
    over = reduction(at)
    if isinstance(over, Refusal):
        return over
    node, x, y = at.node, at.node.inputs[0], at.y
    rest, attributes = node.inputs[1:], dict(node.attributes)

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op(node.op, value, *rest, **attributes)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, s: str) -> str:
        if over.axes == ():
            return s
        s = over.restored(b, s)
        if node.op == "ReduceMean":
            s = b.mul(s, over.fraction(b))
        return b.expand_like(s, x)

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint))),), y)


@register("ReduceL2", "average", "in proportion to the squared elements", "x / y")
def reduce_l2(at: Situation) -> Linear | Refusal:
    over = reduction(at)
    if isinstance(over, Refusal):
        return over
    x, y = at.node.inputs[0], at.y

    def slope(b: Builder) -> str:
        norm = over.restored(b, y)
        return b.div(x, b.op("Max", norm, b.scalar(1e-12, norm)))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        total = over.run(b, "ReduceSum", b.mul(value, slope(b)))
        return b.add(total, bias) if bias else total

    def adjoint(b: Builder, s: str) -> str:
        return b.mul(slope(b), over.restored(b, s))

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint), sign=0)),), y, note="y = sum of x * (x / y)")


@register("ReduceL1", "average", "in proportion to the absolute elements", "sign(x)")
def reduce_l1(at: Situation) -> Linear | Refusal:
    over = reduction(at)
    if isinstance(over, Refusal):
        return over
    x, y = at.node.inputs[0], at.y

    def forward(b: Builder, value: str, bias: str | None) -> str:
        total = over.run(b, "ReduceSum", b.mul(value, b.op("Sign", x)))
        return b.add(total, bias) if bias else total

    def adjoint(b: Builder, s: str) -> str:
        return b.mul(b.op("Sign", x), over.restored(b, s))

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint), sign=0)),), y)


@register("ReduceMax ReduceMin", "max", "all to the winner; the first one of equals", "1 at the winner")
def reduce_winner(at: Situation) -> Selection | Refusal:
    over = reduction(at)
    if isinstance(over, Refusal):
        return over
    x, y = at.node.inputs[0], at.y
    if 0 in (at.graph.shape(x) or ()):
        return Selection("max", (x,), (y,), lambda b, given: {x: b.zeros_like(x)}, "the largest of nothing")
    if over.at_run_time:
        return Selection("max", (x,), (y,), lambda b, given: {x: _to_first(b, over, given[y])})
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    reduced = tuple(range(rank)) if over.axes is None else over.axes
    pick = "ArgMax" if at.node.op == "ReduceMax" else "ArgMin"
    return Selection("max", (x,), (y,), lambda b, given: {x: to_winner(b, x, given[y], pick, rank, reduced)})


def _to_first(b: Builder, over: Reduction, r: str) -> str:
    """Puts each element of `r` where the first element equal to the result stands, over axes known at run time."""
    x = over.x
    count = b.op("Squeeze", b.element_count(x))
    counted = b.op("Range", b.constant_int(0), count, b.constant_int(1))
    numbers = b.op("Reshape", counted, b.shape_of(x))
    equal = b.op("Equal", x, over.restored(b, b.rerun(over.at.node)))
    candidates = b.where(equal, numbers, b.constant_int(np.iinfo(np.int64).max))
    first = over.run(b, "ReduceMin", candidates, keepdims=True)
    return b.where(b.op("Equal", numbers, first), over.restored(b, r), b.scalar(0.0, r))


def to_winner(b: Builder, x: str, r: str, pick: str, rank: int, reduced: tuple[int, ...]) -> str:
    """Puts each element of `r` where the largest (or smallest) element of x along `reduced` stands."""
    if not reduced:
        return r
    kept = tuple(a for a in range(rank) if a not in reduced)
    order = [*kept, *reduced]
    # The reduced axes are brought to the end and flattened, so that one index names the winner.
    moved = b.op("Transpose", x, perm=order) if order != list(range(rank)) else x
    shape = b.op("Shape", moved)
    lead = b.op("Slice", shape, b.integers([0]), b.integers([len(kept)])) if kept else ""

    def rows(last: int) -> str:
        return b.op("Concat", lead, b.integers([last]), axis=0) if kept else b.integers([last])

    flat = b.op("Reshape", moved, rows(-1))
    winner = b.op(pick, flat, axis=-1, keepdims=1)
    zeros = b.op("Expand", b.scalar(0.0, r), b.op("Shape", flat))
    spread = b.op("ScatterElements", zeros, winner, b.op("Reshape", r, rows(1)), axis=len(kept))
    back = b.op("Reshape", spread, shape)
    return b.op("Transpose", back, perm=[order.index(a) for a in range(rank)]) if moved != x else back
