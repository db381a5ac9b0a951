"""Pictures for a report: photo, signed heatmap and overlay side by side, with a colour bar and a caption."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from onnxlrp.explain.colours import Scale
from onnxlrp.explain.page import (
    BAR_TEXT,
    BAR_WIDTH,
    MARGIN,
    SMALL,
    Caption,
    colour_bar,
    label,
    leading,
    outline,
    page,
    scale_note,
)

#: The longer side of a panel in the report, and of the smallest separate picture, in pixels.
PANEL = 448
#: Maps shorter than this are enlarged with visible pixels, others smoothly.
TINY = 112

_GAP, _NARROWEST = 24, 72


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a map is shown:

    whole multiples where it is enlarged, the longer side near PANEL.
    """
    longest = max(height, width)
    if longest <= PANEL:
        factor = PANEL // longest
        return (height * factor, width * factor)
    return (max(1, round(height * PANEL / longest)), max(1, round(width * PANEL / longest)))


def heatmap_picture(values: np.ndarray, scale: Scale) -> Image.Image:
    """The signed map alone, [height, width] -> RGB; a tiny one is enlarged to whole multiples."""
    return _at_size(values, _own_size(values), lambda shown: Image.fromarray(scale.colours(shown)))


def overlay_picture(values: np.ndarray, photo: Callable[[int, int], Image.Image], scale: Scale) -> Image.Image:
    """The signed map over the photo in gray; `photo(height, width)` gives the photo at a size."""
    size = _own_size(values)
    return _at_size(values, size, lambda shown: _overlay(shown, photo(*size), scale))


def report_picture(
    values: np.ndarray, photo: Callable[[int, int], Image.Image], scale: Scale, caption: Caption
) -> Image.Image:
    """Photo, heatmap, overlay and colour bar in a row below a heading; words that are too long for a line are
    wrapped.
    """
    height, width = panel_size(*values.shape)
    picture = photo(height, width)
    panels = (
        ("image", picture),
        ("relevance", _at_size(values, (height, width), lambda shown: Image.fromarray(scale.colours(shown)))),
        ("overlay", _at_size(values, (height, width), lambda shown: _overlay(shown, picture, scale))),
    )
    step = max(width, _NARROWEST) + _GAP
    row = len(panels) * step + BAR_WIDTH + BAR_TEXT
    inner = max(row, 2 * PANEL)
    made, top = page(caption, (scale_note(scale),), inner, height)
    draw = ImageDraw.Draw(made)
    left = MARGIN + (inner - row) // 2
    for name, panel in panels:
        label(draw, left, top - leading(SMALL) - 3, name)
        made.paste(panel, (left, top))
        outline(draw, left, top, width, height)
        left += step
    colour_bar(made, left, top, height, scale)
    return made


def _own_size(values: np.ndarray) -> tuple[int, int]:
    height, width = values.shape
    return panel_size(height, width) if max(height, width) < TINY else (height, width)


def _at_size(values: np.ndarray, size: tuple[int, int], draw: Callable[[np.ndarray], Image.Image]) -> Image.Image:
    """Draw a map at a size:

    numbers are interpolated rather than colours, pixels of tiny maps stay visible.
    """
    if values.shape == size:
        return draw(values)
    method = Image.Resampling.NEAREST if max(values.shape) < TINY else Image.Resampling.BILINEAR
    image = Image.fromarray(values.astype(np.float32)).resize((size[1], size[0]), method)
    return draw(np.asarray(image, dtype=np.float64))


def in_gray(photo: Image.Image) -> Image.Image:
    """The photo in gray, paler than it is, so that both ends of the scale stand out on it."""
    return Image.fromarray(np.rint(_ground(photo)).astype(np.uint8))


def _ground(photo: Image.Image) -> np.ndarray:
    """[height, width, 3], float64."""
    light = 72.0 + 0.68 * np.asarray(photo.convert("L"), dtype=np.float64)[:, :, None]
    result: np.ndarray = np.repeat(light, 3, axis=2)
    return result


def _overlay(values: np.ndarray, photo: Image.Image, scale: Scale) -> Image.Image:
    return Image.fromarray(scale.over(_ground(photo), values))
