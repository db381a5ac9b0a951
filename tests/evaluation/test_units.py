"""Units and what is taken away becomes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.sample import Layout
from onnxlrp.evaluation.units import baselines, check_fill, unit_side, units

PICTURE, TOKENS, FEATURES = Layout(1, 2, 0), Layout(is_token=True, mask_token=9), Layout(means=np.array([1.0, 2.0]))


def test_small_pictures_are_taken_apart_by_pixels_and_large_ones_by_squares() -> None:
    assert [unit_side(PICTURE, (3, n, n), None) for n in (28, 64, 224)] == [1, 1, 16]
    assert unit_side(PICTURE, (3, 28, 28), 4) == 4
    assert unit_side(FEATURES, (2,), None) == 1


def test_squares_go_through_all_channels_and_those_at_the_edge_may_be_smaller() -> None:
    found = units(PICTURE, (2, 3, 5), 2)
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert found.tolist() == [expected, expected]


def test_other_data_has_a_unit_for_each_element() -> None:
    assert units(FEATURES, (2, 3), 1).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_taken_away_becomes_what_fits_the_data() -> None:
    assert [check_fill(None, one) for one in (PICTURE, TOKENS, FEATURES, Layout())] == ["zero", "mask", "mean", "zero"]
    values = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    assert not baselines("zero", values, PICTURE).any()
    assert (baselines("0.5", values, PICTURE) == 0.5).all()
    means = baselines("mean", values, PICTURE)
    assert means[1, 2] == pytest.approx(np.full((8, 8), values[1, 2].mean()), abs=1e-6)
    assert baselines("mean", np.zeros((3, 2)), FEATURES).tolist() == [[1.0, 2.0]] * 3
    assert baselines("mask", np.zeros((1, 3), np.int64), TOKENS).tolist() == [[9, 9, 9]]
    assert baselines("7", np.zeros((1, 3), np.int64), TOKENS).tolist() == [[7, 7, 7]]


def test_a_blurred_picture_keeps_its_mean_and_loses_its_edges() -> None:
    values = np.zeros((1, 1, 40, 40), np.float32)
    values[..., 20:] = 4.0
    soft = baselines("blur", values, PICTURE)
    assert soft.mean() == pytest.approx(2.0, abs=0.05)
    assert np.abs(np.diff(soft[0, 0, 20])).max() < 1.0


@pytest.mark.parametrize(
    ("fill", "layout", "said"),
    [
        ("mask", PICTURE, "it has no tokens"),
        ("zero", TOKENS, "the mask token"),
        ("blur", FEATURES, "pictures only"),
        ("grey", PICTURE, "none of zero, mean, blur, mask and no number"),
    ],
)
def test_a_fill_that_does_not_fit_is_refused(fill: str, layout: Layout, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_fill(fill, layout)


def test_a_unit_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="has no pictures"):
        unit_side(FEATURES, (2,), 4)
    with pytest.raises(UsageError, match="larger than the picture of 28"):
        unit_side(PICTURE, (1, 28, 28), 29)


@pytest.mark.parametrize(("layout", "shape"), [(Layout(0, 1, 2), (5, 4, 6, 3)), (Layout(0, 1), (5, 4, 6))])
def test_metrics_see_pictures_with_their_channels_first(layout: Layout, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    first = layout.to_channels_first(values)
    assert first.shape == (5, shape[3] if len(shape) == 4 else 1, 4, 6)
    assert np.array_equal(layout.from_channels_first(first), values)
