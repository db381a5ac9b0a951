"""Operators that share relevance in proportion to contributions: sums, averages, normalisations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tests.support.case import Case, alone, constant, joined, resized, with_constants
from tests.support.gradients import distinct
from tests.support.models import Net

SUMS: Mapping[str, Case] = {
    "add": joined("Add", (2, 3), (2, 3), rank=2),
    "add-second-is-broadcast": joined("Add", (2, 3, 2), (3, 1), rank=3),
    "add-first-is-broadcast": joined("Add", (3,), (2, 2, 3), rank=3),
    "add-both-are-broadcast": joined("Add", (2, 1, 3), (4, 1), rank=3),
    "add-itself": Case(((2, 3),), lambda net, x: net.op("Add", x, x), 2),
    "add-constant": with_constants("Add", (2, 3), constant(3)),
    "add-larger-constant": with_constants("Add", (1, 3), constant(2, 4, 3), rank=3),
    "sub": joined("Sub", (2, 3), (2, 3), rank=2),
    "sub-broadcast": joined("Sub", (3, 1), (2, 1, 4), rank=3),
    "constant-minus-data": Case(((2, 3),), lambda net, x: net.op("Sub", net.constant(constant(3)), x), 2),
    "sum-of-three": joined("Sum", (2, 3), (3,), (2, 1), rank=2),
    "sum-with-repetition": Case(((2, 3), (3,)), lambda net, x, z: net.op("Sum", x, z, x), 2),
    "mean-of-three": joined("Mean", (2, 3), (3,), (1, 1), rank=2),
    "mean-with-constant": with_constants("Mean", (2, 3), constant(1, 3)),
}


def _average(*shape: int, **attributes: Any) -> Case:
    case = alone("AveragePool", *shape, **attributes)
    # SAME padding is computed from the size, so that the size must be known.
    return replace(case, frozen=tuple(range(2, len(shape)))) if "auto_pad" in attributes else case


AVERAGES: Mapping[str, Case] = {
    "averagepool": _average(1, 2, 4, 4, kernel_shape=[2, 2], strides=[2, 2]),
    "averagepool-overlapping": _average(2, 2, 5, 4, kernel_shape=[3, 2], strides=[1, 2]),
    "averagepool-1d-pads": _average(1, 2, 6, kernel_shape=[3], strides=[2], pads=[1, 1]),
    "averagepool-1d-pads-counted": _average(1, 2, 6, kernel_shape=[3], strides=[2], pads=[1, 1], count_include_pad=1),
    "averagepool-asymmetric": _average(1, 1, 5, 6, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 1]),
    "averagepool-asymmetric-counted": _average(
        1, 1, 5, 6, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 1], count_include_pad=1
    ),
    "averagepool-ceil": _average(1, 1, 5, 6, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    "averagepool-ceil-pads-counted": _average(
        1, 1, 5, 6, kernel_shape=[3, 3], strides=[3, 2], pads=[1, 1, 1, 1], ceil_mode=1, count_include_pad=1
    ),
    "averagepool-same-upper": _average(1, 1, 5, 4, kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_UPPER"),
    "averagepool-same-lower": _average(1, 1, 5, 4, kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_LOWER"),
    "averagepool-dilated": _average(1, 1, 6, 5, kernel_shape=[2, 2], dilations=[2, 3]),
    "averagepool-gaps": _average(1, 1, 6, 6, kernel_shape=[1, 2], strides=[2, 3]),
    "averagepool-3d": _average(1, 1, 3, 4, 3, kernel_shape=[2, 2, 2], pads=[0, 1, 0, 1, 0, 1]),
    "globalaveragepool": alone("GlobalAveragePool", 2, 2, 3, 2),
    "globalaveragepool-1d": alone("GlobalAveragePool", 2, 2, 3),
    "reducemean": with_constants("ReduceMean", (2, 3, 2), [-1, 1]),
    "reducemean-dropped-axes": with_constants("ReduceMean", (2, 3, 2), [0, 2], rank=1, keepdims=0),
    "reducemean-all": alone("ReduceMean", 2, 3, rank=2),
    "reducesum": with_constants("ReduceSum", (2, 3, 2), [1]),
    "reducesum-dropped-axes": with_constants("ReduceSum", (2, 3, 2), [1, -1], rank=1, keepdims=0),
    "resize-linear-up": resized((1, 1, 2, 3), scales=[1, 1, 2, 2], mode="linear"),
    "resize-linear-down": resized((1, 2, 5, 4), sizes=[1, 2, 3, 2], mode="linear"),
    "resize-linear-fraction": resized((1, 1, 4, 3), scales=[1, 1, 1.6, 2.5], mode="linear"),
    "resize-linear-align-corners": resized(
        (1, 1, 3, 4), sizes=[1, 1, 5, 7], mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "resize-linear-asymmetric": resized(
        (1, 1, 3, 3), scales=[1, 1, 2, 3], mode="linear", coordinate_transformation_mode="asymmetric"
    ),
    "resize-linear-pytorch": resized(
        (1, 1, 3, 3), sizes=[1, 1, 1, 5], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    "resize-linear-1d": resized((2, 2, 4), scales=[1, 1, 1.5], mode="linear"),
}

#: Averages whose coefficients have both signs: only rules without a division by parts apply.
SIGNED_AVERAGES: Mapping[str, Case] = {
    "resize-cubic-up": resized((1, 1, 3, 4), scales=[1, 1, 2, 2], mode="cubic"),
    "resize-cubic-down": resized((1, 1, 5, 5), sizes=[1, 1, 3, 4], mode="cubic"),
    "resize-cubic-align-corners": resized(
        (1, 1, 3, 4), sizes=[1, 1, 5, 5], mode="cubic", coordinate_transformation_mode="align_corners"
    ),
    "resize-cubic-inside-only": resized(
        (1, 1, 4, 4), scales=[1, 1, 1.5, 2], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5
    ),
}


def _normalized(op: str, shape: tuple[int, ...], channels: int, **attributes: Any) -> Case:
    def build(net: Net, x: str) -> str:
        return net.op(
            op,
            x,
            net.constant(constant(channels)),
            net.constant(constant(channels)[::-1].copy()),
            **attributes,
        )

    return Case((shape,), build, len(shape), frozen=(1,))


def _batch_normalization(net: Net, x: str) -> str:
    scale, shift, mean = (distinct(3, seed=s) for s in (1, 2, 3))
    return net.op("BatchNormalization", x, *(net.constant(v) for v in (scale, shift, mean, np.array([0.4, 1.0, 2.5]))))


NORMALIZATIONS: Mapping[str, Case] = {
    "instancenormalization": _normalized("InstanceNormalization", (2, 3, 2, 3), 3, epsilon=1e-3),
    "instancenormalization-1d": _normalized("InstanceNormalization", (2, 3, 4), 3),
    "groupnormalization": _normalized("GroupNormalization", (2, 4, 3), 4, num_groups=2, epsilon=1e-3),
    "layernormalization": _normalized("LayerNormalization", (2, 3, 4), 4, epsilon=1e-3),
    "layernormalization-without-bias": with_constants("LayerNormalization", (2, 3, 4), constant(3, 4), axis=1),
    "lrn": alone("LRN", 2, 4, 2, 2, size=3, alpha=0.5, beta=0.75, bias=1.5),
    "lrn-wide": alone("LRN", 1, 5, 2, 2, size=7, alpha=0.3),
    "batchnormalization-alone": Case(((2, 3, 4),), _batch_normalization, 3),
    "reducel2": with_constants("ReduceL2", (2, 3, 4), [1]),
    "reducel2-dropped-axes": with_constants("ReduceL2", (2, 3, 2), [1, 2], rank=1, keepdims=0),
}
