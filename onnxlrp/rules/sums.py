"""Other ways to share out a sum z = sum of c_k (terms and bias): for residual additions, where methods differ."""

from __future__ import annotations

from collections.abc import Callable

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Linear
from onnxlrp.rules.recipe import Contributions, Parameters, bias_of, divide, kept, on_output, stabilised, transposed

#: (builder, contribution c, sum z) -> the weight that c is given.
Weight = Callable[[Builder, str, str], str]


def _weighted(ctx: Context, op: Linear, r: Relevance, p: Parameters, weight: Weight, sign: int) -> Contributions:
    """s = R / st(sum of w_k c_k), R_k = c_k w_k s; `sign` is that of the denominator where it is known."""
    b = ctx.b
    terms = []
    for term in op.terms:
        full = term.map.part(b, "full")
        if full is not None:
            terms.append((term.x, full, weight(b, full.forward(b, term.x, None), op.y)))
    parts = [b.mul(full.forward(b, x, None), w) for x, full, w in terms]
    bias = bias_of(b, op, p)
    if bias is not None:
        bias = b.mul(on_output(b, op, bias), weight(b, on_output(b, op, bias), op.y))
        parts.append(bias)
    s = divide(ctx, op, r, b.sum(parts), p, sign)
    if bias is not None:
        ctx.book("bias", lambda: b.mul(s, bias))
    back = [(x, transposed(b, full, b.mul(w, s))) for x, full, w in terms]
    return kept([(x, None if m is None else Relevance(m, x)) for x, m in back])


def res_lrp(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """R_k = (1 + g [sgn c_k = sgn z]) c_k / sum of the same over all terms * R: what agrees with the sum counts more,
    so that terms which cancel cannot blow up."""
    gamma = float(p["gamma"])

    def weight(b: Builder, c: str, z: str) -> str:
        agrees = b.op("Cast", b.is_positive(b.mul(c, z)), to=b.dtype(z))
        return b.add(b.scale(agrees, gamma), b.scalar(1.0, z))

    return _weighted(ctx, op, r, p, weight, 0)


def absolute_ratio(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """R_k = |c_k| / sum of |c| * R."""
    return _weighted(ctx, op, r, p, lambda b, c, z: b.op("Sign", c), 1)


def rescaled(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """The epsilon rule, whose results a_k are then rescaled term by term: sums S_k over each sample keep their ratio
    in absolute values, and together have the sum of R. R_k = a_k sgn(S_k) sum(R) / sum of |S_l|; the bias gets nothing.
    """
    b, samples = ctx.b, ctx.samples
    terms = [(term.x, full) for term in op.terms if (full := term.map.part(b, "full")) is not None]
    z = b.sum([full.forward(b, x, None) for x, full in terms])
    came = r.as_map(b)
    s = b.quotient(came, stabilised(ctx, op, z, p))
    back = [(x, m) for x, full in terms if (m := transposed(b, full, s)) is not None]
    sums = [samples.vector(b, samples.total(b, b.mul(x, m), x)) for x, m in back]
    arrived = samples.vector(b, samples.total(b, came, op.y))
    factor = b.quotient(arrived, b.sum([b.op("Abs", total) for total in sums]))
    found = [
        (x, Relevance(samples.times(b, m, b.mul(b.op("Sign", total), factor), x), x))
        for (x, m), total in zip(back, sums, strict=True)
    ]
    passed = [b.mul(b.op("Abs", total), factor) for total in sums]
    ctx.book("stabiliser", lambda: b.sub(arrived, b.sum(passed)))
    return kept(list(found))


def equal(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """R_k = R / n for each of the n terms that carry relevance, however large they are."""
    b = ctx.b
    share = b.scale(r.as_map(b), 1.0 / len(op.terms))
    return [(t.x, Relevance(b.sum_to(share, op.y, t.x))) for t in op.terms]
