"""Operators whose output elements are input elements: movement and maxima."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tests.support.case import Case, alone, constant, joined, resized, with_constants
from tests.support.models import Net


def _split(net: Net, x: str) -> str:
    first = net.op("Split", x, net.constant([1, 3, 2]), outputs=3, axis=1)
    return net.op("Concat", f"{first}_2", first, axis=1)


def _equal_split(net: Net, x: str) -> str:
    first = net.op("Split", x, outputs=3, axis=1, num_outputs=3)
    return net.op("Identity", f"{first}_1")


def _gathered_twice(net: Net, x: str) -> str:
    picked = net.op("Gather", x, net.constant([1, 0]), axis=1)
    return net.op("Concat", picked, net.op("Identity", x), axis=1)


MOVEMENTS: Mapping[str, Case] = {
    "reshape": with_constants("Reshape", (2, 3, 2), [0, -1], rank=2),
    "reshape-to-vector": with_constants("Reshape", (2, 3), [-1], rank=1),
    "flatten": alone("Flatten", 2, 3, 2, rank=2),
    "flatten-axis-2": alone("Flatten", 2, 3, 2, 1, rank=2, axis=2),
    "transpose": alone("Transpose", 2, 3, 4, perm=[2, 0, 1]),
    "transpose-reversed": alone("Transpose", 2, 3, 4),
    "squeeze": with_constants("Squeeze", (2, 1, 3, 1), [1, -1], rank=2),
    "squeeze-all": alone("Squeeze", 2, 1, 3, rank=2),
    "unsqueeze": with_constants("Unsqueeze", (2, 3), [0, 3], rank=4),
    "identity": alone("Identity", 2, 3),
    "dropout": alone("Dropout", 2, 3),
    "cast": alone("Cast", 2, 3, to=11),
    "concat": joined("Concat", (2, 3), (2, 1), (2, 2), rank=2, axis=1),
    "concat-negative-axis": joined("Concat", (1, 2, 3), (1, 1, 3), rank=3, axis=-2),
    "concat-with-constant": with_constants("Concat", (2, 3), constant(2, 2), axis=1, frozen=(0,)),
    "concat-with-itself": Case(((2, 3),), lambda net, x: net.op("Concat", x, x, axis=0), 2),
    "split-parts-used": Case(((2, 6),), _split, 2, frozen=(1,)),
    "split-equal": Case(((2, 6),), _equal_split, 2, frozen=(1,)),
    "slice": with_constants("Slice", (4, 6), [1, 0], [4, 5], [0, 1], [1, 2]),
    "slice-backward": with_constants("Slice", (2, 6), [-1], [0], [1], [-2]),
    "slice-defaults": with_constants("Slice", (4, 3), [1], [1000]),
    "pad": with_constants("Pad", (2, 3, 3), [0, 0, 1, 0, 1, 2]),
    "pad-value": with_constants("Pad", (2, 3), [1, 0, 0, 2], 0.5),
    "pad-some-axes": with_constants("Pad", (2, 3, 4), [2, 1], None, [2]),
    "pad-negative": with_constants("Pad", (2, 5), [0, -1, 1, -2]),
    "pad-reflect": with_constants("Pad", (1, 1, 4, 3), [0, 0, 2, 1, 0, 0, 3, 2], mode="reflect"),
    "pad-edge": with_constants("Pad", (1, 2, 3, 3), [0, 0, 2, 1, 0, 0, 1, 0], mode="edge"),
    "pad-wrap": with_constants("Pad", (2, 4), [0, 2, 0, 3], mode="wrap"),
    "expand": with_constants("Expand", (3, 1), [2, 3, 4], rank=3),
    "expand-smaller": with_constants("Expand", (2, 3, 4), [3, 1]),
    "tile": with_constants("Tile", (2, 3), [2, 3]),
    "gather": with_constants("Gather", (4, 3), [2, 0, 2]),
    "gather-negative": with_constants("Gather", (2, 4, 2), [[-1, 1], [1, 0]], rank=4, axis=1),
    "gather-one": with_constants("Gather", (2, 4), np.array(1), rank=1, axis=1),
    "gather-and-keep": Case(((2, 3),), _gathered_twice, 2),
    "depth-to-space": alone("DepthToSpace", 1, 8, 2, 3, blocksize=2),
    "depth-to-space-crd": replace(alone("DepthToSpace", 1, 8, 2, 2, blocksize=2, mode="CRD"), frozen=(1,)),
    "space-to-depth": alone("SpaceToDepth", 1, 2, 4, 2, blocksize=2),
    "resize-nearest-up": resized((1, 2, 2, 3), scales=[1, 1, 2, 3], mode="nearest"),
    "resize-nearest-down": resized((1, 1, 6, 5), sizes=[1, 1, 2, 3], mode="nearest"),
    "resize-nearest-fraction": resized((1, 1, 4, 3), scales=[1, 1, 1.6, 2.5], mode="nearest"),
    "resize-nearest-pytorch": resized(
        (1, 1, 3, 4),
        scales=[1, 1, 2, 2],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize-nearest-ceil": resized((1, 1, 3, 4), sizes=[1, 1, 5, 6], mode="nearest", nearest_mode="ceil"),
}


def _maxpool(*shape: int, **attributes: Any) -> Case:
    return alone("MaxPool", *shape, **attributes)


WINNERS: Mapping[str, Case] = {
    "maxpool": _maxpool(1, 2, 4, 4, kernel_shape=[2, 2], strides=[2, 2]),
    "maxpool-overlapping": _maxpool(2, 2, 5, 5, kernel_shape=[3, 3], strides=[1, 2]),
    "maxpool-pads": _maxpool(1, 2, 5, 4, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    "maxpool-dilated": _maxpool(1, 1, 7, 6, kernel_shape=[3, 2], dilations=[2, 3]),
    "maxpool-ceil": _maxpool(1, 1, 6, 5, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    "maxpool-same-upper": _maxpool(1, 2, 5, 4, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "maxpool-1d": _maxpool(2, 3, 7, kernel_shape=[3], strides=[2], pads=[1, 1]),
    "maxpool-3d": _maxpool(1, 2, 3, 4, 3, kernel_shape=[2, 2, 2], strides=[1, 2, 1]),
    "globalmaxpool": alone("GlobalMaxPool", 2, 3, 3, 2),
    "reducemax": with_constants("ReduceMax", (2, 3, 4), [1]),
    "reducemax-dropped-axes": with_constants("ReduceMax", (2, 3, 4), [0, 2], rank=1, keepdims=0),
    "reducemax-all": alone("ReduceMax", 2, 3, rank=0, keepdims=0),
    "reducemin": with_constants("ReduceMin", (2, 3, 4), [-1]),
    "max": joined("Max", (2, 3), (2, 3), rank=2),
    "max-broadcast": joined("Max", (2, 1, 3), (4, 1), rank=3),
    "max-constant": with_constants("Max", (2, 4), constant(4)),
    "min-of-three": joined("Min", (2, 3), (3,), (2, 1), rank=2),
}
