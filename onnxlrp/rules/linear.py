"""Rules that use every contribution as it is: z (LRP-0), epsilon, norm, and the derivative."""

from __future__ import annotations

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Linear, Term
from onnxlrp.rules.recipe import (
    Contributions,
    Parameters,
    bias_of,
    book_bias,
    book_difference,
    divide,
    kept,
    on_output,
    only_where_positive,
    output_of,
    transposed,
    uses_bias,
)

#: No activation is larger; what is counts as this.
_LARGE = 1e30


def epsilon(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """R_i = x_i sum_j w_ij R_j / st(z_j). With epsilon 0 this is LRP-0 and needs no division at all.

    Where R is kept as z * m, s = m |z| / (|z| + epsilon): nothing small is divided by.
    """
    p = {"epsilon": 0.0, **p}
    b, size = ctx.b, float(p["epsilon"])
    z = output_of(ctx, op, r, p)
    if op.bias is not None and not uses_bias(op, p):
        s = divide(ctx, op, r, b.sub(z, on_output(b, op, op.bias(b))), p)
    elif r.base == z and not size:
        s = b.mul(r.value, b.above(z)) if z != op.y else r.value
    elif r.base == z and p.get("stabiliser", "sign") == "sign":
        magnitude = z if ctx.facts.nonnegative(z) else b.op("Abs", z)
        if r.guarded or (op.kind == "sum" and op.bias is not None):
            # A mask adds -inf, and nothing comes back from there: 0 * inf must not be computed.
            magnitude = b.at_most(magnitude, b.scalar(_LARGE, z))
        s = b.div(b.mul(r.value, magnitude), b.add(magnitude, b.scalar(size, z)))
        ctx.book("stabiliser", lambda: b.scale(b.mul(s, b.op("Sign", z)), size))
    elif r.is_quotient_of(z) and not size:
        s = r.as_multiplier(b, ctx.facts, z)
    elif only_where_positive(ctx, op, r) and size and p.get("stabiliser", "sign") == "sign":
        # Where there is relevance z = |z|, and elsewhere |z| + epsilon is as good a divisor as any: no sign is needed.
        s = divide(ctx, op, r, z if ctx.facts.nonnegative(z) else b.op("Abs", z), p, sign=1)
    else:
        s = divide(ctx, op, r, z, p, sign=1 if ctx.facts.nonnegative(z) and size else 0)
    book_bias(ctx, op, s, bias_of(b, op, p))
    return kept([(t.x, _full(b, t, s)) for t in op.terms])


def _full(b: Builder, term: Term, s: str) -> Relevance | None:
    back = transposed(b, term.map.part(b, "full"), s)
    return None if back is None else Relevance(back, term.x)


def held(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """The derivative, the statistics of a normalisation, its mean among them, held constant. No rule of tables."""
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    if op.frozen is not None and not op.one_signed:
        return [(op.terms[0].x, Relevance(b.mul(m, op.frozen.slope(b, False)), op.terms[0].x))]
    return kept([(t.x, _full(b, t, m)) for t in op.terms])


def gradient(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """m_i = sum_j dz_j/dx_i m_j: the derivative."""
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    book_bias(ctx, op, m, bias_of(b, op, {}))
    if op.vjp is None:
        return kept([(t.x, _full(b, t, m)) for t in op.terms])
    back = op.vjp(b, m)
    found = [(x, Relevance(inner, x)) for x, inner in back.items()]
    frozen = kept([(t.x, _full(b, t, m)) for t in op.terms])
    # What the derivative of the statistics takes away: the frozen map would have sent y - bias.
    book_difference(ctx, "other", [r for _, r in frozen], [r for _, r in found])
    return found
