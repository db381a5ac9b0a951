"""The report picture of one row of a table: signed bars, the most relevant feature first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from onnxlrp.explain.colours import TABLE
from onnxlrp.explain.fonts import drawable, font_for
from onnxlrp.explain.page import LINE, MARGIN, SMALL, Caption, label, page, wrapped

#: Bars in a picture; the features beyond share one.
MOST = 20

_WIDTH, _ROW, _NAMES = 860, 30, 330
_NUMBER = 84
_RED, _BLUE = tuple(TABLE[-20]), tuple(TABLE[20])


@dataclass(frozen=True)
class Bar:
    """A feature with its value in words, and its relevance."""

    name: str
    value: str
    relevance: float

    @property
    def text(self) -> str:
        """What stands beside the bar."""
        return f"{self.name} = {self.value}" if self.value else self.name


def ranked(bars: Sequence[Bar]) -> list[Bar]:
    """The bars by the size of their relevance; those beyond MOST are put together in the last."""
    order = sorted(bars, key=lambda bar: -abs(bar.relevance))
    if len(order) <= MOST:
        return order
    rest = order[MOST - 1 :]
    return [*order[: MOST - 1], Bar(f"{len(rest)} other features together", "", sum(bar.relevance for bar in rest))]


def bars_picture(bars: Sequence[Bar], caption: Caption) -> Image.Image:
    """Names on the left, bars to the right (red, for the explained output) or left (blue, against it) of an axis."""
    shown = ranked(bars)
    note = "red speaks for the explained output, blue against it"
    made, top = page(caption, (note,), _WIDTH, _ROW * len(shown))
    draw = ImageDraw.Draw(made)
    largest = max((abs(bar.relevance) for bar in shown), default=0.0) or 1.0
    low = any(bar.relevance < 0 for bar in shown)
    left, right = MARGIN + _NAMES + (_NUMBER if low else 0), MARGIN + _WIDTH - _NUMBER
    axis = (left + right) / 2 if low else float(left)
    for place, bar in enumerate(shown):
        y = top + place * _ROW
        tip = axis + (right - axis) * bar.relevance / largest
        draw.rectangle((min(axis, tip), y + 5, max(axis, tip), y + _ROW - 6), fill=_RED if bar.relevance > 0 else _BLUE)
        label(draw, MARGIN + _NAMES - 14, y + _ROW / 2, _fitted(bar.text), "rm", ink=True)
        number = f"{bar.relevance:+.3g}" if bar.relevance else "0"
        label(draw, tip + (8 if bar.relevance >= 0 else -8), y + _ROW / 2, number, "lm" if bar.relevance >= 0 else "rm")
    draw.line((axis, top, axis, top + _ROW * len(shown)), fill=LINE)
    return made


def _fitted(text: str) -> str:
    """The text, with its end left out where it is wider than the room for names."""
    room = _NAMES - 20
    if font_for(text, SMALL).getlength(drawable(text)) <= room:
        return text
    return wrapped(text.replace(" ", "\u00a0"), SMALL, room - 14)[0] + "..."
