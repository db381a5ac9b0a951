"""Linear reductions and norms: ReduceSum, ReduceMean, ReduceL2, ReduceL1, ReduceMax, ReduceMin."""

from __future__ import annotations

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Selection, Term
from onnxlrp.operators.registry import Situation, register


def reduction_axes(at: Situation) -> tuple[int, ...] | Refusal | None:
    """Axes as non-negative numbers; None when every axis is reduced; a refusal when they are not known."""
    node = at.node
    given = node.attribute("axes")
    if given is None and node.input(1):
        given = at.facts.integers(node.input(1))
        if given is None:
            return Refusal("its axes are computed at run time", "make them constant in the export")
    if not given:
        return () if node.attribute("noop_with_empty_axes", 0) else None
    rank = at.graph.rank(node.inputs[0])
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    return tuple(sorted(a % rank for a in given))


def _restored(b: Builder, tensor: str, axes: tuple[int, ...] | None, keepdims: bool) -> str:
    """A reduced tensor with its reduced axes back as 1, so that it broadcasts against the input."""
    if keepdims or axes is None or not axes:
        return tensor
    return b.op("Unsqueeze", tensor, b.integers(axes))


@register("ReduceSum ReduceMean", "average", "shared in proportion to the elements", "1 or 1/n, spread")
def reduce_linear(at: Situation) -> Linear | Refusal:
    axes = reduction_axes(at)
    if isinstance(axes, Refusal):
        return axes
    node, x, y = at.node, at.node.inputs[0], at.y
    keep = bool(node.attribute("keepdims", 1))
    attributes = dict(node.attributes)
    rest = node.inputs[1:]

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op(node.op, value, *rest, **attributes)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, s: str) -> str:
        if axes == ():
            return s
        s = _restored(b, s, axes, keep)
        if node.op == "ReduceMean":
            s = b.mul(s, b.fraction(x, axes))
        return b.expand_like(s, x)

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint))),), y)


@register("ReduceL2", "average", "in proportion to the squared elements", "x / y")
def reduce_l2(at: Situation) -> Linear | Refusal:
    axes = reduction_axes(at)
    if isinstance(axes, Refusal):
        return axes
    node, x, y = at.node, at.node.inputs[0], at.y
    keep = bool(node.attribute("keepdims", 1))

    def slope(b: Builder) -> str:
        norm = _restored(b, y, axes, keep)
        return b.div(x, b.op("Max", norm, b.scalar(1e-12, norm)))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        total = b.op(
            "ReduceSum",
            b.mul(value, slope(b)),
            *(node.inputs[1:] or _axes_input(b, axes)),
            keepdims=int(keep),
        )
        return b.add(total, bias) if bias else total

    def adjoint(b: Builder, s: str) -> str:
        return b.mul(slope(b), s if axes == () else _restored(b, s, axes, keep))

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint), sign=0)),), y, note="y = sum of x * (x / y)")


def _axes_input(b: Builder, axes: tuple[int, ...] | None) -> tuple[str, ...]:
    return () if axes is None else (b.integers(axes),)


@register("ReduceL1", "average", "in proportion to the absolute elements", "sign(x)")
def reduce_l1(at: Situation) -> Linear | Refusal:
    axes = reduction_axes(at)
    if isinstance(axes, Refusal):
        return axes
    node, x, y = at.node, at.node.inputs[0], at.y
    keep = bool(node.attribute("keepdims", 1))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        signed = b.mul(value, b.op("Sign", x))
        total = b.op("ReduceSum", signed, *(node.inputs[1:] or _axes_input(b, axes)), keepdims=int(keep))
        return b.add(total, bias) if bias else total

    def adjoint(b: Builder, s: str) -> str:
        return b.mul(b.op("Sign", x), s if axes == () else _restored(b, s, axes, keep))

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint), sign=0)),), y)


@register("ReduceMax ReduceMin", "max", "all to the winner; the first one of equals", "1 at the winner")
def reduce_winner(at: Situation) -> Selection | Refusal:
    axes = reduction_axes(at)
    if isinstance(axes, Refusal):
        return axes
    x, y = at.node.inputs[0], at.y
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    reduced = tuple(range(rank)) if axes is None else axes
    pick = "ArgMax" if at.node.op == "ReduceMax" else "ArgMin"
    return Selection("max", (x,), (y,), lambda b, given: {x: to_winner(b, x, given[y], pick, rank, reduced)})


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
