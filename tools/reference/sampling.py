"""GridSample, AffineGrid and DeformConv in numpy, in the precision of the data.

Those of onnx round coordinates to float32; their cubic GridSample with border padding moves the sample to the border
before it looks for its neighbours, where onnxruntime and PyTorch take the border's value for each neighbour outside;
their DeformConv divides by a size less one.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray


def _cubic(distance: Array) -> Array:
    """Keys' convolution kernel at a distance below 2."""
    d, a = np.abs(distance), -0.75
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


#: From the offsets of the neighbours to the weight at a distance.
_KERNELS = {
    "linear": ((0, 1), lambda d: np.maximum(0.0, 1.0 - np.abs(d))),
    "cubic": ((-1, 0, 1, 2), _cubic),
}


def sampled(x: Array, positions: Array, mode: str, padding: str, corners: bool) -> Array:
    """x [C, d1, ..., dn] at positions [..., n], counted in elements: [C, ...]."""
    size = np.array(x.shape[1:])
    if mode == "nearest":
        base, offsets, kernel = np.rint(positions), (0,), np.ones_like
    else:
        base = np.floor(positions)
        offsets, kernel = _KERNELS[mode]
    total = np.zeros((x.shape[0], *positions.shape[:-1]), np.result_type(x, positions))
    for corner in product(offsets, repeat=len(size)):
        point = base + np.array(corner)
        weight = kernel(positions - point).prod(axis=-1)
        if padding == "zeros":
            weight = weight * ((point >= 0) & (point < size)).all(axis=-1)
        elif padding == "reflection":
            low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
            span = np.maximum(high - low, 1e-300)
            distance = np.mod(point - low, 2 * span)
            point = low + np.where(distance > span, 2 * span - distance, distance)
        at = np.clip(point, 0, size - 1).astype(np.int64)
        total += weight * x[(slice(None), *np.moveaxis(at, -1, 0))]
    return total


class GridSample(OpRun):
    """Samples of x between its elements, in any number of dimensions."""

    def _run(self, x: Array, grid: Array, **a: Any) -> tuple[Array]:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(a["mode"], a["mode"])
        corners = bool(a["align_corners"])
        size, g = np.array(x.shape[2:]), grid[..., ::-1]
        positions = (g + 1) / 2 * (size - 1) if corners else ((g + 1) * size - 1) / 2
        rows = [sampled(row, at, mode, a["padding_mode"], corners) for row, at in zip(x, positions, strict=True)]
        return (np.stack(rows).astype(x.dtype),)


class AffineGrid(OpRun):
    """The points of a regular grid under an affine map."""

    def _run(self, theta: Array, size: Array, **a: Any) -> tuple[Array]:
        axes = []
        for n in (int(n) for n in size[2:]):
            steps = np.arange(n)
            # A single point between two corners lies at the last one for onnxruntime.
            between = steps * 2 / (n - 1) - 1 if n > 1 else np.ones(1)
            axes.append(between if a["align_corners"] else (steps * 2 + 1) / n - 1)
        points = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones([len(x) for x in axes])], axis=-1)
        return (np.einsum("...k,njk->n...j", points, theta).astype(theta.dtype),)


class DeformConv(OpRun):
    """A convolution whose kernel reads at moved points."""

    def _run(
        self,
        x: Array,
        w: Array,
        offset: Array,
        bias: Array | None = None,
        mask: Array | None = None,
        **a: Any,
    ) -> tuple[Array]:
        groups, offset_groups = a["group"] or 1, a["offset_group"] or 1
        strides, dilations, pads = a["strides"] or [1, 1], a["dilations"] or [1, 1], a["pads"] or [0] * 4
        n, c = x.shape[:2]
        kernel, out = w.shape[2:], offset.shape[2:]
        moved = offset.reshape(n, offset_groups, *kernel, 2, *out)
        kept = np.ones_like(offset[:, ::2]) if mask is None else mask
        kept = kept.reshape(n, offset_groups, *kernel, *out)
        columns = np.zeros((n, c, *kernel, *out), x.dtype)
        rows, cols = np.meshgrid(*(np.arange(o) * s for o, s in zip(out, strides, strict=True)), indexing="ij")
        for i, group, u, v in product(range(n), range(offset_groups), *map(range, kernel)):
            shift = moved[i, group, u, v]
            at = np.stack(
                [rows - pads[0] + u * dilations[0] + shift[0], cols - pads[1] + v * dilations[1] + shift[1]], axis=-1
            )
            own = slice(group * c // offset_groups, (group + 1) * c // offset_groups)
            columns[i, own, u, v] = sampled(x[i, own], at, "linear", "zeros", False) * kept[i, group, u, v]
        grouped = columns.reshape(n, groups, c // groups, *kernel, *out)
        weights = w.reshape(groups, -1, *w.shape[1:])
        y = np.einsum("ngcuvhw,gocuv->ngohw", grouped, weights).reshape(n, w.shape[0], *out)
        return ((y if bias is None else y + bias[:, None, None]).astype(x.dtype),)


SAMPLING: tuple[type[OpRun], ...] = (GridSample, AffineGrid, DeformConv)
