"""Removal of square regions, against loops over the regions."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics.regions import irof, region_perturbation, selectivity
from tests.evaluation import subjects

SIZE = 2
Square = tuple[slice, slice]


@pytest.fixture
def case() -> Case:
    """Images of 5 x 5 pixels: nine regions, those at two edges smaller."""
    values = subjects.images(3, size=5)
    return subjects.make_case(values, subjects.two_layer(50), targets=np.asarray([0, 1, 2]), baseline=np.asarray(0.3))


def _squares(case: Case, row: int, mean: bool = False) -> list[Square]:
    """From most to least relevant."""
    one = case.method.maps(case.values[row : row + 1], case.targets[row : row + 1], np.asarray([row]))[0]
    every = [(slice(y, y + SIZE), slice(x, x + SIZE)) for y in range(0, 5, SIZE) for x in range(0, 5, SIZE)]
    relevance = {k: (np.mean if mean else np.sum)(one[(slice(None), *square)]) for k, square in enumerate(every)}
    return [every[k] for k in sorted(relevance, key=lambda k: -relevance[k])]


def _curve(case: Case, row: int, squares: list[Square], probability: bool, empty: Array) -> list[float]:
    image = case.values[row].copy()
    found = []
    for square in (None, *squares):
        if square is not None:
            image[(slice(None), *square)] = empty[(slice(None), *square)]
        scores = case.subject.scores(image[None], np.asarray([row]))[0]
        chances = np.exp(scores) / np.exp(scores).sum()
        found.append(float((chances if probability else scores)[case.targets[row]]))
    return found


@pytest.mark.parametrize(("regions", "noise", "probability"), [(100, 0, 0), (4, 0, 1), (4, 1, 0)])
def test_region_perturbation(case: Case, regions: int, noise: int, probability: int) -> None:
    settings = {"size": SIZE, "regions": regions, "noise": noise, "probability": probability}
    parts = region_perturbation(case, settings)
    for row in range(3):
        image = case.values[row]
        drawn = case.generator(row).uniform(image.min(), image.max(), image.shape)
        empty = drawn if noise else np.full(image.shape, 0.3)
        squares = _squares(case, row)
        drops = []
        for order in (squares, squares[::-1]):
            curve = _curve(case, row, order[:regions], bool(probability), empty)
            drops.append(np.mean([curve[0] - score for score in curve]))
        expected = [drops[0], drops[1], drops[0] - drops[1]]
        np.testing.assert_allclose([parts[name][row] for name in ("morf", "lerf", "between")], expected)


def test_selectivity_and_irof(case: Case) -> None:
    empty = np.full((2, 5, 5), 0.3)
    area = selectivity(case, {"size": SIZE, "probability": 0})["area"]
    over = irof(case, {"size": SIZE})["area-over"]
    for row in range(3):
        curve = _curve(case, row, _squares(case, row), False, empty)
        np.testing.assert_allclose(area[row], np.trapezoid(curve) / 9)
        curve = _curve(case, row, _squares(case, row, mean=True), True, empty)
        np.testing.assert_allclose(over[row], 1 - np.trapezoid(np.asarray(curve) / curve[0]) / 9)


@pytest.mark.parametrize("measure", [region_perturbation, selectivity, irof])
def test_only_images_have_regions(measure: object) -> None:
    case = subjects.make_case(np.ones((2, 6)), subjects.linear(6))
    with pytest.raises(UsageError, match=r"needs images .* the explained input has the shape \[6\]"):
        measure(case, {"size": 2, "regions": 1, "noise": 0, "probability": 0})  # type: ignore[operator]
