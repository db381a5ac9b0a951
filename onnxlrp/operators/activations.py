"""Activation functions. Each states its derivative; the rule table decides what relevance does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Elementwise, Refusal
from onnxlrp.operators.elementwise import PASSES, elementwise, masked, number, one_minus
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register

#: What is lower was masked: no score is.
_MASKED = -1e4


def _constant(b: Builder, value: float, like: str) -> str:
    return b.scalar(value, like)


def _sigmoid_slope(b: Builder, x: str, y: str, at: Situation) -> str:
    return b.mul(y, one_minus(b, y))


def _where_positive(b: Builder, x: str, positive: str, negative: str) -> str:
    return b.where(b.is_positive(x), positive, negative)


def _leaky(b: Builder, x: str, y: str, at: Situation) -> str:
    return _where_positive(b, x, _constant(b, 1.0, x), _constant(b, number(at, "alpha", 0.01), x))


def _elu(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha = number(at, "alpha", 1.0)
    return _where_positive(b, x, _constant(b, 1.0, x), b.add(y, _constant(b, alpha, x)))


def _selu(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha, gamma = (
        number(at, "alpha", 1.67326319217681884765625),
        number(at, "gamma", 1.05070102214813232421875),
    )
    return _where_positive(b, x, _constant(b, gamma, x), b.add(y, _constant(b, alpha * gamma, x)))


def _celu(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha = number(at, "alpha", 1.0)
    slope = b.add(b.scale(y, 1.0 / alpha), _constant(b, 1.0, x))
    return _where_positive(b, x, _constant(b, 1.0, x), slope)


def _hard_sigmoid(b: Builder, x: str, y: str, at: Situation) -> str:
    inside = b.op("And", b.is_positive(y), b.op("Less", y, _constant(b, 1.0, y)))
    return b.where(inside, _constant(b, number(at, "alpha", 0.2), x), _constant(b, 0.0, x))


def _hard_swish(b: Builder, x: str, y: str, at: Situation) -> str:
    middle = b.add(b.scale(x, 1.0 / 3.0), _constant(b, 0.5, x))
    above = b.op("GreaterOrEqual", x, _constant(b, 3.0, x))
    below = b.op("LessOrEqual", x, _constant(b, -3.0, x))
    return b.where(above, _constant(b, 1.0, x), b.where(below, _constant(b, 0.0, x), middle))


def _mish(b: Builder, x: str, y: str, at: Situation) -> str:
    t = b.op("Tanh", b.op("Softplus", x))
    return b.add(t, b.mul(b.mul(x, b.op("Sigmoid", x)), one_minus(b, b.square(t))))


def _normal_cdf(b: Builder, x: str) -> str:
    return b.scale(b.add(b.op("Erf", b.scale(x, math.sqrt(0.5))), _constant(b, 1.0, x)), 0.5)


def _gelu_quotient(b: Builder, x: str, y: str, at: Situation) -> str:
    if at.node.attribute("approximate", "none") == "tanh":
        return b.quotient(y, x)
    return _normal_cdf(b, x)


def _gelu(b: Builder, x: str, y: str, at: Situation) -> str:
    # Far out the slope is 0 or 1 to the last digit, and powers of x would not stay finite.
    x = b.op("Clip", x, _constant(b, -20.0, x), _constant(b, 20.0, x))
    if at.node.attribute("approximate", "none") == "tanh":
        c = math.sqrt(2.0 / math.pi)
        inner = b.scale(b.add(x, b.scale(b.mul(x, b.square(x)), 0.044715)), c)
        t = b.op("Tanh", inner)
        slope = b.scale(b.add(b.scale(b.square(x), 3 * 0.044715), _constant(b, 1.0, x)), c)
        half = b.scale(b.add(t, _constant(b, 1.0, x)), 0.5)
        return b.add(half, b.scale(b.mul(b.mul(x, one_minus(b, b.square(t))), slope), 0.5))
    cdf = _normal_cdf(b, x)
    density = b.scale(b.op("Exp", b.scale(b.square(x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return b.add(cdf, b.mul(x, density))


def _swish(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha = number(at, "alpha", 1.0)
    s = b.op("Sigmoid", b.scale(x, alpha))
    return b.add(s, b.mul(b.scale(y, alpha), one_minus(b, s)))


def _softsign(b: Builder, x: str, y: str, at: Situation) -> str:
    return b.square(one_minus(b, b.op("Abs", y)))


elementwise("Relu", "1 where x > 0", lambda b, x, y, at: b.above(y))
masked(
    "ThresholdedRelu",
    "1 where x > alpha",
    lambda b, x, y, at: b.op("Greater", x, _constant(b, number(at, "alpha", 1.0), x)),
)
masked(
    "Shrink",
    "1 where |x| > lambd",
    lambda b, x, y, at: b.op("Greater", b.op("Abs", x), _constant(b, number(at, "lambd", 0.5), x)),
)
elementwise("LeakyRelu", "1 or alpha", _leaky, _leaky)
elementwise("Elu", "1 or y + alpha", _elu)
elementwise("Selu", "gamma or y + alpha gamma", _selu)
elementwise("Celu", "1 or y/alpha + 1", _celu)
elementwise("Sigmoid", "y (1 - y)", _sigmoid_slope)
elementwise("HardSigmoid", "alpha inside, 0 outside", _hard_sigmoid)
elementwise(
    "HardSwish",
    "0, x/3 + 1/2, or 1",
    _hard_swish,
    lambda b, x, y, at: b.op("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5),
)
elementwise("Softplus", "sigmoid(x)", lambda b, x, y, at: b.op("Sigmoid", x))
elementwise("Softsign", "(1 - |y|)^2", _softsign)
elementwise("Mish", "exact", _mish, lambda b, x, y, at: b.op("Tanh", b.op("Softplus", x)))
elementwise("Gelu", "exact, both forms", _gelu, _gelu_quotient)
elementwise(
    "Swish",
    "exact",
    _swish,
    lambda b, x, y, at: b.op("Sigmoid", b.scale(x, number(at, "alpha", 1.0))),
)


@register("PRelu", "activation", PASSES, "1 or slope", data=(0, 1))
def prelu(at: Situation) -> Elementwise | Refusal:
    refusal = at.require_constant(1)
    if refusal:
        return refusal
    x, slope = at.node.inputs

    def slope_at(b: Builder, g: str, other: str) -> str:
        return b.where(b.is_positive(other), g, b.mul(g, slope))

    return Elementwise(x, at.y, lambda b, g: slope_at(b, g, x), slope_at=slope_at)


@lowers("PRelu")
def prelu_with_slopes_from_data(at: Situation, b: Builder) -> Sequence[str] | None:
    """max(x, 0) - slope max(-x, 0)."""
    if not at.is_active(1):
        return None
    x, slope = at.node.inputs
    return (b.sub(b.positive(x), b.mul(slope, b.positive(b.op("Neg", x)))),)


@lowers("SwiGLU", treatment="taken apart: Swish of the gate times the signal")
def swiglu(at: Situation, b: Builder) -> Sequence[str]:
    """a sigmoid(alpha a) b."""
    gate, signal = at.node.inputs
    swish = b.mul(gate, b.op("Sigmoid", b.scale(gate, number(at, "alpha", 1.0))))
    return (b.mul(swish, signal),)


@register(
    "Clip",
    "activation",
    PASSES,
    "1 between the bounds",
    data=(0, 1, 2),
)
def clip(at: Situation) -> Elementwise | Refusal:
    refusal = at.require_constant(1, 2)
    if refusal:
        return refusal
    x, y = at.node.inputs[0], at.y
    low, high = at.node.input(1), at.node.input(2)

    def slope_at(b: Builder, g: str, value: str) -> str:
        for bound, inside, comparison in ((low, b.above, "Greater"), (high, b.below, "Less")):
            known = at.facts.scalar(bound) if bound else None
            if known is not None:
                g = b.mul(g, inside(value, known))
            elif bound:
                g = b.mask(b.op(comparison, value, bound), g)
        return g

    lowest = at.facts.scalar(low) if low else None
    only_masks = not high and lowest is not None and lowest <= _MASKED
    # The result tells as well as x on which side of a bound x was, and leaves the runtime free to fuse the Clip.
    return Elementwise(x, y, lambda b, g: slope_at(b, g, y), slope_at=slope_at, only_masks=only_masks)


@lowers("Clip")
def clip_with_bounds_from_data(at: Situation, b: Builder) -> Sequence[str] | None:
    """min(max(x, low), high)."""
    x, low, high = (at.node.input(i) for i in range(3))
    if not (at.is_active(1) or at.is_active(2)):
        return None
    if low:
        x = b.op("Max", x, low)
    return (b.op("Min", x, high) if high else x,)
