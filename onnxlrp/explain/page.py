"""A report page: heading, room for panels, words at the foot, and the colour bar of a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from onnxlrp.explain.colours import PERCENTILE, TABLE, Scale, ticks
from onnxlrp.explain.fonts import drawable, font_for

INK, SOFT, LINE, PAPER = (24, 28, 34), (96, 104, 114), (176, 182, 190), (255, 255, 255)
HEADING, BODY, SMALL = 34, 21, 17
MARGIN = 40
BAR_WIDTH, BAR_TEXT = 24, 96


@dataclass(frozen=True)
class Caption:
    """The words of a report picture: a heading, a line below it, and small lines at the foot."""

    heading: str
    subheading: str = ""
    foot: tuple[str, ...] = ()


def page(caption: Caption, notes: Sequence[str], width: int, height: int) -> tuple[Image.Image, int]:
    """A page with room for panels of `width` x `height`, and the top of that room (its left is MARGIN).

    Words that are too long for a line are wrapped; `notes` stand at the foot below the caption's own lines.
    """
    blocks = (
        (wrapped(caption.heading, HEADING, width), HEADING, INK),
        (wrapped(caption.subheading, BODY, width), BODY, SOFT),
    )
    foot = [line for text in (*caption.foot, *notes) for line in wrapped(text, SMALL, width)]
    head = sum(len(lines) * leading(size) for lines, size, _ in blocks)
    room = MARGIN + head + 20 + leading(SMALL)
    total = room + height + 26 + len(foot) * leading(SMALL) + MARGIN - 8
    made = Image.new("RGB", (width + 2 * MARGIN, total), PAPER)
    draw = ImageDraw.Draw(made)
    top = MARGIN - 6
    for lines, size, colour in blocks:
        top = _write(draw, lines, top, size, colour)
    _write(draw, foot, room + height + 22, SMALL, SOFT)
    return made, room


def label(draw: ImageDraw.ImageDraw, left: float, top: float, text: str, anchor: str = "la", ink: bool = False) -> None:
    """A short text in small type; `anchor` as in Pillow."""
    draw.text((left, top), drawable(text), INK if ink else SOFT, font_for(text, SMALL), anchor=anchor)


def outline(draw: ImageDraw.ImageDraw, left: int, top: int, width: int, height: int) -> None:
    """A thin frame around a panel."""
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=LINE)


def colour_bar(made: Image.Image, left: int, top: int, height: int, scale: Scale) -> None:
    """The scale's colours from bottom to top with numbers beside them."""
    entries = TABLE[np.linspace(len(TABLE) - 1, 1, height).round().astype(np.int64)]
    bar = np.repeat(entries[:, None, :], BAR_WIDTH, axis=1)
    made.paste(Image.fromarray(bar), (left, top))
    draw = ImageDraw.Draw(made)
    outline(draw, left, top, BAR_WIDTH, height)
    room = height // (2 * SMALL)
    count = 5 if room >= 5 else 3 if room >= 3 else 2
    for value, number in ((0.0, "0"),) if scale.empty else ticks(scale.limit, count):
        y = top + round((height - 1) * (0.5 - 0.5 * value / scale.limit))
        draw.line((left + BAR_WIDTH + 1, y, left + BAR_WIDTH + 7, y), fill=SOFT)
        anchor = "lt" if y == top else "lb" if y == top + height - 1 else "lm"
        label(draw, left + BAR_WIDTH + 12, y, number, anchor, ink=True)


def scale_note(scale: Scale) -> str:
    """What the colours mean, for the foot of the page."""
    if scale.empty:
        return "all relevance is zero"
    if scale.beyond == 0.0:
        return "colour scale to the largest |relevance|; red speaks for the explained output, blue against it"
    return (
        f"colour scale to the {PERCENTILE:g}th percentile of |relevance| ({scale.beyond:.1f} % of the pixels "
        "lie beyond); red speaks for the explained output, blue against it"
    )


def leading(size: int) -> int:
    """From one line to the next, in pixels."""
    return round(1.35 * size)


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], top: int, size: int, colour: tuple[int, int, int]) -> int:
    for line in lines:
        draw.text((MARGIN, top), line, colour, font_for(line, size))
        top += leading(size)
    return top


def wrapped(text: str, size: int, width: int) -> list[str]:
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
