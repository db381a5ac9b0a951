"""How functions of one element are registered, and slopes that stay finite."""

from __future__ import annotations

from collections.abc import Callable

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Elementwise
from onnxlrp.operators.registry import Situation, register

#: (builder, x, y, situation) -> f'(x)
Derivative = Callable[[Builder, str, str, Situation], str]

PASSES = "passes relevance through (rule of the table)"
#: f' of every operator that is registered here with one.
DERIVATIVES: dict[str, Derivative] = {}
#: Below this a divisor counts as zero: its inverse would not fit into float32.
_SMALLEST = 1e-37


def elementwise(op: str, formula: str, derivative: Derivative, quotient: Derivative | None = None) -> None:
    """Registers y = f(x) with its derivative, and f(x) / x where that has a form of its own."""

    DERIVATIVES[op] = derivative

    @register(op, "activation", PASSES, formula)
    def describe(at: Situation) -> Elementwise:
        x, y = at.node.inputs[0], at.y

        def slope_at(b: Builder, g: str, other: str) -> str:
            return b.mul(g, derivative(b, other, run_again(b, at, other), at))

        return Elementwise(
            x,
            y,
            lambda b, g: b.mul(g, derivative(b, x, y, at)),
            slope_at=slope_at,
            quotient=None if quotient is None else lambda b: quotient(b, x, y, at),
        )


def masked(op: str, formula: str, keep: Derivative) -> None:
    """Registers a function whose derivative is 1 where `keep` holds and 0 elsewhere."""

    @register(op, "activation", PASSES, formula)
    def describe(at: Situation) -> Elementwise:
        x, y = at.node.inputs[0], at.y
        return Elementwise(
            x,
            y,
            lambda b, g: b.mask(keep(b, x, y, at), g),
            slope_at=lambda b, g, other: b.mask(keep(b, other, run_again(b, at, other), at), g),
        )


def run_again(b: Builder, at: Situation, x: str) -> str:
    """f at another tensor of x's shape; left out of the model where no derivative asks for it."""
    return b.op(at.node.op, x, *at.node.inputs[1:], **at.node.attributes)


def one_minus(b: Builder, x: str) -> str:
    """1 - x."""
    return b.sub(b.scalar(1.0, x), x)


def plus_one(b: Builder, x: str) -> str:
    """x + 1."""
    return b.add(x, b.scalar(1.0, x))


def inverse(b: Builder, d: str) -> str:
    """1/d, and 0 where d is 0: where a slope is infinite nothing is handed on."""
    zero = b.op("LessOrEqual", b.op("Abs", d), b.scalar(_SMALLEST, d))
    one = b.scalar(1.0, d)
    return b.where(zero, b.scalar(0.0, d), b.op("Reciprocal", b.where(zero, one, d)))


def number(at: Situation, name: str, default: float) -> float:
    """An attribute of the node as a number."""
    return float(at.node.attribute(name, default))
