"""Over how many units relevance is spread."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics.complexity import complexity, effective_complexity, sparseness
from tests.evaluation import subjects


def _case(maps: Array) -> Case:
    return subjects.make_case(np.zeros(maps.shape), subjects.linear(maps[0].size), subjects.constant(maps))


def test_even_relevance_is_complex_and_a_single_unit_simple() -> None:
    case = _case(np.asarray([[-2.0, 2.0, 2.0, -2.0], [0.0, 0.0, -3.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(complexity(case, {})["entropy"], [np.log(4), 0, np.nan])
    np.testing.assert_allclose(complexity(case, {})["relative"], [1, 0, np.nan])
    np.testing.assert_allclose(sparseness(case, {})["gini"], [0, 0.75, np.nan], atol=1e-15)
    np.testing.assert_allclose(effective_complexity(case, {"threshold": 1e-5})["units"], [4, 1, np.nan])


def test_gini_is_the_mean_difference_of_pairs() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 20))
    size = np.abs(maps)
    pairs = np.abs(size[:, :, None] - size[:, None, :]).sum(axis=(1, 2))
    np.testing.assert_allclose(sparseness(_case(maps), {})["gini"], pairs / (2 * 20**2 * size.mean(axis=1)))


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_the_threshold_is_a_share_of_the_largest(threshold: float) -> None:
    maps = np.random.default_rng(0).normal(size=(3, 20))
    counts = [sum(abs(x) > threshold * np.abs(one).max() for x in one) for one in maps]
    np.testing.assert_array_equal(effective_complexity(_case(1000 * maps), {"threshold": threshold})["units"], counts)


def test_channels_of_a_pixel_are_one_unit() -> None:
    maps = np.zeros((1, 2, 2, 2))
    maps[0, 0], maps[0, 1] = [[3, 1], [1, 1]], [[-2, 0], [0, -1]]
    case = subjects.make_case(maps, subjects.linear(8), subjects.constant(maps), units=subjects.pixels(2, 2))
    np.testing.assert_allclose(complexity(case, {})["entropy"], np.log(3))
