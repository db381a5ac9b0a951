"""Resize. The transpose of interpolation along each axis is a small matrix, made by resizing the unit matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Node
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Selection, Term
from onnxlrp.operators.movement import by_number
from onnxlrp.operators.registry import Situation, register


def _crops(node: Node) -> bool:
    """Whether it resizes a part of its input."""
    return bool(node.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize")


def _resized_axes(at: Situation, rank: int) -> dict[int, int]:
    """Axes that may change their size -> position in `scales` or `sizes`."""
    node = at.node
    axes = [a % rank for a in node.attribute("axes") or range(rank)]
    before, after = at.graph.shape(node.inputs[0]) or (), at.graph.shape(at.y) or ()
    scales = at.facts.value(node.input(2)) if node.input(2) else None
    if _crops(node):
        return {axis: position for position, axis in enumerate(axes) if axis or rank <= 2}
    chosen = {}
    for position, axis in enumerate(axes):
        if scales is not None and scales.size == len(axes):
            same = float(scales[position]) == 1.0
        else:
            # A symbol names one size. A batch of unknown size is taken to stay: nobody interpolates between samples.
            same = len(after) == rank and before[axis] is not None and before[axis] == after[axis]
            same = same or (axis == 0 and rank > 2 and not isinstance(before[axis], int))
        if not same:
            chosen[axis] = position
    return chosen


@register(
    "Resize",
    "average",
    "interpolation: shared in proportion to the weighted elements; nearest: exact",
    "the transposed interpolation",
)
def resize(at: Situation) -> Linear | Selection | Refusal:
    node, x, y = at.node, at.node.inputs[0], at.y
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    crops = _crops(node)
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        # One scale for all axes decides, so that no axis can be taken alone.
        where = by_number(at)
        if isinstance(where, Refusal) or node.attribute("mode", "nearest") != "nearest" or crops:
            return Refusal("keep_aspect_ratio_policy chooses its sizes", "export with plain sizes or scales")
        return Selection("movement", (x,), (y,), lambda b, given: {x: where(b, given[y])}, "nearest")
    axes = _resized_axes(at, rank)
    whole = _whole_factors(at, axes, rank)
    if whole is not None:
        return Selection("movement", (x,), (y,), lambda b, given: {x: _fold(b, given[y], x, whole)}, "whole factors")

    def adjoint(b: Builder, s: str) -> str:
        for axis, position in axes.items():
            s = _shrink(b, s, at, axis, position, rank)
        return s

    mode = node.attribute("mode", "nearest")
    if mode == "nearest":
        return Selection("movement", (x,), (y,), lambda b, given: {x: adjoint(b, given[y])}, "nearest", crops)
    attributes = dict(node.attributes)
    constant = crops and bool(attributes.pop("extrapolation_value", 0.0))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("Resize", value, *node.inputs[1:], **attributes)
        return b.add(out, bias) if bias else out

    one = Fixed(Map(forward, adjoint), sign=1 if mode == "linear" else 0)
    # What a crop reads outside the image is a constant.
    outside = (lambda b: b.sub(y, forward(b, x, None))) if constant else None
    return Linear("average", (Term(x, one),), y, bias=outside)


def _whole_factors(at: Situation, axes: dict[int, int], rank: int) -> Sequence[int] | None:
    """Factors per axis when nearest neighbours only repeat each element a whole number of times."""
    node = at.node
    if node.attribute("mode", "nearest") != "nearest":
        return None
    plain = (
        node.attribute("coordinate_transformation_mode", "half_pixel"),
        node.attribute("nearest_mode", "round_prefer_floor"),
    )
    if plain not in {
        ("asymmetric", "floor"),
        ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"),
    }:
        return None
    before, after = at.graph.shape(node.inputs[0]) or (), at.graph.shape(at.y) or ()
    factors = [1] * rank
    scales = at.facts.value(node.input(2)) if node.input(2) else None
    for axis, position in axes.items():
        small, large = before[axis], (after[axis] if len(after) == rank else None)
        if scales is not None and scales.size:
            factor = float(scales[position])
        elif isinstance(small, int) and isinstance(large, int) and small:
            factor = large / small
        else:
            return None
        if factor < 1 or factor != int(factor):
            return None
        # With rounding to the nearest centre an even or odd whole factor repeats each element in place.
        factors[axis] = int(factor)
    return factors


def _fold(b: Builder, r: str, x: str, factors: Sequence[int]) -> str:
    """Sums the copies of each element."""
    shape = b.graph.shape(x) or ()
    apart: list[str] = []
    summed: list[int] = []
    numbers: list[int] = []
    for axis, factor in enumerate(factors):
        size = shape[axis]
        apart.append(
            b.integers([size]) if isinstance(size, int) else b.op("Gather", b.op("Shape", x), b.integers([axis]))
        )
        numbers.append(size if isinstance(size, int) else -1)
        if factor > 1:
            summed.append(len(apart))
            apart.append(b.integers([factor]))
            numbers.append(factor)
    target = b.integers(numbers) if numbers.count(-1) <= 1 else b.op("Concat", *apart, axis=0)
    return b.op("ReduceSum", b.op("Reshape", r, target), b.integers(summed), keepdims=0) if summed else r


def _shrink(b: Builder, s: str, at: Situation, axis: int, position: int, rank: int) -> str:
    """Applies the transposed interpolation along one axis."""
    weights = _interpolation(b, at, axis, position)
    if axis == rank - 1:
        return b.op("MatMul", s, b.op("Transpose", weights, perm=[1, 0]))
    if axis == rank - 2:
        return b.op("MatMul", weights, s)
    order = [i for i in range(rank) if i != axis] + [axis]
    turned = b.op("MatMul", b.op("Transpose", s, perm=order), b.op("Transpose", weights, perm=[1, 0]))
    return b.op("Transpose", turned, perm=[order.index(i) for i in range(rank)])


def _interpolation(b: Builder, at: Situation, axis: int, position: int) -> str:
    """[in, out]: column j holds the weights with which output j reads the inputs along `axis`."""
    node, x = at.node, at.node.inputs[0]
    shape = b.graph.shape(x) or ()
    size = shape[axis] if axis < len(shape) else None
    one, zero = b.constant_int(1), b.constant_int(0)
    count = (
        b.constant_int(size)
        if isinstance(size, int)
        else b.op("Squeeze", b.op("Gather", b.op("Shape", x), b.integers([axis])))
    )
    line = b.op("Range", zero, count, one)
    equal = b.op("Equal", b.op("Unsqueeze", line, b.integers([0])), b.op("Unsqueeze", line, b.integers([1])))
    unit = b.op("Unsqueeze", b.op("Cast", equal, to=b.dtype(x)), b.integers([0, 1]))
    attributes = {k: v for k, v in node.attributes.items() if k not in ("axes", "extrapolation_value")}

    def own(given: str, index: int) -> str:
        return b.op("Slice", given, b.integers([index]), b.integers([index + 1]))

    roi = ""
    if _crops(node):
        whole = b.numpy_type(node.input(1))
        start = b.constant(np.zeros(3, whole)), own(node.input(1), position)
        end = b.constant(np.ones(3, whole)), own(node.input(1), position + len(node.attribute("axes") or shape))
        roi = b.op("Concat", *start, *end, axis=0)
    if node.input(2):
        factors = b.op("Concat", b.constant(np.ones(3, np.float32)), own(node.input(2), position), axis=0)
        resized = b.op("Resize", unit, roi, factors, **attributes)
    else:
        lead = b.op("Slice", b.op("Shape", unit), b.integers([0]), b.integers([3]))
        resized = b.op(
            "Resize", unit, roi, "", b.op("Concat", lead, own(node.input(3), position), axis=0), **attributes
        )
    return b.op("Squeeze", resized, b.integers([0, 1]))
