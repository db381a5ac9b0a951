"""The picture of a sound, read back by its colours: relevance stands where its time and frequency are."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.explain.page import Caption
from onnxlrp.explain.sound_picture import SoundView, nice_step, sound_picture
from onnxlrp.explain.spectrogram import TimeFrequency

RATE = 1000
FREQUENCIES = np.linspace(0, 500, 101)
TIMES = np.linspace(0, 2, 51)


def view(cells: dict[tuple[float, float], float], moments: list[float]) -> SoundView:
    """Two seconds of sound with relevance at (seconds, Hz)."""
    relevance = np.zeros((len(FREQUENCIES), len(TIMES)))
    for (seconds, hertz), value in cells.items():
        relevance[np.abs(FREQUENCIES - hertz).argmin(), np.abs(TIMES - seconds).argmin()] = value
    samples = np.sin(np.arange(2 * RATE) / 5)
    return SoundView(samples, RATE, np.array(moments), TimeFrequency(relevance - 60, relevance, TIMES, FREQUENCIES))


def coloured(picture, sign: int) -> np.ndarray:
    """[n, 2] rows and columns of strongly red (1) or blue (-1) pixels left of the colour bar."""
    pixels = np.asarray(picture).astype(int)[:, :1078]
    red, blue = pixels[:, :, 0] - pixels[:, :, 2], pixels[:, :, 2] - pixels[:, :, 0]
    return np.argwhere((red if sign > 0 else blue) > 70)


def centres(picture, sign: int) -> list[tuple[float, float]]:
    """Of each stack of panels with such pixels: their mean row and column."""
    places = coloured(picture, sign)
    gaps = np.flatnonzero(np.diff(places[:, 0]) > 20)
    return [tuple(part.mean(axis=0)) for part in np.split(places, gaps + 1)]


def test_relevance_stands_at_its_time_in_both_panels_and_its_frequency_in_one():
    moments = [0.0] * 20
    moments[5] = 2.0
    early_low = sound_picture(view({(0.55, 100.0): 2.0}, moments), [], Caption("x"))
    late_high = sound_picture(view({(1.55, 400.0): 2.0}, moments[::-1]), [], Caption("x"))
    (early_bar, early_cell), (late_bar, late_cell) = centres(early_low, 1), centres(late_high, 1)
    width = 960
    for bar, seconds in ((early_bar, 0.55), (late_bar, 1.45)):
        assert bar[1] == pytest.approx(118 + width * seconds / 2, abs=6)
    assert early_cell[1] == pytest.approx(118 + width * 0.55 / 2, abs=25)
    assert late_cell[1] == pytest.approx(118 + width * 1.55 / 2, abs=25)
    assert late_cell[0] < early_cell[0] - 100  # higher frequencies stand higher
    assert not len(coloured(early_low, -1))


def test_what_speaks_against_the_target_is_blue_and_hangs_down():
    moments = [0.0, 1.0, 0.0, -1.0]
    picture = sound_picture(view({(1.5, 200.0): -3.0}, moments), [], Caption("x"))
    (up,), (down, cell) = centres(picture, 1), centres(picture, -1)
    assert down[0] > up[0] and down[1] > up[1] and cell[0] > down[0]


def test_a_silent_map_is_drawn_too():
    picture = sound_picture(view({}, [0.0] * 4), [0.5], Caption("x"))
    assert not len(coloured(picture, 1)) and not len(coloured(picture, -1))


@pytest.mark.parametrize(
    ("least", "step"), [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (0.021, 0.05), (6.0, 10.0), (0.2, 0.2)]
)
def test_steps_are_one_two_or_five_times_a_power_of_ten(least, step):
    assert nice_step(least) == pytest.approx(step)
