"""CumSum and Range: sums over what stands before."""

from __future__ import annotations

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Term
from onnxlrp.operators.registry import Situation, register


@register("CumSum", "average", "shared in proportion to the elements summed so far", "summed from the other end")
def cum_sum(at: Situation) -> Linear:
    node, x = at.node, at.node.inputs[0]
    exclusive, reverse = int(node.attribute("exclusive", 0)), int(node.attribute("reverse", 0))

    def run(b: Builder, value: str, reverse: int) -> str:
        return b.op("CumSum", value, node.inputs[1], exclusive=exclusive, reverse=reverse)

    def forward(b: Builder, value: str, bias: str | None) -> str:
        summed = run(b, value, reverse)
        return b.add(summed, bias) if bias else summed

    return Linear("average", (Term(x, Fixed(Map(forward, lambda b, s: run(b, s, 1 - reverse)))),), at.y)


@register("Range", "sum", "shared in proportion to start and step", "1 and the number of steps", data=(0, 2))
def range_(at: Situation) -> Linear:
    """y = start + number * step. Where it ends says nothing of its values."""
    (start, _, step), y = at.node.inputs, at.y

    def numbers(b: Builder) -> str:
        count = b.op("Squeeze", b.element_count(y))
        counted = b.op("Range", b.constant_int(0), count, b.constant_int(1))
        return b.op("Cast", counted, to=b.dtype(y) or int(TensorProto.FLOAT))

    def from_start(b: Builder, value: str, bias: str | None) -> str:
        whole = b.expand_like(value, y)
        return b.add(whole, bias) if bias else whole

    def from_step(b: Builder, value: str, bias: str | None) -> str:
        whole = b.mul(numbers(b), value)
        return b.add(whole, bias) if bias else whole

    def back(b: Builder, s: str, x: str) -> str:
        return b.reshape_like(b.op("ReduceSum", s, keepdims=1), x)

    terms = []
    if at.is_active(0):
        terms.append(Term(start, Fixed(Map(from_start, lambda b, s: back(b, s, start)))))
    if at.is_active(2):
        terms.append(Term(step, Fixed(Map(from_step, lambda b, s: back(b, b.mul(s, numbers(b)), step)))))

    def bias(b: Builder) -> str:
        return b.mul(numbers(b), step) if at.is_active(0) else b.expand_like(start, y)

    return Linear("sum", tuple(terms), y, bias=bias if len(terms) < 2 else None)
