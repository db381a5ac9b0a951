"""The rules for linear operators, each written once for every `Linear`.

Notation (METHODS section 3): x inputs, W weights, b bias, z = sum of W x + b the output, R relevance of the output,
w+ = max(0, w), w- = min(0, w), st(d) the stabilised denominator. Every rule is a recipe of three steps: a
denominator d, s = R / st(d), and multipliers that are transposes applied to s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Part, Term

Parameters = Mapping[str, Any]
Contributions = list[tuple[str, Relevance]]


# -- building blocks -------------------------------------------------------------------------------------------


def _output(ctx: Context, op: Linear, r: Relevance) -> str:
    """z, or a tensor that is equal to it wherever relevance is and not negative (its Relu)."""
    if r.base is not None and r.base != op.y and ctx.facts.stands_in(r.base, op.y):
        return r.base
    return op.y


def _only_where_positive(ctx: Context, op: Linear, r: Relevance) -> bool:
    """Whether relevance is zero wherever z <= 0."""
    if r.base is None:
        return False
    return ctx.facts.stands_in(r.base, op.y) or (r.base == op.y and ctx.facts.nonnegative(op.y))


def _on_output(b: Builder, op: Linear, bias: str) -> str:
    """A bias in a shape that broadcasts against y."""
    rank = b.graph.rank(op.y) or 2
    if op.bias_size is None or rank == 2:
        return bias
    return b.op("Reshape", bias, b.integers([-1, *[1] * (rank - 2)]))


def _uses_bias(op: Linear, p: Parameters) -> bool:
    return op.bias is not None and p.get("bias", "absorb") == "absorb"


def _bias(
    b: Builder, op: Linear, p: Parameters, change: Callable[[str], str] = lambda bias: bias
) -> str | None:
    """The bias after `change`, or None where there is none or the rule ignores it."""
    return change(op.bias(b)) if op.bias is not None and _uses_bias(op, p) else None


def _run(
    b: Builder, op: Linear, parts: Sequence[tuple[Map | None, str]], bias: str | None, shift: float = 0.0
) -> str:
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
    return total if native or bias is None else b.add(total, _on_output(b, op, bias))


def _stabilised(ctx: Context, d: str, p: Parameters, sign: int = 0) -> str:
    """st(d), where `sign` is that of d if it is known: d away from zero by epsilon. sgn(0) = 1."""
    b, epsilon, form = ctx.b, float(p["epsilon"]), p.get("stabiliser", "sign")
    if not epsilon:
        return d
    size = b.scalar(epsilon, d)
    if form == "norm":
        rank = b.graph.rank(d) or 0
        axes = b.integers(range(1, rank)) if rank > 1 else ""
        size = b.mul(size, b.op("Sqrt", b.op("ReduceMean", b.square(d), axes, keepdims=1)))
    less = b.op("Neg", size) if form == "norm" else b.scalar(-epsilon, d)
    if form == "clip":
        if sign:
            return b.op("Max", d, size) if sign > 0 else b.op("Min", d, less)
        high, low = b.op("Max", d, size), b.op("Min", d, less)
    else:
        if sign:
            return b.add(d, size if sign > 0 else less)
        return b.add(d, b.where(b.op("GreaterOrEqual", d, b.scalar(0.0, d)), size, less))
    return b.where(b.op("GreaterOrEqual", d, b.scalar(0.0, d)), high, low)


def _divide(ctx: Context, r: Relevance, d: str, p: Parameters, sign: int = 0) -> str:
    """s = R / st(d); books what the stabiliser keeps."""
    b = ctx.b
    stable = _stabilised(ctx, d, p, sign)
    if stable == d and not sign:
        zero = b.op("Equal", d, b.scalar(0.0, d))
        s = b.where(zero, b.scalar(0.0, d), b.div(r.as_map(b), b.where(zero, b.scalar(1.0, d), d)))
        ctx.book("stabiliser", lambda: b.sub(r.as_map(b), b.mul(s, d)))
        return s
    s = b.div(r.as_map(b), stable)
    if stable != d:
        ctx.book("stabiliser", lambda: b.mul(s, b.sub(stable, d)))
    return s


def _book_bias(ctx: Context, op: Linear, s: str, bias: str | None) -> None:
    if bias is not None:
        ctx.book("bias", lambda: ctx.b.mul(s, _on_output(ctx.b, op, bias)))


def _parts(b: Builder, op: Linear, part: Part) -> list[tuple[Map | None, str]]:
    return [(t.map.part(b, part), t.x) for t in op.terms]


def _inputs_nonnegative(ctx: Context, op: Linear) -> bool:
    return all(ctx.facts.nonnegative(t.x) for t in op.terms)


def _by_sign(ctx: Context, x: str, positive: str | None, negative: str | None) -> Relevance | None:
    """The multiplier that is `positive` where x > 0 and `negative` elsewhere."""
    b = ctx.b
    if ctx.facts.nonnegative(x):
        return None if positive is None else Relevance(positive, x)
    if positive is None and negative is None:
        return None
    zero = b.scalar(0.0, x)
    return Relevance(b.where(b.is_positive(x), positive or zero, negative or zero), x)


def _kept(pairs: Sequence[tuple[str, Relevance | None]]) -> Contributions:
    return [(x, r) for x, r in pairs if r is not None]


def _transposed(b: Builder, part: Map | None, s: str) -> str | None:
    return None if part is None else part.adjoint(b, s)


# -- z, epsilon, norm ------------------------------------------------------------------------------------------


def epsilon(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """R_i = x_i sum_j w_ij R_j / st(z_j). With epsilon 0 this is LRP-0 and needs no division at all.

    Where R is kept as z * m, s = m |z| / (|z| + epsilon): nothing small is divided by.
    """
    p = {"epsilon": 0.0, **p}
    b, size = ctx.b, float(p["epsilon"])
    z = _output(ctx, op, r)
    if op.bias is not None and not _uses_bias(op, p):
        s = _divide(ctx, r, b.sub(z, _on_output(b, op, op.bias(b))), p)
    elif r.base == z and not size:
        s = b.mask(b.is_positive(z), r.value) if z != op.y else r.value
    elif r.base == z and p.get("stabiliser", "sign") == "sign":
        magnitude = z if ctx.facts.nonnegative(z) else b.op("Abs", z)
        s = b.div(b.mul(r.value, magnitude), b.add(magnitude, b.scalar(size, z)))
        ctx.book("stabiliser", lambda: b.scale(b.mul(s, b.op("Sign", z)), size))
    else:
        s = _divide(ctx, r, z, p, sign=1 if ctx.facts.nonnegative(z) and size else 0)
    _book_bias(ctx, op, s, _bias(b, op, p))
    return _kept([(t.x, _full(b, t, s)) for t in op.terms])


def _full(b: Builder, term: Term, s: str) -> Relevance | None:
    back = _transposed(b, term.map.part(b, "full"), s)
    return None if back is None else Relevance(back, term.x)


def gradient(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """m_i = sum_j dz_j/dx_i m_j: the derivative."""
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    _book_bias(ctx, op, m, _bias(b, op, {}))
    if op.vjp is None:
        return _kept([(t.x, _full(b, t, m)) for t in op.terms])
    back = op.vjp(b, m)
    full = {t.x: t.map.part(b, "full") for t in op.terms}
    for x, inner in back.items():
        frozen = full[x]
        if frozen is not None:
            ctx.book("other", lambda x=x, inner=inner, f=frozen: b.mul(x, b.sub(f.adjoint(b, m), inner)))
    return [(x, Relevance(inner, x)) for x, inner in back.items()]


# -- rules that tell positive from negative contributions --------------------------------------------------------


def _positive_sum(ctx: Context, op: Linear, r: Relevance, p: Parameters, shift: float) -> tuple[str, float]:
    """(d, c): c * d = sum of positive contributions and positive bias + shift, right wherever relevance is.

    With x >= 0 that is one run with W+. Otherwise, with F = |W| |x| + |b|, the positive contributions are (z + F) / 2,
    which again costs one run, since z is there already; c = 1/2 is left to the caller, who can fold it elsewhere.
    """
    b = ctx.b
    if _inputs_nonnegative(ctx, op):
        return _run(b, op, _parts(b, op, "plus"), _bias(b, op, p, b.positive), shift), 1.0
    if all(isinstance(t.map, Fixed) for t in op.terms):
        # A map of one sign needs one run in any case.
        halves = [(m, b.positive(x)) for m, x in _parts(b, op, "plus")]
        halves += [(m, b.negative(x)) for m, x in _parts(b, op, "minus")]
        return _run(b, op, halves, _bias(b, op, p, b.positive), shift), 1.0
    z = _output(ctx, op, r)
    if op.bias is not None and not _uses_bias(op, p):
        z = b.sub(op.y, _on_output(b, op, op.bias(b)))
    sizes = [(part, x if ctx.facts.nonnegative(x) else b.op("Abs", x)) for part, x in _parts(b, op, "abs")]
    whole = _run(b, op, sizes, _bias(b, op, p, lambda bias: b.op("Abs", bias)), 2.0 * shift)
    # Rounding must not take a sum of positive terms below its smallest possible value.
    return b.op("Max", b.add(z, whole), b.scalar(2.0 * shift, op.y)), 0.5


def _positive_share(ctx: Context, op: Linear, r: Relevance, p: Parameters, weight: float = 1.0) -> str:
    """weight * R / st(sum of positive contributions)."""
    b, size = ctx.b, float(p["epsilon"])
    if p.get("stabiliser", "sign") == "sign" and size:
        d, c = _positive_sum(ctx, op, r, p, size)
        s = b.scale(b.div(r.as_map(b), d), weight / c)
        ctx.book("stabiliser", lambda: b.scale(s, size))
    else:
        d, c = _positive_sum(ctx, op, r, p, 0.0)
        s = b.scale(_divide(ctx, r, b.scale(d, c), p, sign=1 if size else 0), weight)
    _book_bias(ctx, op, s, _bias(b, op, p, b.positive))
    return s


def z_plus(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = x+ W+ + x- W- + b+;  R_i = x+ (W+)^T s + x- (W-)^T s."""
    b = ctx.b
    s = _positive_share(ctx, op, r, p)
    found: list[tuple[str, Relevance | None]] = []
    for term in op.terms:
        signed = not ctx.facts.nonnegative(term.x)
        plus = _transposed(b, term.map.part(b, "plus"), s)
        minus = _transposed(b, term.map.part(b, "minus"), s) if signed else None
        found.append((term.x, _by_sign(ctx, term.x, plus, minus)))
    return _kept(found)


def excitation(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = x+ W+, without bias;  R_i = x+ (W+)^T R / st(d)."""
    b = ctx.b
    parts = [(part, x if ctx.facts.nonnegative(x) else b.positive(x)) for part, x in _parts(b, op, "plus")]
    s = _divide(ctx, r, _run(b, op, parts, None), p, sign=1)
    return _kept(
        [
            (x, _by_sign(ctx, x, _transposed(b, part, s), None))
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
    z = _output(ctx, op, r)
    if op.bias is not None and not _uses_bias(op, p):
        z = b.sub(op.y, _on_output(b, op, op.bias(b)))
    # Positive and negative contributions add up to z, so the second sum is free.
    second = b.op("Min", b.sub(z, first), b.scalar(0.0, z))
    quiet = Context(b, ctx.facts, type(ctx.ledger)(), ctx.step)
    size = float(p["epsilon"])
    s1 = _divide(quiet, r, first, p, sign=1 if size else 0)
    s2 = _divide(quiet, r, second, p, sign=-1 if size else 0)
    positive, negative = b.scale(s1, alpha), b.scale(s2, beta)
    ctx.book("stabiliser", lambda: b.scale(b.sub(r.as_map(b), b.mul(s1, first)), alpha))
    ctx.book("stabiliser", lambda: b.scale(b.sub(r.as_map(b), b.mul(s2, second)), -beta))
    _book_bias(ctx, op, positive, _bias(b, op, p, b.positive))
    _book_bias(
        ctx, op, b.op("Neg", negative) if ctx.ledger.enabled else negative, _bias(b, op, p, b.negative)
    )
    found: list[tuple[str, Relevance | None]] = []
    for term in op.terms:
        plus, minus = term.map.part(b, "plus"), term.map.part(b, "minus")
        up = _difference(b, _transposed(b, plus, positive), _transposed(b, minus, negative))
        down = None
        if not ctx.facts.nonnegative(term.x):
            down = _difference(b, _transposed(b, minus, positive), _transposed(b, plus, negative))
        found.append((term.x, _by_sign(ctx, term.x, up, down)))
    return _kept(found)


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
    used = op.bias is None or _uses_bias(op, p)
    up = down = None
    favoured = [(t.map.favoured(b, "plus", g), t.x) for t in op.terms]
    if _only_where_positive(ctx, op, r) and _inputs_nonnegative(ctx, op) and plain and used:
        more = _bias(b, op, p, lambda bias: b.add(bias, b.scale(b.positive(bias), g)))
        up = b.div(r.as_map(b), _run(b, op, list(favoured), more, size))
        ctx.book("stabiliser", lambda: b.scale(up, size))
        _book_bias(ctx, op, up, more)
    else:
        z = _output(ctx, op, r) if used else op.y
        if not used and op.bias is not None:
            z = b.sub(op.y, _on_output(b, op, op.bias(b)))
        first, c = _positive_sum(ctx, op, r, p, 0.0)
        first = b.scale(first, c)
        zero = b.scalar(0.0, z)
        high = b.add(z, b.scale(first, g))
        if _only_where_positive(ctx, op, r):
            up = b.where(b.is_positive(z), _divide(ctx, r, high, p, sign=1 if size else 0), zero)
        else:
            low = b.add(z, b.scale(b.sub(z, first), g))
            above, below = b.is_positive(z), b.op("Less", z, zero)
            quiet = Context(b, ctx.facts, type(ctx.ledger)(), ctx.step)
            up = b.where(above, _divide(quiet, r, high, p, sign=1 if size else 0), zero)
            down = b.where(below, _divide(quiet, r, low, p, sign=-1 if size else 0), zero)
            ctx.book("stabiliser", lambda: b.sub(r.as_map(b), b.mul(up, high)))
            ctx.book("stabiliser", lambda: b.op("Neg", b.mul(down, low)) if down else up)
        _book_bias(ctx, op, up, _bias(b, op, p, lambda bias: b.add(bias, b.scale(b.positive(bias), g))))
        if down:
            _book_bias(ctx, op, down, _bias(b, op, p, lambda bias: b.add(bias, b.scale(b.negative(bias), g))))
    found: list[tuple[str, Relevance | None]] = []
    for term, (more_map, x) in zip(op.terms, favoured, strict=True):
        signed = not ctx.facts.nonnegative(x)
        less_map = term.map.favoured(b, "minus", g) if signed or down else None
        ups = _sum(b, more_map.adjoint(b, up), _transposed(b, less_map, down) if down else None)
        downs = None
        if signed:
            downs = _sum(b, _transposed(b, less_map, up), more_map.adjoint(b, down) if down else None)
        found.append((x, _by_sign(ctx, x, ups, downs)))
    return _kept(found)
