"""Relative absolute magnitude: what each input contributes, counted twice over in absolute values (absLRP).

With h the output of a step and h_abs that of the same step fed |x|, its weights and bias made |w| and |b|:

    r = x * d<(h + h_abs) / 2, s>/dx,  s = R / (|h| + epsilon)

Source: the released code of "Advancing Attribution-Based Neural Network Explainability through Relative Absolute
Magnitude Layer-Wise Relevance Propagation" (Vukadin, Afric, Silic and Delac 2024), which leaves out the half and then
divides r by its absolute sum, so that the half makes no difference (`normalize = "operand"` in a rule table).
Statistics of normalisations, the sum of exponentials in a softmax among them, are held constant.

The form `intline` is that of the paper's first code: where a step is not linear, |h| stands for h_abs.
"""

from __future__ import annotations

from dataclasses import replace

from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Elementwise, Frozen, Linear, Product, Scaling, Selection
from onnxlrp.rules import other, products
from onnxlrp.rules.other import Given
from onnxlrp.rules.recipe import Contributions, Parameters, by_sign, kept, transposed

#: No activation is larger; what is counts as this.
_LARGE = 1e30


def is_one_function(op: Linear) -> bool:
    """Whether a step with coefficients of mixed sign can be treated as a function of one element."""
    return op.frozen is not None and len(op.terms) == 1


def linear(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """r = x+ (W+)^T s + x- (W-)^T s: the positive contributions. The bias stands in h and gets nothing."""
    if not op.one_signed:
        return _of_frozen(ctx, op, r, p)
    if op.centre is not None and p["form"] == "intline":
        return _of_centred(ctx, op, r, p)
    s = share(ctx, op.y, r, p, masked=op.kind == "sum" and op.bias is not None)
    return _positive_parts(ctx, op, s, r.nonnegative)


def _positive_parts(ctx: Context, op: Linear, s: str, nonnegative: bool) -> Contributions:
    b, found = ctx.b, []
    for term in op.terms:
        plus = transposed(b, term.map.part(b, "plus"), s)
        signed = not ctx.facts.nonnegative(term.x)
        minus = transposed(b, term.map.part(b, "minus"), s) if signed else None
        r = by_sign(ctx, term.x, plus, minus)
        found.append((term.x, None if r is None else replace(r, nonnegative=nonnegative)))
    return kept(found)


def _of_frozen(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """r = (x f'(x) + |x| f_abs'(|x|)) s / 2 for a normalisation f; intline: x f'(x) s where h less its shift is > 0."""
    b, x, frozen = ctx.b, op.terms[0].x, op.frozen
    if frozen is None:
        raise LookupError("a step of mixed signs that is no function of one element")
    s = share(ctx, op.y, r, p)
    slope = frozen.slope(b, False)
    if p["form"] == "intline":
        return [(x, Relevance(_where_output_is_positive(ctx, op, frozen, b.mul(s, slope)), x))]
    both = b.add(slope, b.mul(b.sign(x), frozen.slope(b, True)))
    return [(x, Relevance(b.scale(b.mul(s, both), 0.5), x))]


def _where_output_is_positive(ctx: Context, op: Linear, frozen: Frozen, m: str) -> str:
    """A softmax has no other outputs, and of the logarithm of one that is beside the point."""
    b = ctx.b
    return m if frozen.unshifted is None else b.mul(m, b.above(frozen.unshifted(b)))


def _of_centred(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """Two steps: y = w h + b with h = (x - mean)/sd, h_abs = |w||h| + |b|; then h with h_abs = (|x| - |mean|)/sd."""
    b, term, centre = ctx.b, op.terms[0], op.centre
    full = term.map.part(b, "full")
    if full is None or centre is None:
        raise LookupError("a centred step has its weight and its centre")
    s = share(ctx, op.y, r, p)
    centred = b.sub(term.x, centre(b))
    scaled = full.forward(b, centred, None)
    inner = b.mul(b.positive(scaled), s)
    divisor = b.add(b.op("Abs", centred), b.scalar(float(p["epsilon"]), centred))
    m = b.mul(b.div(inner, divisor), b.above(term.x))
    return [(term.x, Relevance(m, term.x, nonnegative=r.nonnegative))]


def elementwise(ctx: Context, op: Elementwise, r: Relevance, p: Parameters) -> Contributions:
    """r = (x f'(x) + |x| f'(|x|)) s / 2; intline: x f'(x) s where h > 0. Of a Relu: R where x > 0.

    What only keeps masks finite is no function of its own.
    """
    if op.only_masks or (r.base == op.y and ctx.facts.stands_in(op.y, op.x)):
        return [(op.x, r)]
    return [(op.x, _through(ctx, op, r, p))]


def _through(ctx: Context, op: Elementwise, r: Relevance, p: Parameters) -> Relevance:
    b, x = ctx.b, op.x
    s = share(ctx, op.y, r, p)
    m = op.gradient(b, s)
    if p["form"] == "intline":
        return Relevance(op.gradient(b, b.mul(s, b.above(op.y))), x)
    if ctx.facts.nonnegative(x):
        return Relevance(m, x)
    if op.slope_at is None:
        # As for functions whose slope at -x is that at x.
        return Relevance(b.mul(m, b.above(x)), x)
    mirrored = b.mul(b.sign(x), op.slope_at(b, s, b.op("Abs", x)))
    return Relevance(b.scale(b.add(m, mirrored), 0.5), x)


def product(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """r_a = sum of (a b)+ s over what a was multiplied with, r_b likewise. A divisor or norm is held constant."""
    if op.written_out is not None and op.signal is not None:
        # The signal is a constant multiple of the function's x, so that relevance is the same of both.
        found = _through(ctx, op.written_out, r, p)
        return [(op.signal, found if op.signal == op.written_out.x else Relevance(found.as_map(ctx.b)))]
    if op.beside is None or op.quotient:
        return products.signal(ctx, op, _positive_outputs(ctx, op.y, r, p), p)
    s = share(ctx, op.y, r, p)
    parts = [(x, _positive_products(ctx, op, s, x, o)) for x, o in ((op.a, op.b), (op.b, op.a))]
    return [(x, Relevance(m, x, nonnegative=r.nonnegative)) for x, m in parts]


def _positive_products(ctx: Context, op: Product, s: str, x: str, o: str) -> str:
    b, beside = ctx.b, op.beside
    if beside is None:
        raise LookupError("a quotient")
    if ctx.facts.nonnegative(x):
        return beside(b, s, x, o if ctx.facts.nonnegative(o) else b.positive(o))
    if ctx.facts.nonnegative(o):
        return b.mul(op.partial(b, s, x), b.above(x))
    sizes = b.mul(b.sign(x), beside(b, s, x, b.op("Abs", o)))
    return b.scale(b.add(op.partial(b, s, x), sizes), 0.5)


def select(ctx: Context, op: Selection, given: Given, p: Parameters) -> Contributions:
    """Movement: R, unchanged. Maxima: half of x s to the winner, half of |x| s to the winner among absolute values."""
    b = ctx.b
    if op.kind == "movement":
        return other.select(ctx, op, {y: _positive_outputs(ctx, y, r, p) for y, r in given.items()}, p)
    signed = [x for x in op.data if not ctx.facts.nonnegative(x)]
    if signed and op.among_magnitudes is None:
        maps = {y: Relevance(r.as_map(b), nonnegative=r.nonnegative) for y, r in given.items()}
        return other.select(ctx, op, maps, p)
    shares = {y: share(ctx, y, r, p) for y, r in given.items()}
    winners = op.adjoint(b, shares)
    nonnegative = not signed and all(r.nonnegative for r in given.values())
    if not signed or op.among_magnitudes is None:
        return [(x, Relevance(m, x, nonnegative=nonnegative)) for x, m in winners.items()]
    largest = op.among_magnitudes(b, shares)
    mixed = {x: b.scale(b.add(m, b.mul(b.sign(x), largest[x])), 0.5) for x, m in winners.items()}
    return [(x, Relevance(m, x)) for x, m in mixed.items()]


def scale(ctx: Context, op: Scaling, r: Relevance, p: Parameters) -> Contributions:
    """A constant factor has no rule of its own."""
    return other.scale(ctx, op, _positive_outputs(ctx, op.y, r, p), p)


def share(ctx: Context, y: str, r: Relevance, p: Parameters, masked: bool = False) -> str:
    """s = R / (|h| + epsilon), or R itself with `divide = "no"`. Kept as h m, R needs no division by a small h.

    `masked`: h may be infinite where nothing is relevant.
    """
    b = ctx.b
    r = _positive_outputs(ctx, y, r, p)
    if p["divide"] == "no":
        return r.as_map(b)
    z = r.base if r.base is not None and ctx.facts.stands_in(r.base, y) else y
    value = z
    if masked or r.guarded:
        value = b.op("Clip", z, b.scalar(-_LARGE, z), b.scalar(_LARGE, z))
    magnitude = value if ctx.facts.nonnegative(z) else b.op("Abs", value)
    divisor = b.add(magnitude, b.scalar(float(p["epsilon"]), z))
    if r.base == z:
        return b.mul(r.value, b.div(value, divisor))
    return b.div(r.as_map(b), divisor)


def _positive_outputs(ctx: Context, y: str, r: Relevance, p: Parameters) -> Relevance:
    """R, and with `outputs = "positive"` nothing of outputs that are not: the sign filter of the released code."""
    if p["outputs"] == "all" or ctx.facts.nonnegative(y):
        return r
    return replace(r, value=ctx.b.mul(r.value, ctx.b.above(y)), normalised=False)
