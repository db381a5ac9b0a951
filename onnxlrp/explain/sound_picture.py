"""The report picture of a sound: waveform, relevance over time, and relevance over time and frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from onnxlrp.explain.colours import STRONGEST, TABLE, sparse_scale
from onnxlrp.explain.page import (
    BAR_TEXT,
    BAR_WIDTH,
    INK,
    LINE,
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
from onnxlrp.explain.spectrogram import TimeFrequency

_WIDTH, _WAVE, _CURVE, _MAP = 960, 130, 130, 330
_AXIS = 78  # room for frequencies left of the panels
_GAP = 24 + leading(SMALL)
_RED, _BLUE = tuple(TABLE[-20]), tuple(TABLE[20])
_STEPS = (1, 2, 5)
_HERTZ = (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 20000)
_SCALE_NOTE = (
    f"the strongest colours have the cells with {STRONGEST:.0%} of all |relevance|; red speaks for the explained "
    "output, blue against it"
)
#: Decibels below the loudest that are drawn.
_RANGE = 80.0


@dataclass(frozen=True)
class SoundView:
    """What is drawn: `samples` [time] at `rate`, relevance of equal steps of time, and over frequency."""

    samples: np.ndarray
    rate: int
    over_time: np.ndarray
    map: TimeFrequency

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def sound_picture(view: SoundView, windows: Sequence[float], caption: Caption) -> Image.Image:
    """The picture; `windows` are the seconds at which a window of the model begins, the first left out."""
    shown = _columns(view.map.relevance, view.map)
    scale = sparse_scale(shown)
    height = _WAVE + _CURVE + _MAP + 2 * _GAP + leading(SMALL) + 6
    made, top = page(
        caption,
        (_SCALE_NOTE if not scale.empty else scale_note(scale),),
        _AXIS + _WIDTH + 24 + BAR_WIDTH + BAR_TEXT,
        height,
    )
    draw = ImageDraw.Draw(made)
    left = MARGIN + _AXIS
    tops = (top, top + _WAVE + _GAP, top + _WAVE + _CURVE + 2 * _GAP)
    names = ("sound", "relevance over time", "relevance over time and frequency")
    for name, height, y in zip(names, (_WAVE, _CURVE, _MAP), tops, strict=True):
        label(draw, left, y - leading(SMALL) - 3, name)
        outline(draw, left, y, _WIDTH, height)
    _wave(draw, view.samples, left, tops[0])
    _curve(draw, view.over_time, left, tops[1])
    ground = np.repeat(_gray(_columns(view.map.level, view.map, mean=True))[:, :, None], 3, axis=2)
    picture = Image.fromarray(scale.over(ground, shown)).resize((_WIDTH, _MAP), Image.Resampling.NEAREST)
    made.paste(picture, (left, tops[2]))
    colour_bar(made, left + _WIDTH + 24, tops[2], _MAP, scale)
    _frequencies(draw, view.map.frequencies, left, tops[2])
    _seconds(draw, view.seconds, left, tops[2] + _MAP)
    for start in windows:
        x = left + round(_WIDTH * start / view.seconds)
        for y, height in zip(tops, (_WAVE, _CURVE, _MAP), strict=True):
            draw.line((x, y, x, y + height - 1), fill=LINE)
    return made


def _wave(draw: ImageDraw.ImageDraw, samples: np.ndarray, left: int, top: int) -> None:
    largest = float(np.abs(samples).max()) or 1.0
    middle, half = top + _WAVE / 2, _WAVE / 2 - 4
    for x, part in enumerate(np.array_split(samples, _WIDTH)):
        low, high = (part.min(), part.max()) if part.size else (0.0, 0.0)
        draw.line((left + x, middle - half * high / largest, left + x, middle - half * low / largest), fill=INK)


def _curve(draw: ImageDraw.ImageDraw, values: np.ndarray, left: int, top: int) -> None:
    """Signed bars, their sizes relative to the largest."""
    largest = float(np.abs(values).max()) or 1.0
    middle, half = top + _CURVE / 2, _CURVE / 2 - 6
    draw.line((left, middle, left + _WIDTH - 1, middle), fill=LINE)
    edges = np.linspace(0, _WIDTH, len(values) + 1).round()
    for start, end, value in zip(edges[:-1], edges[1:], values, strict=True):
        tip = middle - half * value / largest
        if abs(tip - middle) < 0.5:
            continue
        box = (left + start, min(tip, middle), left + max(start, end - 2), max(tip, middle))
        draw.rectangle(box, fill=_RED if value > 0 else _BLUE)


def _columns(values: np.ndarray, of: TimeFrequency, mean: bool = False) -> np.ndarray:
    """[rows, columns] for drawing: frames put together where there are more than pixels, mel spacing upwards."""
    group = -(-values.shape[1] // _WIDTH)
    wide = np.pad(values, ((0, 0), (0, -values.shape[1] % group)), mode="edge" if mean else "constant")
    grouped = wide.reshape(len(values), -1, group)
    columns = grouped.mean(axis=2) if mean else grouped.sum(axis=2)
    result: np.ndarray = columns[_row_bins(of.frequencies)]
    return result


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.log1p(np.asarray(hertz) / 700.0))


def _row_bins(frequencies: np.ndarray) -> np.ndarray:
    """The bin that each row of the map shows, from the top."""
    places = _mel(frequencies)
    rows = np.linspace(places[-1], places[0], _MAP)
    return np.asarray(np.abs(places[None] - rows[:, None]).argmin(axis=1))


def _gray(level: np.ndarray) -> np.ndarray:
    """Loud is dark, in the paler half of the scale so that both colours stand out."""
    share = np.clip((level - level.max()) / _RANGE + 1.0, 0.0, 1.0)
    result: np.ndarray = 250.0 - 130.0 * share**1.5
    return result


def _frequencies(draw: ImageDraw.ImageDraw, frequencies: np.ndarray, left: int, top: int) -> None:
    low, high = (float(_mel(end)) for end in (frequencies[0], frequencies[-1]))
    lowest = top
    for hertz in reversed(_HERTZ):
        place = (float(_mel(hertz)) - low) / (high - low)
        y = top + round((_MAP - 1) * (1 - place))
        if 0.0 <= place <= 1.0 and y >= lowest:
            draw.line((left - 6, y, left - 2, y), fill=LINE)
            label(draw, left - 10, y, f"{hertz} Hz", "rm", ink=True)
            lowest = y + leading(SMALL)


def _seconds(draw: ImageDraw.ImageDraw, seconds: float, left: int, top: int) -> None:
    step = nice_step(seconds / 8)
    digits = max(0, -int(np.floor(np.log10(step) + 1e-9)))
    for i in range(int(seconds / step + 1e-9) + 1):
        x = left + round((_WIDTH - 1) * i * step / seconds)
        draw.line((x, top + 2, x, top + 6), fill=LINE)
        label(draw, x, top + 9, f"{i * step:.{digits}f} s", "ma", ink=True)


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not smaller."""
    power = 10.0 ** np.floor(np.log10(least))
    return float(next((s * power for s in _STEPS if s * power >= least * (1 - 1e-9)), 10 * power))
