"""Rules for what is not linear: movement, max, element-wise functions, scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Attributed, Coded, Elementwise, Linear, Scaling, Selection
from onnxlrp.rules.recipe import Contributions, Parameters, book_difference

Given = Mapping[str, Relevance]


def select(ctx: Context, op: Selection, given: Given, p: Parameters) -> Contributions:
    """Relevance, or the multiplier, goes where each value came from."""
    b = ctx.b
    multipliers = all(r.is_multiplier_of(y) for y, r in given.items())
    values = {y: r.value if multipliers else r.as_map(b) for y, r in given.items()}
    back = op.adjoint(b, values)
    guarded, nonnegative = any(r.guarded for r in given.values()), all(r.nonnegative for r in given.values())
    base = {x: x if multipliers else None for x in back}
    found = [(x, Relevance(v, base[x], guarded and multipliers, nonnegative)) for x, v in back.items()]
    if op.absorbs:
        book_difference(ctx, "bias", list(given.values()), [r for _, r in found])
    return found


def select_derivative(ctx: Context, op: Selection, given: Given, p: Parameters) -> Contributions:
    """The derivative: the same transport, of multipliers."""
    as_multipliers = {y: Relevance(r.as_multiplier(ctx.b, ctx.facts, y), y, r.guarded) for y, r in given.items()}
    return select(ctx, op, as_multipliers, p)


def scale(ctx: Context, op: Scaling, r: Relevance, p: Parameters) -> Contributions:
    """y = c x: R_x = R_y, summed over what x was broadcast to."""
    b = ctx.b
    if r.is_multiplier_of(op.y):
        m = b.sum_to(op.factor(b, r.value), op.y, op.x)
        return [(op.x, Relevance(m, op.x, r.guarded, r.nonnegative))]
    if b.graph.shape(op.x) is not None and b.graph.shape(op.x) == b.graph.shape(op.y):
        return [(op.x, r)]
    return [(op.x, Relevance(b.sum_to(r.as_map(b), op.y, op.x), nonnegative=r.nonnegative))]


def scale_derivative(ctx: Context, op: Scaling, r: Relevance, p: Parameters) -> Contributions:
    """y = c x: m_x = c m_y."""
    return scale(ctx, op, Relevance(r.as_multiplier(ctx.b, ctx.facts, op.y), op.y, r.guarded), p)


def contributions(ctx: Context, op: Attributed, r: Relevance, p: Parameters) -> Contributions:
    """R_x = what each element of x contributed to sum_k m_k y_k; the part that none did is the bias."""
    m = r.as_multiplier(ctx.b, ctx.facts, op.y)
    back = Relevance(op.contributions(ctx.b, m))
    book_difference(ctx, "bias", [r], [back])
    return [(op.x, back)]


def contribution_derivative(ctx: Context, op: Attributed, r: Relevance, p: Parameters) -> Contributions:
    """R_x = x times the derivative of sum_k m_k y_k; nothing where that is zero everywhere."""
    if op.derivative is None:
        book_difference(ctx, "other", [r], [])
        return []
    back = Relevance(op.derivative(ctx.b, r.as_multiplier(ctx.b, ctx.facts, op.y)))
    book_difference(ctx, "other", [r], [back])
    return [(op.x, back)]


def recode(ctx: Context, op: Coded, r: Relevance, p: Parameters) -> Contributions:
    """R_x = R_y: the numbers are the same but for rounding."""
    return [(op.x, Relevance(r.value, op.real) if r.is_multiplier_of(op.y) else r)]


def recode_derivative(ctx: Context, op: Coded, r: Relevance, p: Parameters) -> Contributions:
    """m_x = m_y: straight through, as if nothing were rounded; 0 where the code cuts off as a Relu does."""
    b = ctx.b
    if op.inside is None:
        return [(op.x, Relevance(r.as_multiplier(b, ctx.facts, op.y), op.real))]
    back = Relevance(op.inside(b, r.as_multiplier(b, ctx.facts, op.real)), op.x)
    book_difference(ctx, "other", [r], [back])
    return [(op.x, back)]


def pass_elementwise(ctx: Context, op: Elementwise, r: Relevance, p: Parameters) -> Contributions:
    """R_x = R_y. The value is not touched: R stays base * m with the base behind the function."""
    b = ctx.b
    if r.is_multiplier_of(op.y):
        if op.only_masks:
            return [(op.x, replace(r, base=op.x, guarded=True))]
        if op.quotient is not None:
            return [(op.x, replace(r, quotient=(op.x, op.quotient)))]
    if b.graph.shape(op.x) is not None and b.graph.shape(op.x) == b.graph.shape(op.y):
        return [(op.x, r)]
    return [(op.x, Relevance(b.sum_to(r.as_map(b), op.y, op.x), nonnegative=r.nonnegative))]


def pass_linear(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """R_x = R_y through a step that keeps the shape (a normalisation, an affine step)."""
    return [(t.x, r) for t in op.terms]


def elementwise_derivative(ctx: Context, op: Elementwise, r: Relevance, p: Parameters) -> Contributions:
    """m_x = f'(x) m_y, and likewise for inputs that only shape the function."""
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    found = [(op.x, Relevance(op.gradient(b, m), op.x))]
    found += [(c, Relevance(partial(b, m), c)) for c, partial in op.controls.items()]
    book_difference(ctx, "other", [r], [part for _, part in found])
    return found


def guided(ctx: Context, op: Elementwise, r: Relevance, p: Parameters) -> Contributions:
    """m_x = f'(x) max(m_y, 0)."""
    b = ctx.b
    back = Relevance(op.gradient(b, b.positive(r.as_multiplier(b, ctx.facts, op.y))), op.x)
    book_difference(ctx, "other", [r], [back])
    return [(op.x, back)]


def deconvnet(ctx: Context, op: Elementwise, r: Relevance, p: Parameters) -> Contributions:
    """m_x = max(m_y, 0), whether the unit was active or not."""
    b = ctx.b
    back = Relevance(b.positive(r.as_multiplier(b, ctx.facts, op.y)), op.x)
    book_difference(ctx, "other", [r], [back])
    return [(op.x, back)]
