"""Weights that are stored as integers, unpacked so that the runtime does it once, when it loads the model.

onnxruntime computes no DequantizeLinear beforehand, lest it miss a kernel on integers. What reads a weight behind one
would unpack it, turn it and transpose it anew on each run; behind Cast, Sub and Mul it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

if TYPE_CHECKING:
    from onnxlrp.emit.builder import Builder

_INTEGERS = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32})


def unpacked(b: Builder, tensor: str) -> str:
    """A tensor to read in place of this one: another one where this is a weight behind a DequantizeLinear."""
    node = b.graph.producer.get(tensor)
    if node is None or node.op != "DequantizeLinear" or node.domain or node.attribute("block_size", 0):
        return tensor
    integers, scale, zero = node.inputs[0], node.inputs[1], node.input(2)
    return weight(b, integers, scale, zero, node.attribute("axis", 1)) or tensor


def weight(b: Builder, integers: str, scale: str, zero: str, axis: int) -> str | None:
    """(integers - zero) * scale, with scale and zero point for all or along an axis; None for what is no weight."""
    stored, graph = b.graph.initializers, b.graph
    shapes = [graph.static_shape(name) for name in (integers, scale)]
    if any(name and name not in stored for name in (integers, scale, zero)) or None in shapes:
        return None
    if graph.dtype(integers) not in _INTEGERS:
        return None
    rank, kind = len(shapes[0] or ()), b.dtype(scale)

    def along(vector: str) -> str:
        shape = graph.static_shape(vector) or ()
        if not shape or rank == 0:
            return vector
        place = axis % rank if shape != (1,) else rank - 1
        return b.op("Reshape", vector, b.integers([-1 if i == place else 1 for i in range(rank)]))

    steps = b.op("Cast", integers, to=kind)
    if zero:
        steps = b.sub(steps, b.op("Cast", along(zero), to=kind))
    return b.mul(steps, along(scale))
