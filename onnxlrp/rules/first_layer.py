"""Rules for the layer that reads the input: z-box, w-square, flat. Their result is a map, not a multiple of x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Linear, Map, Part, Term
from onnxlrp.rules.recipe import (
    Contributions,
    Parameters,
    bias_of,
    book_bias,
    divide,
    on_output,
    output_of,
    run,
)


def _plane(b: Builder, op: Linear, x: str, value: str) -> str:
    """`value` broadcast to the shape of x, for one sample where the operator treats samples alike."""
    shape = b.graph.shape(x)
    if op.per_sample and shape is not None and all(isinstance(d, int) for d in shape[1:]):
        return b.op("Expand", value, b.integers([1, *[d for d in shape[1:] if isinstance(d, int)]]))
    return b.expand_like(value, x)


def _need(part: Map | None) -> Map:
    if part is None:
        raise LookupError("a weighted layer has every part")
    return part


def _even(ctx: Context, op: Linear, r: Relevance, p: Parameters, part: Part, bias: str | None) -> Contributions:
    """s = R / st(V 1 + bias), R_i = V^T s for a modified weight V."""
    b = ctx.b
    one = b.scalar(1.0, op.y)
    maps = [(t, _need(t.map.part(b, part))) for t in op.terms]
    d = run(b, op, [(m, _plane(b, op, t.x, one)) for t, m in maps], bias)
    s = divide(ctx, op, r, d, p, sign=1)
    book_bias(ctx, op, s, bias)
    return [(t.x, Relevance(m.adjoint(b, s))) for t, m in maps]


def w_square(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = sum_i w_ij^2 + b_j^2;  R_i = (W^2)^T s."""
    return _even(ctx, op, r, p, "square", bias_of(ctx.b, op, p, ctx.b.square))


def flat(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = number of inputs in reach;  R_i = 1^T s."""
    return _even(ctx, op, r, p, "ones", None)


def _bound(b: Builder, value: Any, x: str) -> str:
    """A z-box bound as a tensor that broadcasts to x: a number, one per channel (axis 1), or an initializer's name."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        rank = b.graph.rank(x) or 2
        shape = (-1, *[1] * (rank - 2))
        return b.constant(np.asarray(value, b.numpy_type(x)).reshape(shape), "bound")
    return b.scalar(float(value), x)


def z_box(ctx: Context, op: Linear, r: Relevance, p: Parameters) -> Contributions:
    """d = W x - W+ low - W- high;  R = x W^T s - low (W+)^T s - high (W-)^T s. No bias.

    With W- = W - W+ that is (x - high) W^T s + (high - low) (W+)^T s: two transposes instead of three.
    """
    b = ctx.b
    z = output_of(ctx, op, r, p)
    d = b.sub(z, on_output(b, op, op.bias(b))) if op.bias is not None else z
    bounds: list[tuple[Term, str, str, Map, Map]] = []
    for term in op.terms:
        low, high = _bound(b, p["low"], term.x), _bound(b, p["high"], term.x)
        plus, minus = _need(term.map.part(b, "plus")), _need(term.map.part(b, "minus"))
        d = b.sub(d, plus.forward(b, _plane(b, op, term.x, low), None))
        d = b.sub(d, minus.forward(b, _plane(b, op, term.x, high), None))
        bounds.append((term, low, high, _need(term.map.part(b, "full")), plus))
    s = divide(ctx, op, r, d, p)
    found: Contributions = []
    for term, low, high, full, plus in bounds:
        whole = b.mul(b.sub(term.x, high), full.adjoint(b, s))
        found.append((term.x, Relevance(b.add(whole, b.mul(b.sub(high, low), plus.adjoint(b, s))))))
    return found
