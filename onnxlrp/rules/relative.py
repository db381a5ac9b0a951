"""Relative LRP, reconstructed: contributions without division by each output, one factor for the whole layer.

The paper (Nyiri and Gibaru, arXiv 2501.14322) was read in its abstract only, which states conservation up to a
multiplicative factor and no division by small values outside of residual additions. What stands here agrees with that;
no parity with the paper is claimed.
"""

from __future__ import annotations

from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Linear
from onnxlrp.rules.recipe import Contributions, Parameters, book_difference, kept, transposed


def relative(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """m_i = x_i sum_j w_ij R_j, R_i = m_i sum|R| / sum|m|, the sums over a sample; nothing where m is zero."""
    b, samples = ctx.b, ctx.samples
    came = r.as_map(b)
    back = [(t.x, transposed(b, t.map.part(b, "full"), came)) for t in op.terms]
    found = kept([(x, None if m is None else Relevance(m, x)) for x, m in back])
    arrived = samples.vector(b, samples.mass(b, came, op.y))
    masses = [samples.vector(b, samples.mass(b, m.as_map(b), x)) for x, m in found]
    if not masses:
        return []
    factor = b.quotient(arrived, b.sum(masses))
    scaled = [(x, Relevance(samples.times(b, m.value, factor, x), x)) for x, m in found]
    book_difference(ctx, "other", [r], [m for _, m in scaled])
    return scaled
