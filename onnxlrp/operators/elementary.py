"""Elementary functions: exponential, roots, trigonometry, powers, remainders.

Derivatives are written with operators that run everywhere. Where a slope is infinite (Sqrt at 0, Asin at 1) it is
taken as 0.
"""

from __future__ import annotations

import math

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Elementwise
from onnxlrp.operators.elementwise import elementwise, inverse, one_minus, plus_one
from onnxlrp.operators.registry import Situation, register


def _root_slope(b: Builder, x: str, square: str) -> str:
    """1/sqrt(square)."""
    return inverse(b, b.op("Sqrt", square))


def _hyperbolic_cosine(b: Builder, x: str) -> str:
    return b.scale(b.add(b.op("Exp", x), b.op("Exp", b.op("Neg", x))), 0.5)


elementwise(
    "Erf",
    "2/sqrt(pi) exp(-x^2)",
    lambda b, x, y, at: b.scale(b.op("Exp", b.op("Neg", b.square(x))), 2.0 / math.sqrt(math.pi)),
)
elementwise("Exp", "y", lambda b, x, y, at: y)
elementwise("Log", "1/x", lambda b, x, y, at: inverse(b, x))
elementwise("Sqrt", "1/(2 y), and 0 at 0", lambda b, x, y, at: b.scale(inverse(b, y), 0.5))
elementwise("Reciprocal", "-y^2", lambda b, x, y, at: b.op("Neg", b.bounded(b.square(y))))
elementwise("Abs", "sign(x)", lambda b, x, y, at: b.op("Sign", x))
elementwise("Sin", "cos(x)", lambda b, x, y, at: b.op("Cos", x))
elementwise("Cos", "-sin(x)", lambda b, x, y, at: b.op("Neg", b.op("Sin", x)))
elementwise("Tan", "1 + y^2", lambda b, x, y, at: plus_one(b, b.square(y)))
elementwise("Asin", "1/sqrt(1 - x^2), and 0 at +-1", lambda b, x, y, at: _root_slope(b, x, one_minus(b, b.square(x))))
elementwise(
    "Acos",
    "-1/sqrt(1 - x^2), and 0 at +-1",
    lambda b, x, y, at: b.op("Neg", _root_slope(b, x, one_minus(b, b.square(x)))),
)
elementwise("Atan", "1/(1 + x^2)", lambda b, x, y, at: b.op("Reciprocal", plus_one(b, b.square(x))))
elementwise("Sinh", "cosh(x)", lambda b, x, y, at: _hyperbolic_cosine(b, x))
elementwise("Cosh", "sinh(x)", lambda b, x, y, at: b.mul(b.op("Tanh", x), y))
elementwise("Tanh", "1 - y^2", lambda b, x, y, at: one_minus(b, b.square(y)))
elementwise("Asinh", "1/sqrt(1 + x^2)", lambda b, x, y, at: _root_slope(b, x, plus_one(b, b.square(x))))
elementwise(
    "Acosh",
    "1/sqrt(x^2 - 1), and 0 at 1",
    lambda b, x, y, at: _root_slope(b, x, b.mul(b.sub(x, b.scalar(1.0, x)), plus_one(b, x))),
)
elementwise("Atanh", "1/(1 - x^2)", lambda b, x, y, at: inverse(b, one_minus(b, b.square(x))))


@register(
    "Pow",
    "activation",
    "passes relevance through to the base",
    "n x^(n-1) and y log(x), and 0 where these are infinite or not defined",
    data=(0, 1),
)
def pow_(at: Situation) -> Elementwise:
    base, n = at.node.inputs
    x, y = base, at.y

    def exponent(b: Builder) -> str:
        return n if b.dtype(n) == b.dtype(x) else b.op("Cast", n, to=b.dtype(x))

    def by_base(b: Builder, g: str, x: str = x) -> str:
        number = at.facts.scalar(n)
        if number == 2.0:
            return b.sum_to(b.mul(g, b.scale(x, 2.0)), y, base)
        power = exponent(b)
        one = b.scalar(1.0, x)
        less = b.sub(power, one)
        if number is not None and number >= 1.0:
            return b.sum_to(b.mul(g, b.mul(power, b.op("Pow", x, less))), y, base)
        # At zero the slope is n where n is 1; below that it is infinite, and n = 0 leaves none.
        zero = b.op("Equal", x, b.scalar(0.0, x))
        infinite = b.op("And", zero, b.op("Less", less, b.scalar(0.0, x)))
        slope = b.mul(power, b.op("Pow", b.where(infinite, one, x), less))
        return b.sum_to(b.mul(g, b.where(infinite, b.scalar(0.0, x), b.bounded(slope))), y, base)

    def by_exponent(b: Builder, g: str) -> str:
        above = b.is_positive(x)
        logarithm = b.op("Log", b.where(above, x, b.scalar(1.0, x)))
        m = b.mul(g, b.where(above, b.mul(y, logarithm), b.scalar(0.0, x)))
        return b.sum_to(m, y, n)

    if not at.is_active(0):
        return Elementwise(n, y, by_exponent, note="a function of its exponent")
    return Elementwise(x, y, by_base, controls={n: by_exponent} if at.is_active(1) else {}, slope_at=by_base)


@register("Mod", "activation", "passes relevance through to the dividend", "1 and -(a - y)/b", data=(0, 1))
def mod(at: Situation) -> Elementwise:
    a, d = at.node.inputs
    y = at.y

    def by_divisor(b: Builder, g: str) -> str:
        """The number of times that b goes into a, whichever way it is rounded."""
        times = b.op("Round", b.div(b.sub(a, y), d))
        return b.sum_to(b.mul(g, b.op("Neg", times)), y, d)

    if not at.is_active(0):
        return Elementwise(d, y, by_divisor, note="a function of its divisor")
    return Elementwise(a, y, lambda b, g: b.sum_to(g, y, a), controls={d: by_divisor} if at.is_active(1) else {})
