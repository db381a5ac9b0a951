"""DeformConv, taken apart: samples at moved points, a mask on them, and a convolution over the samples."""

from __future__ import annotations

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

#: From this opset on GridSample calls its mode linear, before that bilinear.
_NEW_NAMES = 20


def _positions(b: Builder, at: Situation, offset: str, kernel: list[int], axis: int, out: str) -> str:
    """Where each tap of each output lies along an axis, as GridSample counts [groups, taps, height, width].

    The grid runs from -1 to 1 between the outer borders of the first and the last element.
    """
    node = at.node
    dilation, stride = (node.attribute(name, [1, 1])[axis] for name in ("dilations", "strides"))
    begin = node.attribute("pads", [0] * 4)[axis]
    kind = b.numpy_type(offset)
    taps = np.indices(kernel)[axis].reshape(1, -1, 1, 1) * dilation - begin
    count = b.op("Squeeze", b.op("Gather", out, b.integers([axis])))
    steps = b.op("Range", b.constant_int(0), b.mul(count, b.constant_int(stride)), b.constant_int(stride))
    along = b.op("Reshape", b.op("Cast", steps, to=b.dtype(offset)), b.integers([-1, 1] if axis == 0 else [1, -1]))
    regular = b.add(along, b.constant(taps.astype(kind)))
    moved = b.add(b.op("Gather", offset, b.constant_int(axis), axis=2), regular)
    elements = b.op("Squeeze", b.op("Gather", b.shape_of(node.inputs[0]), b.integers([2 + axis])))
    size = b.op("Cast", elements, to=b.dtype(offset))
    one, two = b.scalar(1.0, moved), b.scalar(2.0, moved)
    return b.sub(b.div(b.add(b.mul(moved, two), one), size), one)


@lowers(
    "DeformConv", treatment="taken apart: samples, which a mask gates, and a convolution; the offsets receive nothing"
)
def deform_conv(at: Situation, b: Builder) -> tuple[str] | Refusal:
    node, graph = at.node, at.graph
    x, w, offset = node.inputs[:3]
    shape = graph.static_shape(w)
    if shape is None or len(shape) != 4:
        return Refusal("the shape of its weights is not known, or not that of a picture's", "use two dimensions")
    group, groups = node.attribute("group", 1), node.attribute("offset_group", 1)
    kernel, channels = list(shape[2:]), shape[1] * group
    taps = int(np.prod(kernel))
    out = b.op("Slice", b.shape_of(offset), b.integers([2]), b.integers([4]))

    def shaped(tensor: str, *lead: int) -> str:
        return b.op("Reshape", tensor, b.op("Concat", b.integers([*lead]), out, axis=0))

    moved = shaped(offset, -1, taps, 2)
    rows, columns = (_positions(b, at, moved, kernel, axis, out) for axis in (0, 1))
    last = b.integers([4])
    points = b.op("Concat", b.op("Unsqueeze", columns, last), b.op("Unsqueeze", rows, last), axis=4)
    width = b.op("Slice", out, b.integers([1]), b.integers([2]))
    grid = b.op("Reshape", points, b.op("Concat", b.integers([0, -1]), width, b.integers([2]), axis=0))
    image = x
    if groups > 1:
        size = b.op("Slice", b.shape_of(x), b.integers([2]), b.integers([4]))
        image = b.op("Reshape", x, b.op("Concat", b.integers([-1, channels // groups]), size, axis=0))
    mode = "linear" if graph.opset >= _NEW_NAMES else "bilinear"
    samples = shaped(b.op("GridSample", image, grid, mode=mode, padding_mode="zeros"), -1, channels // groups, taps)
    if node.input(4):
        samples = b.mul(samples, shaped(node.input(4), -1, 1, taps))
    blocks = shaped(samples, -1, channels * taps)
    weights = b.op("Reshape", w, b.integers([shape[0], shape[1] * taps, 1, 1]))
    return (b.op("Conv", blocks, weights, node.input(3), group=group),)
