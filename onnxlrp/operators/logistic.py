"""1 / (1 + exp(-x)) is read as the Sigmoid that it is: taken step by step, exp(-x) overflows where x is low."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Node
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation


@lowers("Reciprocal Div")
def logistic(at: Situation, b: Builder) -> Sequence[str] | None:
    node = at.node
    if node.op == "Div" and at.facts.scalar(node.inputs[0]) != 1.0:
        return None
    exponential = _maker(at, _beside_a_constant(at, node.inputs[-1], "Add", 1.0), "Exp")
    if exponential is None:
        return None
    negative = exponential.inputs[0]
    negation = _maker(at, negative, "Neg")
    x = negation.inputs[0] if negation is not None else _beside_a_constant(at, negative, "Mul", -1.0)
    if not x or at.graph.shape(x) is None or at.graph.shape(x) != at.graph.shape(at.y):
        return None
    return (b.op("Sigmoid", x),)


def _maker(at: Situation, tensor: str, op: str) -> Node | None:
    node = at.graph.producer.get(tensor)
    return node if node is not None and node.op == op and not node.domain else None


def _beside_a_constant(at: Situation, tensor: str, op: str, value: float) -> str:
    """The other operand of the `op` that made a tensor with this constant, or ""."""
    node = _maker(at, tensor, op)
    if node is None:
        return ""
    first, second = node.inputs
    if at.facts.scalar(second) == value:
        return first
    return second if at.facts.scalar(first) == value else ""
