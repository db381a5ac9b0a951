"""Gaussian and uniform means over neighbouring pixels, along one axis after the other."""

from __future__ import annotations

import math

import numpy as np

from onnxlrp.evaluation.case import Array


def blurred(image: Array, width: float) -> Array:
    """[..., height, width] blurred by a Gaussian of the given standard deviation in pixels, cut off at three of them;
    beyond the edge the edge goes on."""
    radius = math.ceil(3 * width)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    return filtered(image, weights / weights.sum())


def filtered(image: Array, weights: Array) -> Array:
    """The last two axes, each weighted by an odd number of weights around every pixel; the edge goes on."""
    for axis in (-2, -1):
        radius = len(weights) // 2
        widths = [(0, 0)] * image.ndim
        widths[axis] = (radius, radius)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, widths, mode="edge"), len(weights), axis)
        image = windows @ weights
    return image
