"""Signed numbers as colours: blue below zero, white at zero, red above, on a scale symmetric about zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Share of pixels, in percent, whose size lies within the colour scale.
PERCENTILE = 99.5

_LEVELS = 127
_ZERO = _LEVELS + 1
#: Colours at equal steps from zero to the limit.
_RED = ((255, 255, 255), (253, 222, 205), (243, 160, 130), (218, 84, 68), (172, 22, 38), (96, 2, 24))
_BLUE = ((255, 255, 255), (208, 226, 243), (136, 182, 219), (66, 127, 188), (26, 79, 148), (6, 36, 88))


def _half(anchors: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    steps = np.linspace(0, len(anchors) - 1, _LEVELS + 1)
    channels = np.asarray(anchors, dtype=np.float64).T
    positions = np.arange(len(anchors))
    result: np.ndarray = np.stack([np.interp(steps, positions, channel) for channel in channels], axis=1)
    return result


def _table() -> np.ndarray:
    """[256, 3] uint8; white at `_ZERO`, the limits at the last entry and at entry 1 (entry 0 repeats it)."""
    negative, positive = _half(_BLUE)[::-1], _half(_RED)
    table: np.ndarray = np.rint(np.concatenate([negative[:1], negative, positive[1:]])).astype(np.uint8)
    return table


TABLE = _table()


@dataclass(frozen=True)
class Scale:
    """A symmetric colour scale.

    `limit` > 0 gets the strongest colour; `beyond` is the share of pixels past it, in percent.
    """

    limit: float
    beyond: float
    empty: bool = False

    def colours(self, values: np.ndarray) -> np.ndarray:
        """[height, width] -> [height, width, 3] uint8."""
        steps = np.rint(np.clip(values / self.limit, -1.0, 1.0) * _LEVELS).astype(np.int64)
        result: np.ndarray = TABLE[steps + _ZERO]
        return result

    def over(self, ground: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The map laid over a photo [height, width, 3]; [height, width] -> [height, width, 3] uint8.

        Small values show by little opacity instead of pale colour, so that a dark photo is not lightened.
        """
        share = np.clip(np.abs(values) / self.limit, 0.0, 1.0)
        strong = self.colours(np.sign(values) * (0.4 + 0.6 * share) * self.limit)
        cover = (share**1.2)[:, :, None]
        result: np.ndarray = np.rint((1.0 - cover) * ground + cover * strong).astype(np.uint8)
        return result


def scale_for(values: np.ndarray) -> Scale:
    """The scale of one map: a high percentile of the sizes, so that single pixels do not pale the rest.

    A map that is zero almost everywhere takes its largest value; one that is zero everywhere gets 1.
    """
    sizes = np.abs(values)
    largest = float(sizes.max(initial=0.0))
    if largest == 0.0:
        return Scale(1.0, 0.0, empty=True)
    limit = float(np.percentile(sizes, PERCENTILE))
    limit = limit or largest
    return Scale(limit, 100.0 * float((sizes > limit).mean()))


#: Share of all relevance in the cells that have the strongest colour on the scale of `sparse_scale`.
STRONGEST = 0.5


def sparse_scale(values: np.ndarray) -> Scale:
    """The scale of a map whose relevance sits in few cells, however few: the largest ones, with half of all
    |relevance|, get the strongest colour. (A percentile of all cells would show each of the few as strong.)
    """
    sizes = np.sort(np.abs(values), axis=None)[::-1]
    if not sizes.size or sizes[0] == 0.0:
        return Scale(1.0, 0.0, empty=True)
    reached = np.cumsum(sizes) >= STRONGEST * sizes.sum()
    limit = float(sizes[reached.argmax()])
    return Scale(limit, 100.0 * float((sizes > limit).mean()))


def ticks(limit: float, count: int = 5) -> tuple[tuple[float, str], ...]:
    """`count` positions from -limit to limit with their numbers:

    three significant digits, one power of ten.
    """
    power = int(np.floor(np.log10(limit)))
    plain = -3 <= power <= 4
    unit, ending = (1.0, "") if plain else (10.0**power, f"e{power}")
    return tuple(
        (part * limit, f"{part * limit / unit:+.3g}{ending}" if part else "0")
        for part in np.linspace(-1.0, 1.0, count).tolist()
    )
