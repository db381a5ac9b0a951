"""Baselines: chance, gradients, and what happens to the score when parts of the input are taken away.

All of them see the model through `Subject` alone. Of one value at a time, the variants go through the model together,
as many as `_BLOCK` elements make.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from onnxlrp.evaluation.case import Array, Subject
from onnxlrp.evaluation.methods import Baseline, Frame, Settings, register

_BLOCK = 1 << 22


def _blocks(count: int, size: int) -> Iterator[slice]:
    """Runs of variants of `size` elements each."""
    step = max(1, _BLOCK // max(1, size))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _random(subject: Subject, frame: Frame, values: Array, targets: Array, rows: Array, settings: Settings) -> Array:
    result = np.empty(values.shape, np.float64)
    for i, row in enumerate(rows):
        # Another value gets another map: chance does not even agree with itself.
        other = zlib.crc32(np.ascontiguousarray(values[i]).tobytes())
        drawn = np.random.default_rng([int(frame.seeds[row]), other]).standard_normal(values.shape[1:])
        result[i] = np.where(frame.units_of(int(row)) < 0, 0.0, drawn)
    return result


def _gradient(subject: Subject, frame: Frame, values: Array, targets: Array, rows: Array, settings: Settings) -> Array:
    return subject.gradients(values, targets, rows)


def _integrated(
    subject: Subject, frame: Frame, values: Array, targets: Array, rows: Array, settings: Settings
) -> Array:
    """Midpoint rule: (x - x') times the mean gradient at (k + 1/2) / steps of the way from x' to x (equation 3)."""
    steps = max(1, int(settings["steps"]))
    share = (np.arange(steps) + 0.5) / steps
    result = np.empty(values.shape, np.float64)
    for i, row in enumerate(rows):
        away = frame.baseline[row].astype(np.float64)
        change = values[i].astype(np.float64) - away
        total = np.zeros(change.shape)
        for block in _blocks(steps, change.size):
            part = share[block].reshape(-1, *[1] * change.ndim)
            total += _gradients(subject, away + part * change, targets[i], row).sum(axis=0)
        result[i] = change * total / steps
    return result


def _smoothgrad(
    subject: Subject, frame: Frame, values: Array, targets: Array, rows: Array, settings: Settings
) -> Array:
    """The mean gradient under noise of `noise` times the range of the sample's values."""
    samples = max(1, int(settings["samples"]))
    result = np.empty(values.shape, np.float64)
    for i, row in enumerate(rows):
        value = values[i].astype(np.float64)
        deviation = settings["noise"] * float(value.max() - value.min())
        generator = frame.generator(int(row), "smoothgrad")
        total = np.zeros(value.shape)
        for block in _blocks(samples, value.size):
            noise = generator.standard_normal((block.stop - block.start, *value.shape))
            total += _gradients(subject, value + deviation * noise, targets[i], row).sum(axis=0)
        result[i] = total / samples
    return result


def _gradients(subject: Subject, variants: Array, target: int, row: int) -> Array:
    count = len(variants)
    return subject.gradients(variants, np.full(count, target), np.full(count, row))


def _occlusion(subject: Subject, frame: Frame, values: Array, targets: Array, rows: Array, settings: Settings) -> Array:
    """The fall of the score when a window is taken away, spread evenly over it; windows that overlap are averaged.

    Windows are squares of a picture; of other data, and of tokens, each unit by itself.
    """
    result = np.empty(values.shape, np.float64)
    for i, row in enumerate(rows):
        away = frame.baseline[row]
        windows = _windows(frame, int(row), values.shape[1:], settings)
        whole = subject.scores(values[i : i + 1], np.array([row]))[0, targets[i]]
        total, times = np.zeros(values.shape[1:]), np.zeros(values.shape[1:])
        for block in _blocks(len(windows), values[i].size):
            gone = np.stack([windows.mask(place) for place in range(block.start, block.stop)])
            variants = np.where(gone, away, values[i])
            scores = subject.scores(variants, np.full(len(gone), row))[:, targets[i]]
            for mask, score in zip(gone, scores, strict=True):
                total[mask] += (whole - score) / mask.sum()
                times[mask] += 1
        result[i] = total / np.maximum(times, 1)
    return result


class _Windows:
    """The parts of a sample that are taken away one after another; masks are made when they are needed."""

    def __init__(self, parts: list[tuple[slice, slice]] | Array, units: Array, frame: Frame) -> None:
        self._parts, self._units, self._frame = parts, units, frame

    def __len__(self) -> int:
        return len(self._parts)

    def mask(self, place: int) -> Array:
        part = self._parts[place]
        if not isinstance(part, tuple):
            unit: Array = self._units == part
            return unit
        layout = self._frame.layout
        assert layout.rows is not None and layout.columns is not None
        grid = np.zeros((self._units.shape[layout.rows], self._units.shape[layout.columns]), bool)
        grid[part] = True
        return layout.spread(grid, self._units.shape)


def _windows(frame: Frame, row: int, shape: tuple[int, ...], settings: Settings) -> _Windows:
    units, layout = frame.units_of(row), frame.layout
    if not layout.is_picture:
        found = np.unique(units)
        return _Windows(found[found >= 0], units, frame)
    assert layout.rows is not None and layout.columns is not None
    height, width = shape[layout.rows], shape[layout.columns]
    side = int(settings["patch"]) or max(1, round(max(height, width) / 14))
    stride = int(settings["stride"]) or side
    tops, lefts = (sorted({*range(0, max(1, n - side), stride), max(0, n - side)}) for n in (height, width))
    return _Windows([(slice(t, t + side), slice(left, left + side)) for t in tops for left in lefts], units, frame)


def _rise(subject: Subject, frame: Frame, values: Array, targets: Array, rows: Array, settings: Settings) -> Array:
    """The mean of random masks, each weighted by the probability of the class on what it shows (equation 6).

    Masks of a picture are grids of `cells` x `cells` cells, each shown with probability `keep`, enlarged smoothly and
    shifted at random; of other data, and of tokens, each unit is shown or not.
    """
    masks, keep = max(1, int(settings["masks"])), settings["keep"]
    result = np.empty(values.shape, np.float64)
    for i, row in enumerate(rows):
        generator = frame.generator(int(row), "rise")
        away, value = frame.baseline[row], values[i]
        total = np.zeros(value.shape)
        for block in _blocks(masks, 4 * value.size):
            shown = _shown(frame, int(row), value.shape, block.stop - block.start, settings, generator)
            if frame.layout.is_token:
                variants = np.where(shown > 0, value, away)
            else:
                variants = value * shown + away * (1.0 - shown)
            chance = _probability(subject.scores(variants, np.full(len(variants), row)), int(targets[i]))
            total += np.tensordot(chance, shown, axes=1)
        result[i] = np.where(frame.units_of(int(row)) < 0, 0.0, total / (masks * keep))
    return result


def _shown(
    frame: Frame, row: int, shape: tuple[int, ...], count: int, settings: Settings, generator: np.random.Generator
) -> Array:
    """Random masks, [count, ...], 1 where the sample is shown and 0 where it is not."""
    layout, units = frame.layout, frame.units_of(row)
    if not layout.is_picture:
        drawn = generator.random((count, int(units.max()) + 1)) < settings["keep"]
        return np.where(units < 0, 1.0, drawn[:, np.maximum(units, 0)]).astype(np.float32)
    assert layout.rows is not None and layout.columns is not None
    height, width = shape[layout.rows], shape[layout.columns]
    cells = max(1, int(settings["cells"]))
    down, right = -(-height // cells), -(-width // cells)
    result = np.empty((count, *shape), np.float32)
    for place in range(count):
        coarse = (generator.random((cells + 1, cells + 1)) < settings["keep"]).astype(np.float32)
        size = ((cells + 1) * right, (cells + 1) * down)
        fine = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR))
        top, left = int(generator.integers(down)), int(generator.integers(right))
        result[place] = layout.spread(fine[top : top + height, left : left + width], shape)
    return result


def _probability(scores: Array, target: int) -> Array:
    """Softmax of one class; the score itself of a model with a single one."""
    if scores.shape[1] == 1:
        single: Array = scores[:, 0]
        return single
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    chance: Array = shifted[:, target] / shifted.sum(axis=1)
    return chance


register(Baseline("random", "Random numbers: what chance reaches", "", _random))
register(
    Baseline(
        "gradient",
        "The derivative of the score by the input",
        "Simonyan, Vedaldi and Zisserman 2014",
        _gradient,
        tokens=False,
    )
)
register(
    Baseline(
        "integrated-gradients",
        "The gradient along the way from the baseline to the input",
        "Sundararajan, Taly and Yan 2017",
        _integrated,
        {"steps": 32},
        tokens=False,
    )
)
register(
    Baseline(
        "smoothgrad",
        "The mean gradient of noisy copies",
        "Smilkov, Thorat, Kim, Viegas and Wattenberg 2017",
        _smoothgrad,
        {"samples": 16, "noise": 0.15},
        tokens=False,
    )
)
register(
    Baseline(
        "occlusion",
        "How much the score falls when a patch, a feature or a token is taken away; patch 0: a 14th of the picture",
        "Zeiler and Fergus 2014",
        _occlusion,
        {"patch": 0, "stride": 0},
    )
)
register(
    Baseline(
        "rise",
        "Random masks weighted by the probability of what they show",
        "Petsiuk, Das and Saenko 2018",
        _rise,
        {"masks": 256, "keep": 0.5, "cells": 7},
    )
)
