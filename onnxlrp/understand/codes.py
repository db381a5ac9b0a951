"""Integers that stand for real numbers: which scale and zero point a quantised tensor was written with.

real = scale * (integer - zero point), one scale for the whole tensor or one for each slice along an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxlrp.graph.view import Graph, Node

MICROSOFT = "com.microsoft"

#: Smallest and largest integer of each type that a quantised tensor can have.
BOUNDS: Mapping[int, tuple[int, int]] = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
}


@dataclass(frozen=True)
class Code:
    """How integers stand for real numbers.

    Attributes:
        scale, zero: tensors; `zero` is "" where the zero point is 0.
        axis: the axis along which a scale with several elements runs.
    """

    scale: str
    zero: str
    axis: int = 1


#: Positions of scale and zero point of the output among a node's inputs.
_WRITTEN_WITH: Mapping[tuple[str, str], tuple[int, int]] = {
    ("", "QuantizeLinear"): (1, 2),
    ("", "QLinearConv"): (6, 7),
    ("", "QLinearMatMul"): (6, 7),
    (MICROSOFT, "QuantizeLinear"): (1, 2),
    (MICROSOFT, "QLinearConv"): (6, 7),
    (MICROSOFT, "QLinearAdd"): (6, 7),
    (MICROSOFT, "QLinearMul"): (6, 7),
    (MICROSOFT, "QLinearAveragePool"): (3, 4),
    (MICROSOFT, "QLinearGlobalAveragePool"): (3, 4),
    (MICROSOFT, "QLinearLeakyRelu"): (3, 4),
    (MICROSOFT, "QLinearSigmoid"): (3, 4),
    (MICROSOFT, "QLinearSoftmax"): (3, 4),
    (MICROSOFT, "QLinearReduceMean"): (3, 4),
    (MICROSOFT, "QLinearConcat"): (0, 1),
    (MICROSOFT, "QGemm"): (7, 8),
    (MICROSOFT, "QLinearWhere"): (7, 8),
}
#: Operators that move integers, and the input whose code the output keeps.
_MOVED: Mapping[str, int] = {
    **dict.fromkeys(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"), 0),
    **dict.fromkeys(("Slice", "Split", "Gather", "GatherElements", "GatherND", "Concat", "Pad", "Resize"), 0),
    **dict.fromkeys(
        ("DepthToSpace", "SpaceToDepth", "MaxPool", "NhwcMaxPool", "Max", "Min", "ReduceMax", "ReduceMin"), 0
    ),
    "Where": 1,
}


def code_of(graph: Graph, tensor: str) -> Code | None:
    """The code that an integer tensor was written with, or None where it stands for nothing else."""
    while (node := graph.producer.get(tensor)) is not None and not graph.is_float(tensor):
        positions = _WRITTEN_WITH.get((node.domain, node.op))
        if positions is not None:
            scale, zero = (node.input(p) for p in positions)
            return Code(scale, zero, node.attribute("axis", 1) if node.op == "QuantizeLinear" else 1)
        if node.op == "DynamicQuantizeLinear" and tensor == node.outputs[0]:
            return Code(node.outputs[1], node.outputs[2])
        moved = _MOVED.get(node.op) if node.domain in ("", MICROSOFT) else None
        if moved is None:
            return None
        tensor = node.input(moved)
    return None


def per_tensor(graph: Graph, code: Code) -> bool:
    """Whether a code has one scale for the whole tensor."""
    shape = graph.static_shape(code.scale)
    return shape is not None and int(np.prod(shape)) == 1


def bounds(graph: Graph, code: Code, node: Node | None = None) -> tuple[int, int] | None:
    """The smallest and the largest integer of a code; uint8 where `node` says nothing else."""
    kind = graph.dtype(code.zero) if code.zero else 0
    if not kind and node is not None:
        kind = node.attribute("output_dtype", 0)
    return BOUNDS.get(kind or int(TensorProto.UINT8))
