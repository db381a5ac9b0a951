"""Pictures for a report: photo, signed heatmap and overlay side by side, with a colour bar and a caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from onnxlrp.explain.colours import PERCENTILE, TABLE, Scale, ticks
from onnxlrp.explain.fonts import drawable, font_for

#: The longer side of a panel in the report, and of the smallest separate picture, in pixels.
PANEL = 448
#: Maps shorter than this are enlarged with visible pixels, others smoothly.
TINY = 112

_MARGIN, _GAP, _NARROWEST = 40, 24, 72
_BAR_WIDTH, _BAR_TEXT = 24, 96
_INK, _SOFT, _LINE, _PAPER = (24, 28, 34), (96, 104, 114), (176, 182, 190), (255, 255, 255)
_HEADING, _BODY, _SMALL = 34, 21, 17


@dataclass(frozen=True)
class Caption:
    """The words of a report picture: a heading, a line below it, and small lines at the foot."""

    heading: str
    subheading: str = ""
    foot: tuple[str, ...] = ()


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
    row = len(panels) * step + _BAR_WIDTH + _BAR_TEXT
    inner = max(row, 2 * PANEL)
    blocks = (
        (_lines(caption.heading, _HEADING, inner), _HEADING, _INK),
        (_lines(caption.subheading, _BODY, inner), _BODY, _SOFT),
    )
    foot = [line for text in (*caption.foot, _scale_note(scale)) for line in _lines(text, _SMALL, inner)]
    head = sum(len(lines) * _leading(size) for lines, size, _ in blocks)
    panels_top = _MARGIN + head + 20 + _leading(_SMALL)
    total = panels_top + height + 26 + len(foot) * _leading(_SMALL) + _MARGIN - 8
    page = Image.new("RGB", (inner + 2 * _MARGIN, total), _PAPER)
    draw = ImageDraw.Draw(page)
    top = _MARGIN - 6
    for lines, size, colour in blocks:
        top = _write(draw, lines, top, size, colour)
    left = _MARGIN + (inner - row) // 2
    for name, panel in panels:
        draw.text((left, panels_top - _leading(_SMALL) - 3), name, _SOFT, font_for(name, _SMALL))
        page.paste(panel, (left, panels_top))
        draw.rectangle((left - 1, panels_top - 1, left + width, panels_top + height), outline=_LINE)
        left += step
    _colour_bar(page, left, panels_top, height, scale)
    _write(draw, foot, panels_top + height + 22, _SMALL, _SOFT)
    return page


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


def _overlay(values: np.ndarray, photo: Image.Image, scale: Scale) -> Image.Image:
    gray = np.asarray(photo.convert("L"), dtype=np.float64)[:, :, None]
    light = 72.0 + 0.68 * gray  # paler than the photo, so that both ends of the scale stand out
    return Image.fromarray(scale.over(np.repeat(light, 3, axis=2), values))


def _colour_bar(page: Image.Image, left: int, top: int, height: int, scale: Scale) -> None:
    entries = TABLE[np.linspace(len(TABLE) - 1, 1, height).round().astype(np.int64)]
    bar = np.repeat(entries[:, None, :], _BAR_WIDTH, axis=1)
    page.paste(Image.fromarray(bar), (left, top))
    draw = ImageDraw.Draw(page)
    draw.rectangle((left - 1, top - 1, left + _BAR_WIDTH, top + height), outline=_LINE)
    room = height // (2 * _SMALL)
    count = 5 if room >= 5 else 3 if room >= 3 else 2
    for value, number in ((0.0, "0"),) if scale.empty else ticks(scale.limit, count):
        y = top + round((height - 1) * (0.5 - 0.5 * value / scale.limit))
        draw.line((left + _BAR_WIDTH + 1, y, left + _BAR_WIDTH + 7, y), fill=_SOFT)
        anchor = "lt" if y == top else "lb" if y == top + height - 1 else "lm"
        draw.text((left + _BAR_WIDTH + 12, y), number, _INK, font_for(number, _SMALL), anchor=anchor)


def _scale_note(scale: Scale) -> str:
    if scale.empty:
        return "all relevance is zero"
    if scale.beyond == 0.0:
        return "colour scale to the largest |relevance|; red speaks for the explained output, blue against it"
    return (
        f"colour scale to the {PERCENTILE:g}th percentile of |relevance| ({scale.beyond:.1f} % of the pixels "
        "lie beyond); red speaks for the explained output, blue against it"
    )


def _leading(size: int) -> int:
    return round(1.35 * size)


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], top: int, size: int, colour: tuple[int, int, int]) -> int:
    for line in lines:
        draw.text((_MARGIN, top), line, colour, font_for(line, size))
        top += _leading(size)
    return top


def _lines(text: str, size: int, width: int) -> list[str]:
    """The text broken into lines no wider than `width` pixels; a word that is wider itself is cut."""
    text = drawable(text)
    font = font_for(text, size)
    lines: list[str] = []
    current = ""
    for word in text.split():
        while font.getlength(word) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if font.getlength(word[:n]) <= width)
            lines.extend(filter(None, (current, word[:fits])))
            current, word = "", word[fits:]
        wider = f"{current} {word}".strip()
        if font.getlength(wider) > width:
            lines.append(current)
            current = word
        else:
            current = wider
    return [*lines, current] if current else lines
