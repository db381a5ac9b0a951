"""What the rules for linear operators are made of: denominators, stabilised division, transposes, bookkeeping.

Notation (METHODS section 3): x inputs, W weights, b bias, z = sum of W x + b the output, R relevance of the output,
w+ = max(0, w), w- = min(0, w), st(d) the stabilised denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Linear, Map, Part, Product

Parameters = Mapping[str, Any]
Contributions = list[tuple[str, Relevance]]


def output_of(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> str:
    """z, or a tensor that is equal to it wherever relevance is and not negative (its Relu)."""
    if p.get("stabiliser") == "norm":
        # This one looks at all of z, also where there is no relevance.
        return op.y
    if r.base is not None and r.base != op.y and ctx.facts.stands_in(r.base, op.y):
        return r.base
    return op.y


def only_where_positive(ctx: Context, op: Linear, r: Relevance) -> bool:
    """Whether relevance is zero wherever z <= 0."""
    if r.base is None:
        return False
    return ctx.facts.vanishes_below_zero(r.base, op.y) or (r.base == op.y and ctx.facts.nonnegative(op.y))


def on_output(b: Builder, op: Linear, bias: str) -> str:
    """A bias in a shape that broadcasts against y."""
    rank = b.graph.rank(op.y) or 2
    if op.bias_size is None or rank == 2:
        return bias
    return b.op("Reshape", bias, b.integers([-1, *[1] * (rank - 2)]))


def uses_bias(op: Linear, p: Parameters) -> bool:
    return op.bias is not None and p.get("bias", "absorb") == "absorb"


def bias_of(b: Builder, op: Linear, p: Parameters, change: Callable[[str], str] = lambda bias: bias) -> str | None:
    """The bias after `change`, or None where there is none or the rule ignores it."""
    return change(op.bias(b)) if op.bias is not None and uses_bias(op, p) else None


def run(b: Builder, op: Linear, parts: Sequence[tuple[Map | None, str]], bias: str | None, shift: float = 0.0) -> str:
    """Sum of the maps' outputs + bias + shift. A bias that the operator can take as its own costs nothing."""
    present = [(m, x) for m, x in parts if m is not None]
    native = op.bias_size is not None and bool(present)
    if shift:
        if bias is not None:
            bias = b.add(bias, b.scalar(shift, bias))
        elif native and op.bias_size is not None:
            bias = b.full((op.bias_size,), shift, op.y)
        else:
            bias = b.scalar(shift, op.y)
    outputs = [m.forward(b, x, bias if native and i == 0 else None) for i, (m, x) in enumerate(present)]
    if not outputs:
        outputs = [b.zeros_like(op.y)]
    total = b.sum(outputs)
    return total if native or bias is None else b.add(total, on_output(b, op, bias))


def stabilised(ctx: Context, op: Linear | Product, d: str, p: Parameters, sign: int = 0) -> str:
    """st(d), where `sign` is that of d if it is known: d away from zero by epsilon. sgn(0) = 1."""
    b, epsilon, form = ctx.b, float(p["epsilon"]), p.get("stabiliser", "sign")
    if not epsilon:
        return d
    size = norm_size(b, op, d, p) if form == "norm" else b.scalar(epsilon, d)
    if form == "plain":
        return b.add(d, size)
    less = b.op("Neg", size) if form == "norm" else b.scalar(-epsilon, d)
    if form == "clip":
        if sign:
            return b.at_least(d, size) if sign > 0 else b.at_most(d, less)
        return b.mul(b.sign(d), b.at_least(b.op("Abs", d), size))
    if sign:
        return b.add(d, size if sign > 0 else less)
    return b.add(d, b.mul(b.sign(d), size))


def norm_size(b: Builder, op: Linear | Product, d: str, p: Parameters) -> str:
    """Epsilon times the root mean square of d, one number per sample."""
    return b.scale(_root_mean_square(b, d, b.graph.rank(op.y) or 0), float(p["epsilon"]))


def _root_mean_square(b: Builder, d: str, rank: int) -> str:
    """One number per sample, which is its own root mean square where it is one number."""
    if rank < 2:
        return b.op("Abs", d)
    axes = b.integers(range(1, rank))
    # Squares of large numbers have no place in a float; those of parts of the largest do.
    largest = b.op("ReduceMax", b.op("Abs", d), axes, keepdims=1)
    mean = b.op("ReduceMean", b.square(b.quotient(d, largest)), axes, keepdims=1)
    return b.mul(largest, b.op("Sqrt", mean))


def divide(ctx: Context, op: Linear, r: Relevance, d: str, p: Parameters, sign: int = 0) -> str:
    """s = R / st(d); books what the stabiliser keeps."""
    b = ctx.b
    stable = stabilised(ctx, op, d, p, sign)
    if stable == d and not sign:
        s = b.quotient(r.as_map(b), d)
        ctx.book("stabiliser", lambda: b.sub(r.as_map(b), b.mul(s, d)))
        return s
    s = b.div(r.as_map(b), stable)
    if stable != d:
        ctx.book("stabiliser", lambda: _kept_of(b, s, b.sub(stable, d)))
    return s


def _kept_of(b: Builder, s: str, amount: str) -> str:
    """s * amount, and nothing where nothing came back: of an infinite mask, say."""
    none = b.op("Equal", s, b.scalar(0.0, s))
    return b.where(none, b.scalar(0.0, s), b.mul(s, amount))


def book_bias(ctx: Context, op: Linear, s: str, bias: str | None) -> None:
    def amount() -> str:
        b, shift = ctx.b, on_output(ctx.b, op, bias or "")
        return _kept_of(b, s, shift)

    if bias is not None:
        ctx.book("bias", amount)


def parts_of(b: Builder, op: Linear, part: Part) -> list[tuple[Map | None, str]]:
    return [(t.map.part(b, part), t.x) for t in op.terms]


def inputs_nonnegative(ctx: Context, op: Linear) -> bool:
    return all(ctx.facts.nonnegative(t.x) for t in op.terms)


def by_sign(ctx: Context, x: str, positive: str | None, negative: str | None) -> Relevance | None:
    """The multiplier that is `positive` where x > 0 and `negative` where x < 0."""
    b = ctx.b
    if ctx.facts.nonnegative(x):
        return None if positive is None else Relevance(positive, x)
    sides = [b.mul(positive, b.above(x))] if positive is not None else []
    sides += [b.mul(negative, b.below(x))] if negative is not None else []
    return Relevance(b.sum(sides), x) if sides else None


def kept(pairs: Sequence[tuple[str, Relevance | None]]) -> Contributions:
    return [(x, r) for x, r in pairs if r is not None]


def transposed(b: Builder, part: Map | None, s: str) -> str | None:
    return None if part is None else part.adjoint(b, s)


def book_difference(ctx: Context, account: str, came: Sequence[Relevance], sent: Sequence[Relevance]) -> None:
    """Books what came and was not sent on, where a step keeps it by its nature (a derivative, a constant border)."""

    def book(r: Relevance, sign: float) -> None:
        ctx.book(account, lambda: ctx.b.scale(r.as_finite_map(ctx.b), sign))

    for r in came:
        book(r, 1.0)
    for r in sent:
        book(r, -1.0)
