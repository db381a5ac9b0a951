"""Rules for products and quotients of two tensors that both depend on the input."""

from __future__ import annotations

from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Product
from onnxlrp.rules.recipe import Contributions, Parameters, book_difference, stabilised


def signal_of(op: Product, p: Parameters) -> str | None:
    """The factor that the signal rule gives everything to, None where it gives half to each."""
    if op.signal is None and p.get("activated") == "gate" and "gate" in op.roles:
        return op.b if op.roles[0] == "gate" else op.a
    return op.signal


def signal(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """All to the signal; half to each where neither factor is a gate."""
    factor = signal_of(op, p)
    if factor is None:
        return half(ctx, op, r, p)
    b = ctx.b
    if op.elementwise and not r.is_multiplier_of(op.y):
        return [(factor, Relevance(b.sum_to(r.as_map(b), op.y, factor)))]
    found = Relevance(op.partial(b, r.as_multiplier(b, ctx.facts, op.y), factor), factor)
    if not r.is_multiplier_of(op.y):
        # A product that is zero has no multiplier: what it was given ends here.
        book_difference(ctx, "other", [r], [found])
    return [(factor, found)]


def half(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """Half to each factor; of a quotient all to the numerator. With epsilon R_a = a * d(sum y R / st(2y))/da."""
    if op.quotient:
        return signal(ctx, op, r, p)
    b, divided = ctx.b, bool(float(p.get("epsilon", 0.0)))
    if op.elementwise and not divided and not r.is_multiplier_of(op.y):
        share = b.scale(r.as_map(b), 0.5)
        return [(x, Relevance(b.sum_to(share, op.y, x))) for x in (op.a, op.b)]
    if divided:
        m = b.div(r.as_map(b), stabilised(ctx, op, b.scale(op.y, 2.0), p))
    else:
        m = b.scale(r.as_multiplier(b, ctx.facts, op.y), 0.5)
    found = [(x, Relevance(op.partial(b, m, x), x)) for x in (op.a, op.b)]
    if divided:
        book_difference(ctx, "stabiliser", [r], [part for _, part in found])
    elif not r.is_multiplier_of(op.y):
        # A product that is zero has no multiplier: what it was given ends here.
        book_difference(ctx, "other", [r], [part for _, part in found])
    return found


def proportional(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """R_a = a / st(a + b) R, or with absolute values |a| / (|a| + |b| + epsilon) R; of a quotient all to the numerator.

    It compares factors with one another, element by element: a gate of 0.9 gets more than a signal of 0.1.
    """
    if op.quotient:
        return signal(ctx, op, r, p)
    b, absolute = ctx.b, p["shares"] == "absolute"
    sizes = [b.op("Abs", x) if absolute else x for x in (op.a, op.b)]
    total = stabilised(ctx, op, b.add(*sizes), p, sign=1 if absolute else 0)
    per_unit = b.quotient(r.as_map(b), total)
    found = [
        (x, Relevance(b.sum_to(b.mul(size, per_unit), op.y, x))) for x, size in zip((op.a, op.b), sizes, strict=True)
    ]
    book_difference(ctx, "stabiliser", [r], [part for _, part in found])
    return found


def dual_path(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """To each factor what its path is worth. The attention weights get what queries and keys get together."""
    if op.quotient:
        return signal(ctx, op, r, p)
    scores = float(p["query"]) + float(p["key"])
    worth = {
        "query": float(p["query"]) / scores if scores else 0.0,
        "key": float(p["key"]) / scores if scores else 0.0,
        "weights": scores,
        "value": float(p["value"]),
        "gate": float(p["gate"]),
        "up": float(p["up"]),
    }
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    shares = [(x, worth.get(role, 0.5)) for x, role in zip((op.a, op.b), op.roles, strict=True)]
    found = [(x, Relevance(op.partial(b, b.scale(m, share), x), x)) for x, share in shares if share]
    book_difference(ctx, "other", [r], [part for _, part in found])
    return found


def held_product(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """The product rule, where a divisor or a norm of the signal is held constant. No rule of tables."""
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    if op.written_out is not None and op.signal == op.written_out.x:
        return [(op.signal, Relevance(op.written_out.gradient(b, m), op.signal))]
    factors = (op.signal,) if op.quotient and op.signal is not None else (op.a, op.b)
    return [(x, Relevance(op.partial(b, m, x), x)) for x in factors]


def product_derivative(ctx: Context, op: Product, r: Relevance, p: Parameters) -> Contributions:
    """The product or quotient rule."""
    b = ctx.b
    m = r.as_multiplier(b, ctx.facts, op.y)
    found = [(x, Relevance(op.partial(b, m, x), x)) for x in (op.a, op.b)]
    book_difference(ctx, "other", [r], [part for _, part in found])
    return found
