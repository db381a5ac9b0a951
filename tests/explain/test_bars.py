"""Bars: their order, their lengths and their colours."""

from __future__ import annotations

import numpy as np

from onnxlrp.explain.bars import MOST, Bar, bars_picture, ranked
from onnxlrp.explain.page import Caption


def test_the_most_relevant_feature_comes_first_whatever_its_sign():
    bars = [Bar("a", "1", 0.5), Bar("b", "2", -2.0), Bar("c", "3", 1.0)]
    assert [bar.name for bar in ranked(bars)] == ["b", "c", "a"]


def test_features_beyond_share_one_bar_with_their_sum():
    bars = [Bar(str(i), "", float(100 - i)) for i in range(MOST + 5)]
    shown = ranked(bars)
    assert len(shown) == MOST and shown[:-1] == bars[: MOST - 1]
    assert shown[-1] == Bar("6 other features together", "", float(sum(100 - i for i in range(MOST - 1, MOST + 5))))


def widths(bars: list[Bar]) -> list[tuple[int, int]]:
    """Width of the red and the blue part in each row of bars, found by colour."""
    pixels = np.asarray(bars_picture(bars, Caption("x", "y"))).astype(int)
    red = (pixels[:, :, 0] > 120) & (pixels[:, :, 1] < 80)
    blue = (pixels[:, :, 2] > 110) & (pixels[:, :, 0] < 80)
    rows = np.flatnonzero((red | blue).sum(axis=1) > 3)
    groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if rows.size else []
    return [(int(red[group].sum(axis=1).max()), int(blue[group].sum(axis=1).max())) for group in groups]


def test_lengths_are_in_proportion_and_colours_tell_the_sign():
    (red, none), (nothing, blue), (half, _) = widths([Bar("a", "", 4.0), Bar("b", "", -3.0), Bar("c", "", 1.0)])
    assert none == nothing == 0
    assert abs(blue / red - 3 / 4) < 0.02 and abs(half / red - 1 / 4) < 0.02


def test_a_row_of_zeros_and_a_very_long_name_are_drawn():
    assert widths([Bar("a", "", 0.0)]) == []
    wide = bars_picture([Bar("long " * 60, "value", 1.0)], Caption("x"))
    assert wide.size == bars_picture([Bar("a", "1", 1.0)], Caption("x")).size
