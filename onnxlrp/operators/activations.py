"""Element-wise functions of one tensor. Each states its derivative; the rule table decides what relevance does."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Elementwise, Refusal
from onnxlrp.operators.registry import Situation, register

#: (builder, x, y, attribute getter) -> f'(x)
Derivative = Callable[[Builder, str, str, Situation], str]


def _elementwise(op: str, formula: str, derivative: Derivative) -> None:
    @register(op, "activation", "passes relevance through (rule of the table)", formula)
    def describe(at: Situation) -> Elementwise:
        x, y = at.node.inputs[0], at.y
        return Elementwise(x, y, lambda b, g: b.mul(g, derivative(b, x, y, at)))


def _masked(op: str, formula: str, keep: Derivative) -> None:
    """A function whose derivative is 1 where `keep` holds and 0 elsewhere."""

    @register(op, "activation", "passes relevance through (rule of the table)", formula)
    def describe(at: Situation) -> Elementwise:
        x, y = at.node.inputs[0], at.y
        return Elementwise(x, y, lambda b, g: b.mask(keep(b, x, y, at), g))


def _constant(b: Builder, value: float, like: str) -> str:
    return b.scalar(value, like)


def _one_minus(b: Builder, x: str) -> str:
    return b.sub(_constant(b, 1.0, x), x)


def _sigmoid_slope(b: Builder, x: str, y: str, at: Situation) -> str:
    return b.mul(y, _one_minus(b, y))


def _where_positive(b: Builder, x: str, positive: str, negative: str) -> str:
    return b.where(b.is_positive(x), positive, negative)


def _number(at: Situation, name: str, default: float) -> float:
    return float(at.node.attribute(name, default))


def _leaky(b: Builder, x: str, y: str, at: Situation) -> str:
    return _where_positive(b, x, _constant(b, 1.0, x), _constant(b, _number(at, "alpha", 0.01), x))


def _elu(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha = _number(at, "alpha", 1.0)
    return _where_positive(b, x, _constant(b, 1.0, x), b.add(y, _constant(b, alpha, x)))


def _selu(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha, gamma = (
        _number(at, "alpha", 1.67326319217681884765625),
        _number(at, "gamma", 1.05070102214813232421875),
    )
    return _where_positive(b, x, _constant(b, gamma, x), b.add(y, _constant(b, alpha * gamma, x)))


def _celu(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha = _number(at, "alpha", 1.0)
    slope = b.add(b.scale(y, 1.0 / alpha), _constant(b, 1.0, x))
    return _where_positive(b, x, _constant(b, 1.0, x), slope)


def _hard_sigmoid(b: Builder, x: str, y: str, at: Situation) -> str:
    inside = b.op("And", b.is_positive(y), b.op("Less", y, _constant(b, 1.0, y)))
    return b.where(inside, _constant(b, _number(at, "alpha", 0.2), x), _constant(b, 0.0, x))


def _hard_swish(b: Builder, x: str, y: str, at: Situation) -> str:
    middle = b.add(b.scale(x, 1.0 / 3.0), _constant(b, 0.5, x))
    above = b.op("GreaterOrEqual", x, _constant(b, 3.0, x))
    below = b.op("LessOrEqual", x, _constant(b, -3.0, x))
    return b.where(above, _constant(b, 1.0, x), b.where(below, _constant(b, 0.0, x), middle))


def _mish(b: Builder, x: str, y: str, at: Situation) -> str:
    t = b.op("Tanh", b.op("Softplus", x))
    return b.add(t, b.mul(b.mul(x, b.op("Sigmoid", x)), _one_minus(b, b.square(t))))


def _gelu(b: Builder, x: str, y: str, at: Situation) -> str:
    if at.node.attribute("approximate", "none") == "tanh":
        c = math.sqrt(2.0 / math.pi)
        inner = b.scale(b.add(x, b.scale(b.mul(x, b.square(x)), 0.044715)), c)
        t = b.op("Tanh", inner)
        slope = b.scale(b.add(b.scale(b.square(x), 3 * 0.044715), _constant(b, 1.0, x)), c)
        half = b.scale(b.add(t, _constant(b, 1.0, x)), 0.5)
        return b.add(half, b.scale(b.mul(b.mul(x, _one_minus(b, b.square(t))), slope), 0.5))
    cdf = b.scale(b.add(b.op("Erf", b.scale(x, math.sqrt(0.5))), _constant(b, 1.0, x)), 0.5)
    density = b.scale(b.op("Exp", b.scale(b.square(x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return b.add(cdf, b.mul(x, density))


def _swish(b: Builder, x: str, y: str, at: Situation) -> str:
    alpha = _number(at, "alpha", 1.0)
    s = b.op("Sigmoid", b.scale(x, alpha))
    return b.add(s, b.mul(b.scale(y, alpha), _one_minus(b, s)))


def _softsign(b: Builder, x: str, y: str, at: Situation) -> str:
    return b.square(_one_minus(b, b.op("Abs", y)))


_masked("Relu", "1 where x > 0", lambda b, x, y, at: b.is_positive(y))
_masked(
    "ThresholdedRelu",
    "1 where x > alpha",
    lambda b, x, y, at: b.op("Greater", x, _constant(b, _number(at, "alpha", 1.0), x)),
)
_elementwise("LeakyRelu", "1 or alpha", _leaky)
_elementwise("Elu", "1 or y + alpha", _elu)
_elementwise("Selu", "gamma or y + alpha gamma", _selu)
_elementwise("Celu", "1 or y/alpha + 1", _celu)
_elementwise("Sigmoid", "y (1 - y)", _sigmoid_slope)
_elementwise("HardSigmoid", "alpha inside, 0 outside", _hard_sigmoid)
_elementwise("HardSwish", "0, x/3 + 1/2, or 1", _hard_swish)
_elementwise("Tanh", "1 - y^2", lambda b, x, y, at: _one_minus(b, b.square(y)))
_elementwise("Softplus", "sigmoid(x)", lambda b, x, y, at: b.op("Sigmoid", x))
_elementwise("Softsign", "(1 - |y|)^2", _softsign)
_elementwise("Mish", "exact", _mish)
_elementwise("Gelu", "exact, both forms", _gelu)
_elementwise("Swish", "exact", _swish)
_elementwise(
    "Erf",
    "2/sqrt(pi) exp(-x^2)",
    lambda b, x, y, at: b.scale(b.op("Exp", b.op("Neg", b.square(x))), 2.0 / math.sqrt(math.pi)),
)
_elementwise("Exp", "y", lambda b, x, y, at: y)
_elementwise("Log", "1/x", lambda b, x, y, at: b.op("Reciprocal", x))
_elementwise("Sqrt", "1/(2 y)", lambda b, x, y, at: b.div(_constant(b, 0.5, y), y))
_elementwise("Reciprocal", "-y^2", lambda b, x, y, at: b.op("Neg", b.square(y)))
_elementwise("Abs", "sign(x)", lambda b, x, y, at: b.op("Sign", x))


@register("PRelu", "activation", "passes relevance through (rule of the table)", "1 or slope", data=(0, 1))
def prelu(at: Situation) -> Elementwise | Refusal:
    refusal = at.require_constant(1)
    if refusal:
        return refusal
    x, slope = at.node.inputs
    return Elementwise(x, at.y, lambda b, g: b.where(b.is_positive(x), g, b.mul(g, slope)))


@register(
    "Clip",
    "activation",
    "passes relevance through (rule of the table)",
    "1 between the bounds",
    data=(0, 1, 2),
)
def clip(at: Situation) -> Elementwise | Refusal:
    refusal = at.require_constant(1, 2)
    if refusal:
        return refusal
    x, y = at.node.inputs[0], at.y
    low, high = at.node.input(1), at.node.input(2)

    def gradient(b: Builder, g: str) -> str:
        if low:
            g = b.mask(b.op("Greater", x, low), g)
        if high:
            g = b.mask(b.op("Less", x, high), g)
        return g

    return Elementwise(x, y, gradient)


@register("Pow", "activation", "passes relevance through to the base", "n x^(n-1)", data=(0, 1))
def pow_(at: Situation) -> Elementwise | Refusal:
    refusal = at.require_constant(1)
    if refusal:
        return refusal
    x, n = at.node.inputs

    def gradient(b: Builder, g: str) -> str:
        exponent = n if b.dtype(n) == b.dtype(x) else b.op("Cast", n, to=b.dtype(x))
        one = b.scalar(1.0, x)
        slope = b.mul(exponent, b.op("Pow", x, b.sub(exponent, one)))
        return b.sum_to(b.mul(g, slope), at.y, x)

    return Elementwise(x, at.y, gradient)
