"""Pad as relevance needs it: along some of the axes, by amounts that may be known only at run time."""

from __future__ import annotations

from onnx import TensorProto

from onnxlrp.emit.builder import Builder


def pads_of_all_axes(b: Builder, tensor: str, rank: int | None, pads: str, axes: str) -> str:
    """The pads of every axis of a tensor, int64 [2 * rank], where `pads` are those of `axes` (all when empty).

    A Pad with the input `axes` is not emitted: where a Transpose comes before it, onnxruntime 1.32 moves the Transpose
    behind it and takes the pads for those of all axes.

    Args:
        rank: that of the tensor; None where it is known only at run time.
        pads: int64 [2 * k], those in front and then those behind.
        axes: int32 or int64 [k], may count from the end.
    """
    if not axes:
        return pads
    if rank is None:
        count = b.op("Shape", b.op("Shape", tensor))
        none = b.op("Expand", b.integers([0]), b.mul(count, b.integers([2])))
    else:
        count, none = b.integers([rank]), b.integers([0] * (2 * rank))
    front = b.op("Mod", b.add(b.cast(axes, TensorProto.INT64), count), count)
    return b.op("ScatterElements", none, b.op("Concat", front, b.add(front, count), axis=0), pads)


def padded(b: Builder, tensor: str, rank: int | None, pads: str, axes: str = "", value: str = "") -> str:
    """A tensor with `value` (zero when empty) around it; negative pads cut off. See `pads_of_all_axes`."""
    return b.op("Pad", tensor, pads_of_all_axes(b, tensor, rank, pads, axes), value)
