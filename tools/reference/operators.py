"""Operators for `onnx.reference`, in numpy: right where its own are not, and fast enough for whole networks.

The evaluator that comes with onnx computes grouped ConvTranspose and LRN wrongly, refuses negative padding,
loops over pixels in Python, and rounds Erf, Gelu and more to float32. Convolutions and pools here
walk over the few positions of their kernel and treat all pixels at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as StandardResize

from reference.attention import ATTENTION
from reference.control import CONTROL
from reference.recurrent import RECURRENT
from reference.sampling import SAMPLING
from reference.widened import WIDENED

Array = np.ndarray
Slices = tuple[slice, ...]


def _pads(
    auto_pad: str | None,
    pads: Sequence[int] | None,
    size: Sequence[int],
    reach: Sequence[int],
    strides: Sequence[int],
) -> list[int]:
    """Explicit pads [begins..., ends...]; `reach` is the extent of the dilated kernel."""
    n = len(size)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((-(-size[i] // strides[i]) - 1) * strides[i] + reach[i] - size[i], 0) for i in range(n)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        return small + large if auto_pad == "SAME_UPPER" else large + small
    return list(pads) if pads and auto_pad != "VALID" else [0] * (2 * n)


def _taps(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], counts: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Slices]]:
    """Each kernel position with the slices of the padded tensor that it meets over all windows."""
    for position in product(*(range(k) for k in kernel)):
        starts = [p * d for p, d in zip(position, dilations, strict=True)]
        yield (
            position,
            tuple(
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(starts, counts, strides, strict=True)
            ),
        )


def _reach(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


class Conv(OpRun):
    """Convolution in any number of dimensions."""

    def _run(self, x: Array, w: Array, bias: Array | None = None, **a: Any) -> tuple[Array]:
        n, group, kernel = x.ndim - 2, a["group"], w.shape[2:]
        strides, dilations = a["strides"] or [1] * n, a["dilations"] or [1] * n
        reach = _reach(kernel, dilations)
        pads = _pads(a["auto_pad"], a["pads"], x.shape[2:], reach, strides)
        padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)])
        counts = [(padded.shape[2 + i] - reach[i]) // strides[i] + 1 for i in range(n)]
        grouped = padded.reshape(x.shape[0], group, -1, *padded.shape[2:])
        weights = w.reshape(group, w.shape[0] // group, *w.shape[1:])
        y = np.zeros((x.shape[0], group, weights.shape[1], int(np.prod(counts))), np.result_type(x, w))
        for position, slices in _taps(kernel, strides, dilations, counts):
            seen = grouped[(..., *slices)].reshape(*grouped.shape[:3], -1)
            y += weights[(..., *position)] @ seen
        y = y.reshape(x.shape[0], w.shape[0], *counts)
        return (y if bias is None else y + bias.reshape(-1, *[1] * n),)


class ConvTranspose(OpRun):
    """The transpose of a convolution: each input pixel adds its multiple of the kernel to the output."""

    def _run(self, x: Array, w: Array, bias: Array | None = None, **a: Any) -> tuple[Array]:
        n, group, kernel, counts = x.ndim - 2, a["group"], w.shape[2:], x.shape[2:]
        strides, dilations = a["strides"] or [1] * n, a["dilations"] or [1] * n
        extra = a["output_padding"] or [0] * n
        full = [(counts[i] - 1) * strides[i] + _reach(kernel, dilations)[i] + extra[i] for i in range(n)]
        begins, wanted = self._crop(a, full, counts, strides)
        grouped = x.reshape(x.shape[0], group, -1, int(np.prod(counts)))
        weights = w.reshape(group, w.shape[0] // group, *w.shape[1:])
        y = np.zeros((x.shape[0], group, w.shape[1], *full), np.result_type(x, w))
        for position, slices in _taps(kernel, strides, dilations, counts):
            shares = np.swapaxes(weights[(..., *position)], 1, 2) @ grouped
            y[(..., *slices)] += shares.reshape(*y.shape[:3], *counts)
        y = y.reshape(x.shape[0], group * w.shape[1], *full)
        for i in range(n):
            ends = begins[i] + wanted[i] - full[i]
            widths = [(0, 0)] * 2 + [(max(-begins[i], 0), max(ends, 0)) if j == i else (0, 0) for j in range(n)]
            start = max(begins[i], 0)
            y = np.pad(y, widths).take(range(start, start + wanted[i]), axis=2 + i)
        return (y if bias is None else y + bias.reshape(-1, *[1] * n),)

    @staticmethod
    def _crop(
        a: dict[str, Any], full: Sequence[int], counts: Sequence[int], strides: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """What is cut off in front, and what size remains, along each spatial axis."""
        n = len(full)
        same = a["auto_pad"] in ("SAME_UPPER", "SAME_LOWER")
        if a["output_shape"] or same:
            wanted = list(a["output_shape"] or [c * s for c, s in zip(counts, strides, strict=True)])[-n:]
            total = [full[i] - wanted[i] for i in range(n)]
            upper = a["auto_pad"] == "SAME_UPPER"
            return [t // 2 if upper else t - t // 2 for t in total], wanted
        pads = list(a["pads"] or [0] * (2 * n))
        return pads[:n], [full[i] - pads[i] - pads[n + i] for i in range(n)]


class _Pool(OpRun):
    """What the two pools share: window positions and padding."""

    def _windows(self, x: Array, a: dict[str, Any]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Strides, dilations, pads, the number of windows along each axis, the padded size that they need."""
        n, kernel = x.ndim - 2, a["kernel_shape"]
        strides, dilations = a["strides"] or [1] * n, a.get("dilations") or [1] * n
        reach = _reach(kernel, dilations)
        pads = _pads(a["auto_pad"], a["pads"], x.shape[2:], reach, strides)
        counts = []
        for i in range(n):
            span = x.shape[2 + i] + pads[i] + pads[n + i] - reach[i]
            count = (-(-span // strides[i]) if a["ceil_mode"] else span // strides[i]) + 1
            if a["ceil_mode"] and (count - 1) * strides[i] >= x.shape[2 + i] + pads[i]:
                count -= 1  # a window must not begin in the padding behind the data
            counts.append(count)
        needed = [(counts[i] - 1) * strides[i] + reach[i] for i in range(n)]
        return list(strides), list(dilations), pads, counts, needed

    @staticmethod
    def _fill(x: Array, begins: Sequence[int], needed: Sequence[int], value: Any) -> Array:
        """x padded with `value` to the needed size, and cut where fewer values are needed."""
        spatial = x.shape[2:]
        widths = [(b, max(m - b - s, 0)) for b, m, s in zip(begins, needed, spatial, strict=True)]
        padded = np.pad(x, [(0, 0), (0, 0), *widths], constant_values=value)
        return padded[(..., *(slice(m) for m in needed))]


class MaxPool(_Pool):
    """Maximum of each window, and the index of the first maximum in the flattened input."""

    def _run(self, x: Array, **a: Any) -> tuple[Array, ...]:
        strides, dilations, pads, counts, needed = self._windows(x, a)
        begins = pads[: x.ndim - 2]
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        padded = self._fill(x, begins, needed, lowest)
        order = np.arange(x.size).reshape(*x.shape[:2], *x.shape[2:][::-1] if a["storage_order"] else x.shape[2:])
        if a["storage_order"]:
            order = order.transpose(0, 1, *range(x.ndim - 1, 1, -1))
        numbers = self._fill(order, begins, needed, -1)
        best: Array | None = None
        for _, slices in _taps(a["kernel_shape"], strides, dilations, counts):
            values, places = padded[(..., *slices)], numbers[(..., *slices)]
            if best is None:
                best, where = values.copy(), places.copy()
                continue
            better = (values > best) | ((where < 0) & (places >= 0))
            best, where = np.where(better, values, best), np.where(better, places, where)
        assert best is not None
        return (best, where.astype(np.int64))[: len(self.onnx_node.output)]


class AveragePool(_Pool):
    """Mean of each window, over the values inside the data or inside data and explicit padding."""

    def _run(self, x: Array, **a: Any) -> tuple[Array]:
        strides, dilations, pads, counts, needed = self._windows(x, a)
        n = x.ndim - 2
        spatial = x.shape[2:]
        counted = np.ones((1, 1, *spatial), x.dtype)
        begins = pads[:n]
        if a["count_include_pad"]:
            counted = np.ones((1, 1, *(s + pads[i] + pads[n + i] for i, s in enumerate(spatial))), x.dtype)
            begins = [0] * n
        padded, weights = self._fill(x, pads[:n], needed, 0.0), self._fill(counted, begins, needed, 0.0)
        total, share = np.zeros((*x.shape[:2], *counts), x.dtype), np.zeros((1, 1, *counts), x.dtype)
        for _, slices in _taps(a["kernel_shape"], strides, dilations, counts):
            total += padded[(..., *slices)]
            share += weights[(..., *slices)]
        return (total / share,)


class LpPool(_Pool):
    """The norm of each window with zeros outside of the data; onnx's own divides by the count inside of the data."""

    def _run(self, x: Array, **a: Any) -> tuple[Array]:
        strides, dilations, pads, counts, needed = self._windows(x, a)
        p = float(a["p"])
        padded = self._fill(np.abs(x) ** p, pads[: x.ndim - 2], needed, 0.0)
        taps = _taps(a["kernel_shape"], strides, dilations, counts)
        return (sum(padded[(..., *slices)] for _, slices in taps) ** (1 / p),)


class GlobalLpPool(OpRun):
    """The norm of each channel, which onnx's own evaluator does not have."""

    def _run(self, x: Array, p: int = 2) -> tuple[Array]:
        spatial = tuple(range(2, x.ndim))
        return ((np.abs(x) ** p).sum(axis=spatial, keepdims=True) ** (1 / p),)


class MaxRoiPool(OpRun):
    """The largest value in each part of each region, which onnx's own evaluator does not have."""

    def _run(self, x: Array, rois: Array, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> tuple[Array]:
        y = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
        for r, (batch, *corners) in enumerate(rois):
            left, top, right, bottom = (math.floor(abs(c) * spatial_scale + 0.5) * np.sign(c) for c in corners)
            parts = []
            for first, last, bins in ((top, bottom, pooled_shape[0]), (left, right, pooled_shape[1])):
                width = max(last - first + 1, 1) / bins
                edges = [(math.floor(i * width) + first, math.ceil((i + 1) * width) + first) for i in range(bins)]
                parts.append([slice(int(max(low, 0)), int(max(high, 0))) for low, high in edges])
            for (i, rows), (j, columns) in product(enumerate(parts[0]), enumerate(parts[1])):
                part = x[int(batch), :, rows, columns]
                y[r, :, i, j] = part.max(axis=(1, 2)) if part.size else 0.0
        return (y,)


class Resize(StandardResize):
    """Repetition of every value a whole number of times at once, all else as it comes with onnx."""

    def _run(self, x: Array, roi: Any = None, scales: Any = None, sizes: Any = None, **a: Any) -> tuple[Array]:
        repeats = a["mode"] == "nearest" and a["coordinate_transformation_mode"] == "asymmetric"
        whole = scales is not None and len(scales) == x.ndim and all(float(s).is_integer() for s in scales)
        if not (repeats and whole and a["nearest_mode"] == "floor"):
            found: tuple[Array] = super()._run(x, roi, scales, sizes, **a)
            return found
        for axis, scale in enumerate(scales):
            x = x.repeat(int(scale), axis=axis)
        return (x,)


class LRN(OpRun):
    """Local response normalisation across channels, in any number of dimensions."""

    def _run(self, x: Array, **a: Any) -> tuple[Array]:
        before, after = (a["size"] - 1) // 2, -(-(a["size"] - 1) // 2)
        squares = np.stack(
            [
                (x[:, max(c - before, 0) : c + after + 1] ** 2).sum(axis=1)  # the end is inclusive
                for c in range(x.shape[1])
            ],
            axis=1,
        )
        # Attributes are float32 numbers; the arithmetic is that of the data.
        bias, alpha, beta = (float(a[name]) for name in ("bias", "alpha", "beta"))
        return (x / (bias + alpha / a["size"] * squares) ** beta,)


class Pad(OpRun):
    """Padding in every mode; negative widths cut."""

    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, **a: Any
    ) -> tuple[Array]:
        where = list(range(x.ndim)) if axes is None else [int(axis) % x.ndim for axis in axes]
        widths = [(0, 0)] * x.ndim
        for i, axis in enumerate(where):
            widths[axis] = (int(pads[i]), int(pads[i + len(where)]))
        cut = tuple(
            slice(max(-begin, 0), size - max(-end, 0)) for (begin, end), size in zip(widths, x.shape, strict=True)
        )
        grown = [(max(begin, 0), max(end, 0)) for begin, end in widths]
        mode = a["mode"]
        if mode == "constant":
            fill = np.zeros((), x.dtype) if value is None else np.asarray(value, x.dtype).reshape(())
            return (np.pad(x[cut], grown, constant_values=fill),)
        return (np.pad(x[cut], grown, mode=mode),)


class GroupNormalization(OpRun):
    """Group normalisation with one scale and bias per channel, in the precision of the data."""

    def _run(self, x: Array, scale: Array, bias: Array, **a: Any) -> tuple[Array]:
        groups = x.reshape(x.shape[0], a["num_groups"], -1)
        deviation = np.sqrt(groups.var(axis=2, keepdims=True) + float(a["epsilon"]))
        normalised = ((groups - groups.mean(axis=2, keepdims=True)) / deviation).reshape(x.shape)
        per_channel = (-1, *[1] * (x.ndim - 2))
        return (normalised * scale.reshape(per_channel) + bias.reshape(per_channel),)


class MeanVarianceNormalization(OpRun):
    """Its body in the schema has constants of float32 alone."""

    def _run(self, x: Array, axes: Sequence[int] | None = None) -> tuple[Array]:
        over = tuple(axes or (0, 2, 3))
        return ((x - x.mean(axis=over, keepdims=True)) / (x.std(axis=over, keepdims=True) + 1e-9),)


class LpNormalization(OpRun):
    """Division by the norm, for which onnx forgets that terms are absolute values where p is 1."""

    def _run(self, x: Array, axis: int = -1, p: int = 2) -> tuple[Array]:
        norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


class Erf(OpRun):
    """The error function in double precision."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_erf(x),)


class Gelu(OpRun):
    """x times the normal distribution function, or its approximation by tanh."""

    def _run(self, x: Array, **a: Any) -> tuple[Array]:
        if a["approximate"] == "tanh":
            return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + _erf(x / math.sqrt(2.0))),)


class PRelu(OpRun):
    """Leaky Relu with slopes from a tensor; before opset 7 a vector of slopes had one per channel."""

    def _run(self, x: Array, slope: Array) -> tuple[Array]:
        if self.run_params["opsets"][""] < 7 and slope.ndim == 1 and slope.size > 1:
            slope = slope.reshape(-1, *[1] * (x.ndim - 2))
        return (np.where(x > 0, x, x * slope).astype(x.dtype),)


class LogSoftmax(OpRun):
    """Logarithm of the softmax, which stays finite where the softmax underflows."""

    def _run(self, x: Array, **a: Any) -> tuple[Array]:
        axes = tuple(range(a["axis"] % x.ndim, x.ndim)) if self.run_params["opsets"][""] < 13 else a["axis"]
        shifted = x - x.max(axis=axes, keepdims=True)
        return ((shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True))).astype(x.dtype),)


class Scatter(OpRun):
    """ScatterElements under its first name."""

    def _run(self, x: Array, indices: Array, updates: Array, **a: Any) -> tuple[Array]:
        y = x.copy()
        np.put_along_axis(y, np.where(indices < 0, indices + x.shape[a["axis"]], indices), updates, a["axis"])
        return (y,)


class GatherElements(OpRun):
    """Along the other axes the indices may be fewer than the data, and then stand for its first elements."""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        axis = axis % data.ndim
        part = data[tuple(slice(None if a == axis else n) for a, n in enumerate(indices.shape))]
        return (np.take_along_axis(part, indices, axis),)


OPERATORS: tuple[type[OpRun], ...] = (
    GatherElements,
    *(Conv, ConvTranspose, MaxPool, AveragePool, Resize, LpPool, GlobalLpPool, MaxRoiPool),
    *(PRelu, LogSoftmax, Scatter),
    *(LRN, GroupNormalization, MeanVarianceNormalization, LpNormalization, Pad, Erf, Gelu),
    *CONTROL.values(),
    *RECURRENT,
    *SAMPLING,
    *WIDENED,
    *ATTENTION,
)
