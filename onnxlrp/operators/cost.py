"""Multiply-adds of the operators that cost something, counted from shapes."""

from __future__ import annotations

from math import prod

from onnxlrp.graph.view import Dim, Graph, Node

#: Operators whose cost is counted; everything else is small beside them.
COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def _elements(graph: Graph, tensor: str) -> int | None:
    """Elements for one sample: the batch and sizes that are not known count as 1."""
    shape = graph.shape(tensor)
    return None if shape is None else prod((_rows(shape[0], graph) if shape else 1, *map(_known, shape[1:])))


def _known(size: Dim) -> int:
    """A size, or the number in one like `128*batch`; 1 where there is none."""
    if isinstance(size, int):
        return size
    return prod(int(factor) for factor in (size or "").split("*") if factor.strip().isdecimal())


def _rows(first: Dim, graph: Graph) -> int:
    """How much of the first axis belongs to one sample: more than 1 where positions or windows were put into it."""
    if not isinstance(first, int):
        return _known(first)
    batch = next((shape[0] for x in graph.inputs if (shape := graph.shape(x))), None)
    return first // batch if isinstance(batch, int) and batch > 0 and first % batch == 0 else 1


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
