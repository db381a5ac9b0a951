"""Maxima over regions of a picture, taken apart into maxima over its columns and then its rows."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation


def _rounded(b: Builder, x: str) -> str:
    """Halves away from zero."""
    up = b.op("Floor", b.add(b.op("Abs", x), b.scalar(0.5, x)))
    return b.mul(b.op("Sign", x), up)


def _bins(b: Builder, first: str, last: str, bins: int, size: str, like: str) -> str:
    """Which of `size` positions lie in which of `bins` parts of the range from first to last: [regions, bins, size].

    Args:
        first, last: [regions], whole numbers, both included.
        size: 0-d integer.
    """
    column = b.integers([1])
    start = b.op("Unsqueeze", first, column)
    length = b.op("Max", b.add(b.sub(last, first), b.scalar(1.0, like)), b.scalar(1.0, like))
    width = b.op("Unsqueeze", b.scale(length, 1.0 / bins), column)
    number = b.op("Cast", b.integers(range(bins)), to=b.dtype(like))
    low = b.add(b.op("Floor", b.mul(width, number)), start)
    high = b.add(b.op("Ceil", b.mul(width, b.add(number, b.scalar(1.0, like)))), start)
    steps = b.op("Range", b.constant_int(0), size, b.constant_int(1))
    position = b.op("Cast", steps, to=b.dtype(like))
    last_axis = b.integers([2])
    return b.op(
        "And",
        b.op("GreaterOrEqual", position, b.op("Unsqueeze", low, last_axis)),
        b.op("Less", position, b.op("Unsqueeze", high, last_axis)),
    )


@lowers("MaxRoiPool", treatment="taken apart: all to the winner of each part of a region; regions receive nothing")
def max_roi_pool(at: Situation, b: Builder) -> Sequence[str]:
    """The largest value in each part of each region, and 0 in an empty part."""
    node, (x, regions) = at.node, at.node.inputs
    rows, columns = node.attribute("pooled_shape")
    fields = [b.op("Gather", regions, b.constant_int(i), axis=1) for i in range(5)]
    batch = b.op("Cast", fields[0], to=int(TensorProto.INT64))
    scale = node.attribute("spatial_scale", 1.0)
    left, top, right, bottom = (_rounded(b, b.scale(f, scale)) for f in fields[1:])
    height, width = (b.op("Squeeze", b.op("Shape", x, start=a, end=a + 1)) for a in (2, 3))
    low = b.lowest(x)
    across = _bins(b, left, right, columns, width, regions)
    down = _bins(b, top, bottom, rows, height, regions)
    # [regions, channels, height, bins, width], of which first the width and then the height is reduced.
    picked = b.op("Unsqueeze", b.op("Gather", x, batch, axis=0), b.integers([3]))
    inside = b.where(b.op("Unsqueeze", across, b.integers([1, 2])), picked, low)
    lines = b.op("ReduceMax", inside, b.integers([4]), keepdims=0)
    apart = b.op("Unsqueeze", lines, b.integers([2]))
    inside = b.where(b.op("Unsqueeze", down, b.integers([1, 4])), apart, low)
    largest = b.op("ReduceMax", inside, b.integers([3]), keepdims=0)
    has_any = b.op("Greater", largest, b.scale(low, 0.5))
    return (b.where(has_any, largest, b.scalar(0.0, x)),)
