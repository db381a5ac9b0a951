"""What is taken away at once (units), and what it becomes (the baseline)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.sample import Layout

#: Pictures up to this side are taken apart by pixels, larger ones into squares, about `_SQUARES` along each side.
_SMALL, _SQUARES = 64, 14
#: Radius of the blur, as a share of the longer side.
_BLUR = 0.05

FILLS = ("zero", "mean", "blur", "mask")


def unit_side(layout: Layout, shape: tuple[int, ...], stated: int | None) -> int:
    """The side of a picture's units in pixels; 1 for other inputs.

    Raises:
        UsageError: a side was stated for an input that is no picture, or is larger than the picture.
    """
    if not layout.is_picture:
        if stated not in (None, 1):
            raise UsageError("--unit is the side of squares of pixels; this data has no pictures, leave it out")
        return 1
    assert layout.rows is not None and layout.columns is not None
    longer = max(shape[layout.rows], shape[layout.columns])
    if stated is not None:
        if stated > longer:
            raise UsageError(f"--unit {stated} is larger than the picture of {longer} pixels")
        return stated
    return 1 if longer <= _SMALL else max(1, round(longer / _SQUARES))


def units(layout: Layout, shape: tuple[int, ...], side: int) -> Array:
    """The unit of each element of one sample, int64 in its shape: squares of a picture, else every element."""
    if not layout.is_picture:
        return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    assert layout.rows is not None and layout.columns is not None
    height, width = shape[layout.rows], shape[layout.columns]
    down, right = np.arange(height) // side, np.arange(width) // side
    grid = down[:, None] * (right[-1] + 1) + right[None, :]
    return np.ascontiguousarray(layout.spread(grid.astype(np.int64), shape))


def check_fill(fill: str | None, layout: Layout) -> str:
    """The way in which elements are taken away, settled.

    Raises:
        UsageError: it does not go with the data, or is neither a name nor a number.
    """
    if fill is None:
        return "mask" if layout.is_token else "zero" if layout.is_picture or layout.means is None else "mean"
    if layout.is_token != (fill == "mask") and not (layout.is_token and fill.isdigit()):
        raise UsageError(
            f"--fill {fill} does not go with this data: "
            + ("tokens become the mask token (mask), or the token of an id" if layout.is_token else "it has no tokens")
        )
    if fill == "blur" and not layout.is_picture:
        raise UsageError("--fill blur goes with pictures only; write zero, mean or a number")
    if fill not in FILLS:
        try:
            float(fill)
        except ValueError:
            raise UsageError(f"--fill {fill!r} is none of {', '.join(FILLS)} and no number") from None
    return fill


def baselines(fill: str, values: Array, layout: Layout) -> Array:
    """What the elements of each sample become when they are taken away, in the values' shape and type.

    `zero`: 0, which is the mean pixel where pixels were normalised. `mean`: of a picture's channel in this sample; of a
    feature over the data. `blur`: the picture itself, blurred. `mask`: the mask token. Else a number.
    """
    if fill == "mask":
        found = np.full(values.shape, layout.mask_token, np.float64)
    elif fill == "mean":
        found = np.broadcast_to(_means(values, layout), values.shape)
    elif fill == "blur":
        found = _blurred(values, layout)
    else:
        found = np.full(values.shape, 0.0 if fill == "zero" else float(fill))
    return np.ascontiguousarray(found.astype(values.dtype))


def _means(values: Array, layout: Layout) -> Array:
    if layout.is_picture:
        assert layout.rows is not None and layout.columns is not None
        per_channel: Array = values.mean(axis=(layout.rows + 1, layout.columns + 1), keepdims=True, dtype=np.float64)
        return per_channel
    if layout.means is not None:
        return layout.means[None]
    overall: Array = values.mean(axis=tuple(range(1, values.ndim)), keepdims=True, dtype=np.float64)
    return overall


def _blurred(values: Array, layout: Layout) -> Array:
    assert layout.rows is not None and layout.columns is not None
    radius = max(1.0, _BLUR * max(values.shape[layout.rows + 1], values.shape[layout.columns + 1]))
    axes = (layout.rows + 1, layout.columns + 1)
    planes = np.moveaxis(values.astype(np.float32), axes, (-2, -1))
    result = np.empty(planes.shape, np.float32)
    for place in np.ndindex(planes.shape[:-2]):
        low, high = float(planes[place].min()), float(planes[place].max())
        scale = (high - low) or 1.0
        # Pillow blurs pictures of 8 bits only; what is taken away need not be finer.
        picture = Image.fromarray(np.rint((planes[place] - low) / scale * 255).astype(np.uint8))
        soft = picture.filter(ImageFilter.GaussianBlur(radius))
        result[place] = np.asarray(soft, np.float32) / 255 * scale + low
    return np.moveaxis(result, (-2, -1), axes)
