"""Multiply-adds of the operators that cost something, counted from shapes."""

from __future__ import annotations

from math import prod

from onnxlrp.graph.view import Graph, Node

#: Operators whose cost is counted; everything else is small beside them.
COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def _elements(graph: Graph, tensor: str) -> int | None:
    """Elements for one sample: the batch and sizes that are not known count as 1."""
    shape = graph.shape(tensor)
    return None if shape is None else prod(d for d in shape[1:] if isinstance(d, int))


def multiply_adds(node: Node, graph: Graph) -> int | None:
    """Multiply-adds of a node for one sample; 0 for what is not counted, None where no shape is known."""
    if node.domain or node.op not in COUNTED:
        return 0
    if node.op in ("Conv", "ConvTranspose"):
        weight = graph.static_shape(node.inputs[1])
        over = _elements(graph, node.outputs[0] if node.op == "Conv" else node.inputs[0])
        return None if weight is None or over is None else over * prod(weight[1:])
    a, y = graph.shape(node.inputs[0]), _elements(graph, node.outputs[0])
    if a is None or y is None:
        return None
    inner = a[0] if node.attribute("transA", 0) else a[-1]
    if not isinstance(inner, int):
        right = graph.shape(node.inputs[1]) or ()
        inner = right[-1 if node.attribute("transB", 0) else max(len(right) - 2, 0)] if right else None
    return y * inner if isinstance(inner, int) else None
