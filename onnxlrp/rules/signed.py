"""Rules that tell positive from negative contributions: z-plus, excitation, alpha-beta, gamma.

Every rule is a recipe of three steps: a denominator d, s = R / st(d), and multipliers that are transposes applied to s.
"""

from __future__ import annotations

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Fixed, Linear
from onnxlrp.rules.recipe import (
    Contributions,
    Parameters,
    bias_of,
    book_bias,
    by_sign,
    divide,
    inputs_nonnegative,
    kept,
    on_output,
    only_where_positive,
    output_of,
    parts_of,
    run,
    transposed,
    uses_bias,
)


def _positive_sum(ctx: Context, op: Linear, r: Relevance, p: Parameters, shift: float) -> tuple[str, float]:
    """(d, c): c * d = sum of positive contributions and positive bias + shift, right wherever relevance is.

    With x >= 0 that is one run with W+. Otherwise, with F = |W| |x| + |b|, the positive contributions are (z + F) / 2,
    which again costs one run, since z is there already; c = 1/2 is left to the caller, who can fold it elsewhere.
    """
    b = ctx.b
    if inputs_nonnegative(ctx, op):
        return run(b, op, parts_of(b, op, "plus"), bias_of(b, op, p, b.positive), shift), 1.0
    if all(isinstance(t.map, Fixed) for t in op.terms):
        # A map of one sign needs one run in any case.
        halves = [(m, b.positive(x)) for m, x in parts_of(b, op, "plus")]
        halves += [(m, b.negative(x)) for m, x in parts_of(b, op, "minus")]
        return run(b, op, halves, bias_of(b, op, p, b.positive), shift), 1.0
    z = output_of(ctx, op, r, p)
    if op.bias is not None and not uses_bias(op, p):
        z = b.sub(op.y, on_output(b, op, op.bias(b)))
    sizes = [(part, x if ctx.facts.nonnegative(x) else b.op("Abs", x)) for part, x in parts_of(b, op, "abs")]
    whole = run(b, op, sizes, bias_of(b, op, p, lambda bias: b.op("Abs", bias)), 2.0 * shift)
    # Rounding must not take a sum of positive terms below its smallest possible value.
    return b.at_least(b.add(z, whole), b.scalar(2.0 * shift, op.y)), 0.5


def _positive_share(ctx: Context, op: Linear, r: Relevance, p: Parameters, weight: float = 1.0) -> str:
    """weight * R / st(sum of positive contributions)."""
    b, size = ctx.b, float(p["epsilon"])
    if p.get("stabiliser", "sign") == "sign" and size:
        d, c = _positive_sum(ctx, op, r, p, size)
        s = b.scale(b.div(r.as_map(b), d), weight / c)
        ctx.book("stabiliser", lambda: b.scale(s, size))
    else:
        d, c = _positive_sum(ctx, op, r, p, 0.0)
        s = b.scale(divide(ctx, op, r, b.scale(d, c), p, sign=1 if size else 0), weight)
    book_bias(ctx, op, s, bias_of(b, op, p, b.positive))
    return s


def z_plus(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = x+ W+ + x- W- + b+;  R_i = x+ (W+)^T s + x- (W-)^T s."""
    b = ctx.b
    s = _positive_share(ctx, op, r, p)
    found: list[tuple[str, Relevance | None]] = []
    for term in op.terms:
        signed = not ctx.facts.nonnegative(term.x)
        plus = transposed(b, term.map.part(b, "plus"), s)
        minus = transposed(b, term.map.part(b, "minus"), s) if signed else None
        found.append((term.x, by_sign(ctx, term.x, plus, minus)))
    return kept(found)


def excitation(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = x+ W+, without bias;  R_i = x+ (W+)^T R / st(d)."""
    b = ctx.b
    parts = [(part, x if ctx.facts.nonnegative(x) else b.positive(x)) for part, x in parts_of(b, op, "plus")]
    s = divide(ctx, op, r, run(b, op, parts, None), p, sign=1)
    return kept(
        [
            (x, by_sign(ctx, x, transposed(b, part, s), None))
            for (part, _), x in zip(parts, (t.x for t in op.terms), strict=True)
        ]
    )


def alpha_beta(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """alpha times the z-plus share, minus beta times the share of d2 = x+ W- + x- W+ + b- (both >= 0 shares)."""
    b, alpha, beta = ctx.b, float(p["alpha"]), float(p["beta"])
    if beta == 0:
        return z_plus(ctx, op, r, p)
    first, c = _positive_sum(ctx, op, r, p, 0.0)
    first = b.scale(first, c)
    z = output_of(ctx, op, r, p)
    if op.bias is not None and not uses_bias(op, p):
        z = b.sub(op.y, on_output(b, op, op.bias(b)))
    # Positive and negative contributions add up to z, so the second sum is free.
    second = b.at_most(b.sub(z, first), b.scalar(0.0, z))
    quiet = Context(b, ctx.facts, type(ctx.ledger)(), ctx.step)
    size = float(p["epsilon"])
    s1 = divide(quiet, op, r, first, p, sign=1 if size else 0)
    s2 = divide(quiet, op, r, second, p, sign=-1 if size else 0)
    positive, negative = b.scale(s1, alpha), b.scale(s2, beta)
    ctx.book("stabiliser", lambda: b.scale(b.sub(r.as_map(b), b.mul(s1, first)), alpha))
    ctx.book("stabiliser", lambda: b.scale(b.sub(r.as_map(b), b.mul(s2, second)), -beta))
    book_bias(ctx, op, positive, bias_of(b, op, p, b.positive))
    book_bias(ctx, op, b.op("Neg", negative) if ctx.ledger.enabled else negative, bias_of(b, op, p, b.negative))
    found: list[tuple[str, Relevance | None]] = []
    for term in op.terms:
        plus, minus = term.map.part(b, "plus"), term.map.part(b, "minus")
        up = _difference(b, transposed(b, plus, positive), transposed(b, minus, negative))
        down = None
        if not ctx.facts.nonnegative(term.x):
            down = _difference(b, transposed(b, minus, positive), transposed(b, plus, negative))
        found.append((term.x, by_sign(ctx, term.x, up, down)))
    return kept(found)


def _difference(b: Builder, a: str | None, c: str | None) -> str | None:
    if c is None:
        return a
    return b.op("Neg", c) if a is None else b.sub(a, c)


def _sum(b: Builder, a: str | None, c: str | None) -> str | None:
    return a if c is None else c if a is None else b.add(a, c)


def gamma(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """Generalised gamma rule; with Gp = W + g W+, Gn = W + g W-:

    s+ = [z > 0] R / st(x+ Gp + x- Gn + b + g b+),  s- = [z < 0] R / st(x+ Gn + x- Gp + b + g b-),
    R_i = x+ (Gp^T s+ + Gn^T s-) + x- (Gn^T s+ + Gp^T s-).

    The denominators are z + g d+ and z + g d-, with d+ and d- the positive and negative contributions, d+ + d- = z.
    """
    b, g, size = ctx.b, float(p["gamma"]), float(p["epsilon"])
    plain = p.get("stabiliser", "sign") == "sign" and size > 0
    used = op.bias is None or uses_bias(op, p)
    down: str | None = None
    favoured = [(t.map.favoured(b, "plus", g), t.x) for t in op.terms]
    if only_where_positive(ctx, op, r) and inputs_nonnegative(ctx, op) and plain and used:
        more = bias_of(b, op, p, lambda bias: b.add(bias, b.scale(b.positive(bias), g)))
        share = b.div(r.as_map(b), run(b, op, list(favoured), more, size))
        ctx.book("stabiliser", lambda: b.scale(share, size))
        up = share
        book_bias(ctx, op, up, more)
    else:
        z = output_of(ctx, op, r, p) if used else op.y
        if not used and op.bias is not None:
            z = b.sub(op.y, on_output(b, op, op.bias(b)))
        first, c = _positive_sum(ctx, op, r, p, 0.0)
        first = b.scale(first, c)
        zero = b.scalar(0.0, z)
        high = b.add(z, b.scale(first, g))
        if only_where_positive(ctx, op, r):
            up = b.where(b.is_positive(z), divide(ctx, op, r, high, p, sign=1 if size else 0), zero)
        else:
            low = b.add(z, b.scale(b.sub(z, first), g))
            above, below = b.is_positive(z), b.op("Less", z, zero)
            quiet = Context(b, ctx.facts, type(ctx.ledger)(), ctx.step)
            up = b.where(above, divide(quiet, op, r, high, p, sign=1 if size else 0), zero)
            down = b.where(below, divide(quiet, op, r, low, p, sign=-1 if size else 0), zero)
            ctx.book("stabiliser", lambda: b.sub(r.as_map(b), b.mul(up, high)))
            ctx.book("stabiliser", lambda: b.op("Neg", b.mul(down, low)) if down else up)
        book_bias(ctx, op, up, bias_of(b, op, p, lambda bias: b.add(bias, b.scale(b.positive(bias), g))))
        if down:
            book_bias(ctx, op, down, bias_of(b, op, p, lambda bias: b.add(bias, b.scale(b.negative(bias), g))))
    found: list[tuple[str, Relevance | None]] = []
    for term, (more_map, x) in zip(op.terms, favoured, strict=True):
        signed = not ctx.facts.nonnegative(x)
        less_map = term.map.favoured(b, "minus", g) if signed or down else None
        ups = _sum(b, more_map.adjoint(b, up), transposed(b, less_map, down) if down else None)
        downs = None
        if signed:
            downs = _sum(b, transposed(b, less_map, up), more_map.adjoint(b, down) if down else None)
        found.append((x, by_sign(ctx, x, ups, downs)))
    return kept(found)
