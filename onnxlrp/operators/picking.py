"""Operators that pick out, mask, reorder or spread elements by conditions, lengths and recorded positions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal, Selection, Stop
from onnxlrp.operators.movement import EXACT, by_index, by_number, one_to_one
from onnxlrp.operators.registry import Situation, register


@register("Compress", "movement", EXACT, "scattered back")
def compress(at: Situation) -> Selection:
    return one_to_one(at, by_index(at))


@register("Trilu", "movement", EXACT + "; what falls on the zeros is absorbed", "the same triangle")
def trilu(at: Situation) -> Selection:
    node = at.node
    return one_to_one(at, lambda b, r: b.op("Trilu", r, *node.inputs[1:], **node.attributes), absorbs=True)


@register("ReverseSequence", "movement", EXACT, "reversed again")
def reverse_sequence(at: Situation) -> Selection:
    node = at.node
    return one_to_one(at, lambda b, r: b.op("ReverseSequence", r, node.inputs[1], **node.attributes))


@register("CenterCropPad", "movement", EXACT + "; what falls on the border is absorbed", "padded and cropped back")
def center_crop_pad(at: Situation) -> Selection:
    """Cropping begins at half of what is too much, rounded down, and padding likewise: each undoes the other."""
    node, x = at.node, at.node.inputs[0]
    axes = node.attribute("axes")

    def adjoint(b: Builder, r: str) -> str:
        size = b.shape_of(x)
        wanted = size if axes is None else b.op("Gather", size, b.integers(axes))
        return b.op("CenterCropPad", r, wanted, axes=axes)

    return one_to_one(at, adjoint, absorbs=True)


@register("Unique", "movement", EXACT + "; to the first of equals", "1 at the first of equals")
def unique(at: Situation) -> Selection:
    node, x, y = at.node, at.node.inputs[0], at.y
    axis = node.attribute("axis")

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        named = node.outputs[1] if len(node.outputs) > 1 else ""
        first = named or b.ops("Unique", x, outputs=2, dtype=int(TensorProto.INT64), **node.attributes)[1]
        if axis is not None:
            count = b.op("Squeeze", b.element_count(x))
            numbers = b.op("Range", b.constant_int(0), count, b.constant_int(1))
            first = b.op("Gather", b.op("Reshape", numbers, b.shape_of(x)), first, axis=axis)
        return {x: b.scatter_flat(x, first, given[y], overlapping=False)}

    return Selection("movement", (x,), (y,), adjoint)


@register("TopK", "max", "all to the winners", "1 at the winners")
def top_k(at: Situation) -> Selection:
    node, x, y = at.node, at.node.inputs[0], at.y

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        named = node.outputs[1] if len(node.outputs) > 1 else ""
        where = named or b.ops("TopK", x, node.inputs[1], outputs=2, dtype=int(TensorProto.INT64), **node.attributes)[1]
        axis = node.attribute("axis", -1)
        return {x: b.op("ScatterElements", b.zeros_like(x), where, given[y], axis=axis)}

    return Selection("max", (x,), (y,), adjoint)


@register("Hardmax", "stop", "relevance ends: a step function, its derivative is zero almost everywhere", "0", data=())
def hardmax(at: Situation) -> Stop:
    return Stop("a step function: its derivative is zero almost everywhere")


@register("MaxUnpool", "movement", EXACT + "; what falls on the zeros is absorbed", "read back")
def max_unpool(at: Situation) -> Selection | Refusal:
    adjoint = by_number(at)
    return adjoint if isinstance(adjoint, Refusal) else one_to_one(at, adjoint, absorbs=True)


@register("OneHot", "movement", "exact: each of the two values receives what its copies get", "1, summed", data=(2,))
def one_hot(at: Situation) -> Selection | Stop:
    node, values = at.node, at.node.inputs[2]

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        r = given[at.y]
        ends = b.constant(np.asarray([0.0, 1.0], b.numpy_type(values)))
        hot = b.op("OneHot", node.inputs[0], node.inputs[1], ends, **node.attributes)
        on = b.op("ReduceSum", b.mul(r, hot), keepdims=0)
        off = b.op("ReduceSum", b.mul(r, b.sub(b.scalar(1.0, hot), hot)), keepdims=0)
        one = b.integers([0])
        return {values: b.op("Concat", b.op("Unsqueeze", off, one), b.op("Unsqueeze", on, one), axis=0)}

    return Selection("movement", (values,), (at.y,), adjoint)
