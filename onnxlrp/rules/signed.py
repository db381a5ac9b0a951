"""Rules that tell positive from negative contributions: z-plus, excitation, alpha-beta, gamma.

Every rule is a recipe of three steps: a denominator d, s = R / st(d), and multipliers that are transposes applied to s.
"""

from __future__ import annotations

from collections.abc import Callable

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
    norm_size,
    on_output,
    only_where_positive,
    output_of,
    parts_of,
    run,
    stabilised,
    transposed,
    uses_bias,
)


def _positive_sum(ctx: Context, op: Linear, r: Relevance, p: Parameters, shift: float) -> tuple[str, float]:
    """(d, c): c * d = sum of positive contributions and positive bias + shift, right wherever relevance is.

    With x >= 0 that is one run with W+. Where there is relevance at z > 0 only, it is (z + F) / 2, F = |W| |x| + |b|,
    which again costs one run, since z is there already; c = 1/2 is left to the caller, who can fold it elsewhere. For
    z < 0 that would cancel and leave mere rounding, so that signed x there take two runs.
    """
    b = ctx.b
    if inputs_nonnegative(ctx, op):
        return run(b, op, parts_of(b, op, "plus"), bias_of(b, op, p, b.positive), shift), 1.0
    fixed = all(isinstance(t.map, Fixed) for t in op.terms)
    if fixed or not only_where_positive(ctx, op, r) or (op.bias is not None and not uses_bias(op, p)):
        halves = [(m, x if ctx.facts.nonnegative(x) else b.positive(x)) for m, x in parts_of(b, op, "plus")]
        halves += [(m, b.negative(x)) for m, x in parts_of(b, op, "minus") if not ctx.facts.nonnegative(x)]
        return run(b, op, halves, bias_of(b, op, p, b.positive), shift), 1.0
    z = output_of(ctx, op, r, p)
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


def gamma(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """Generalised gamma rule; with Gp = W + g W+, Gn = W + g W-:

    s+ = [z > 0] R / st(x+ Gp + x- Gn + b + g b+),  s- = [z < 0] R / st(x+ Gn + x- Gp + b + g b-),
    R_i = x+ (Gp^T s+ + Gn^T s-) + x- (Gn^T s+ + Gp^T s-).

    Written in absolute values that needs no sides: with d = (1 + g/2) |z| + (g/2) (|W| |x| + |b|), t = R / st(d) and
    s = t sgn(z), R_i = (1 + g/2) x W^T s + (g/2) |x| |W|^T t. All terms of d are positive, so nothing cancels in it.
    """
    b, g = ctx.b, float(p["gamma"])
    used = op.bias is None or uses_bias(op, p)
    plain = p.get("stabiliser", "sign") == "sign" and float(p["epsilon"]) > 0
    nonnegative, one_sided = inputs_nonnegative(ctx, op), only_where_positive(ctx, op, r)
    if one_sided and nonnegative and plain and used:
        # d = Gp x + b + g b+, and R_i = x Gp^T s: one run and one transpose.
        return _favouring(ctx, op, r, p)
    z = output_of(ctx, op, r, p)
    if op.bias is not None and not used:
        z = b.sub(op.y, on_output(b, op, op.bias(b)))
    s, t = _gamma_shares(ctx, op, r, p, z)
    book_bias(ctx, op, s, bias_of(b, op, p, lambda bias: b.scale(bias, 1.0 + g / 2)))
    book_bias(ctx, op, t, bias_of(b, op, p, lambda bias: b.scale(b.op("Abs", bias), g / 2)))
    found: list[tuple[str, Relevance | None]] = []
    for term in op.terms:
        if s == t and ctx.facts.nonnegative(term.x):
            found.append((term.x, by_sign(ctx, term.x, transposed(b, term.map.favoured(b, g), s), None)))
            continue
        straight = transposed(b, term.map.scaled(b, "full", 1.0 + g / 2), s)
        sizes = transposed(b, term.map.scaled(b, "abs", g / 2), t)
        if sizes is not None and not ctx.facts.nonnegative(term.x):
            sizes = b.mul(sizes, b.sign(term.x))
        both = [part for part in (straight, sizes) if part is not None]
        found.append((term.x, Relevance(b.sum(both), term.x) if both else None))
    return kept(found)


def _favouring(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """The gamma rule where relevance comes from positive z and all x >= 0: s = R / (Gp x + b + g b+ + epsilon)."""
    b, g, size = ctx.b, float(p["gamma"]), float(p["epsilon"])
    maps = [(t.map.favoured(b, g), t.x) for t in op.terms]
    bias = bias_of(b, op, p, lambda bias: b.add(bias, b.scale(b.positive(bias), g)))
    s = b.div(r.as_map(b), run(b, op, maps, bias, size))
    ctx.book("stabiliser", lambda: b.scale(s, size))
    book_bias(ctx, op, s, bias)
    return kept([(x, by_sign(ctx, x, transposed(b, m, s), None)) for m, x in maps])


def _gamma_shares(ctx: Context, op: Linear, r: Relevance, p: Parameters, z: str) -> tuple[str, str]:
    """(s, t) of the gamma rule; both zero where z is."""
    b, g, size = ctx.b, float(p["gamma"]), float(p["epsilon"])
    parts = [(t.map.scaled(b, "abs", g / 2), t.x if ctx.facts.nonnegative(t.x) else b.op("Abs", t.x)) for t in op.terms]
    sizes = run(b, op, parts, bias_of(b, op, p, lambda bias: b.scale(b.op("Abs", bias), g / 2)))
    magnitude = z if ctx.facts.nonnegative(z) else b.op("Abs", z)
    d = b.add(b.scale(magnitude, 1.0 + g / 2), sizes)
    stable = _stabilised_size(ctx, op, p, z, sizes, d)
    safe = size > 0 and p.get("stabiliser", "sign") != "norm"
    divide_by: Callable[[str, str], str] = b.div if safe else b.quotient
    if r.base == z:
        # R = z m, so that t = z q and s = |z| q: the sign is there already.
        q = divide_by(r.value, stable)
        s, t = b.mul(magnitude, q), b.mul(z, q)
    else:
        t = divide_by(r.as_map(b), stable)
        if only_where_positive(ctx, op, r):
            s = t
        else:
            sign = b.sub(b.above(z), b.below(z))
            s = b.mul(t, sign)
            t = b.mul(s, sign)
    ctx.book("stabiliser", lambda: b.sub(r.as_map(b), b.mul(t, d)))
    return s, t


def _stabilised_size(ctx: Context, op: Linear, p: Parameters, z: str, sizes: str, d: str) -> str:
    """st(d) of the gamma rule. With the norm form, by all d of the side that z is on."""
    b, g = ctx.b, float(p["gamma"])
    if p.get("stabiliser", "sign") != "norm":
        return stabilised(ctx, op, d, p, sign=1 if float(p["epsilon"]) else 0)
    base = b.scale(z, 1.0 + g / 2)
    up, down = b.add(base, sizes), b.sub(base, sizes)
    return b.add(
        d,
        b.add(
            b.mul(b.above(z), norm_size(b, op, up, p)),
            b.mul(b.below(z), norm_size(b, op, down, p)),
        ),
    )
