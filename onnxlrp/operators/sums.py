"""Sums of tensors: Add, Sub, Sum, Mean. Operands that do not depend on the explained input act as a bias."""

from __future__ import annotations

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Term
from onnxlrp.operators.registry import Situation, register

_TREATMENT = "shared in proportion to the terms; a term free of the explained input acts as a bias"


def _linear_sum(at: Situation, signs: tuple[int, ...], factor: float = 1.0) -> Linear:
    """y = factor * sum of sign * x."""
    y = at.y

    def term(x: str, sign: int) -> Term:
        def forward(b: Builder, value: str, bias: str | None) -> str:
            scaled = b.scale(value, factor)
            return b.add(scaled, bias) if bias else scaled

        def adjoint(b: Builder, s: str) -> str:
            return b.sum_to(b.scale(s, factor), y, x)

        return Term(x, Fixed(Map(forward, adjoint), sign))

    terms = tuple(term(x, s) for x, s in zip(at.node.inputs, signs, strict=True) if x in at.active)
    fixed = [(x, s) for x, s in zip(at.node.inputs, signs, strict=True) if x not in at.active]

    def bias(b: Builder) -> str:
        parts = [b.scale(b.op("Neg", x) if s < 0 else x, factor) for x, s in fixed]
        return b.sum(parts)

    return Linear("sum", terms, y, bias=bias if fixed else None)


@register("Add Sum", "sum", _TREATMENT, "1, summed over broadcast axes", data=None)
def add(at: Situation) -> Linear:
    return _linear_sum(at, (1,) * len(at.node.inputs))


@register("Sub", "sum", _TREATMENT, "1 and -1, summed over broadcast axes", data=None)
def sub(at: Situation) -> Linear:
    return _linear_sum(at, (1, -1))


@register("Mean", "sum", _TREATMENT, "1/n, summed over broadcast axes", data=None)
def mean(at: Situation) -> Linear:
    n = len(at.node.inputs)
    return _linear_sum(at, (1,) * n, 1.0 / n)
