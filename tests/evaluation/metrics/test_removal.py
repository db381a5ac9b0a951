"""Removal in the order of relevance, against loops that remove one unit at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics.removal import deletion, insertion, monotonicity, pixel_flipping, sufficiency
from onnxlrp.evaluation.smoothing import blurred
from tests.evaluation import subjects

STEPS = {"steps": 16.0, "probability": 0.0}


@pytest.fixture
def case() -> Case:
    """Two-layer network, four images, pixels as units, another baseline than 0."""
    values = subjects.images(4)
    return subjects.make_case(
        values,
        subjects.two_layer(32),
        units=subjects.pixels(2, 4),
        baseline=np.asarray([0.5, -0.2]).reshape(1, 2, 1, 1),
        targets=np.asarray([0, 1, 2, 1]),
    )


def _order(case: Case, row: int) -> list[int]:
    """Pixels from most to least relevant."""
    one = case.method.maps(case.values[row : row + 1], case.targets[row : row + 1], np.asarray([row]))[0]
    sums = {pixel: one[:, pixel // 4, pixel % 4].sum() for pixel in range(16)}
    return sorted(sums, key=lambda pixel: -sums[pixel])


def _scores(case: Case, row: int, gone: Iterable[int], empty: Array | None = None) -> Array:
    """All scores of a sample whose pixels `gone` are empty."""
    image = case.values[row].copy()
    replacement = np.broadcast_to(case.baseline, case.values.shape)[row] if empty is None else empty
    for pixel in gone:
        image[:, pixel // 4, pixel % 4] = replacement[:, pixel // 4, pixel % 4]
    return case.subject.scores(image[None], np.asarray([row]))[0]


def _chance(scores: Array, target: int) -> float:
    return float(np.exp(scores[target]) / np.exp(scores).sum())


def _trapezoid(numbers: list[float]) -> float:
    return sum((a + b) / 2 for a, b in itertools.pairwise(numbers)) / (len(numbers) - 1)


@pytest.mark.parametrize("probability", [0, 1])
def test_pixel_flipping(case: Case, probability: int) -> None:
    parts = pixel_flipping(case, {"steps": 16, "probability": probability})
    for row in range(4):
        target, order = case.targets[row], _order(case, row)
        curves = []
        for one in (order, order[::-1]):
            scores = [_scores(case, row, one[:count]) for count in range(17)]
            curves.append([_chance(s, target) if probability else float(s[target]) for s in scores])
        np.testing.assert_allclose(parts["morf-curve"][row], curves[0])
        np.testing.assert_allclose(parts["lerf-curve"][row], curves[1])
        most, least = map(_trapezoid, curves)
        np.testing.assert_allclose(
            [parts[name][row] for name in ("morf", "lerf", "between")], [most, least, least - most]
        )


def test_steps_take_several_units_away(case: Case) -> None:
    fine, coarse = (pixel_flipping(case, {**STEPS, "steps": steps})["morf-curve"] for steps in (16, 4))
    np.testing.assert_allclose(coarse, fine[:, ::4])


def test_exact_relevance_of_a_linear_model_removes_best() -> None:
    """No order lowers the score of a linear model faster than that of x w."""
    values = subjects.images(5)
    exact = subjects.make_case(values, subjects.linear(32))
    best = pixel_flipping(exact, {**STEPS, "steps": 32})
    np.testing.assert_array_less(np.diff(np.diff(best["lerf-curve"], axis=1), axis=1), 1e-9)
    for seed in range(5):
        random = subjects.constant(subjects.images(5, seed=seed))
        other = pixel_flipping(replace(exact, method=random(exact.subject)), {**STEPS, "steps": 32})
        assert np.all(best["morf"] < other["morf"])
        assert np.all(best["between"] > other["between"])


def test_deletion_and_insertion(case: Case) -> None:
    gone = deletion(case, {"steps": 16})
    put = insertion(case, {"steps": 16, "blur": 0})
    soft = insertion(case, {"steps": 16, "blur": 0.7})
    for row in range(4):
        target, order = case.targets[row], _order(case, row)
        empty = blurred(case.values[row], 0.7)
        for parts, scores in (
            (gone, [_scores(case, row, order[:count]) for count in range(17)]),
            (put, [_scores(case, row, order[count:]) for count in range(17)]),
            (soft, [_scores(case, row, order[count:], empty) for count in range(17)]),
        ):
            np.testing.assert_allclose(parts["logit"][row], _trapezoid([float(s[target]) for s in scores]))
            np.testing.assert_allclose(parts["probability"][row], _trapezoid([_chance(s, target) for s in scores]))


def test_only_images_are_blurred() -> None:
    case = subjects.make_case(np.ones((2, 6)), subjects.linear(6))
    with pytest.raises(UsageError, match="insertion with blur needs images"):
        insertion(case, {"steps": 4, "blur": 5})


def test_sufficiency_and_comprehensiveness(case: Case) -> None:
    parts = sufficiency(case, {})
    for row in range(4):
        target, order = case.targets[row], _order(case, row)
        whole = _chance(_scores(case, row, []), target)
        alone = [whole - _chance(_scores(case, row, order[count:]), target) for count in (1, 1, 2, 4, 8)]
        without = [whole - _chance(_scores(case, row, order[:count]), target) for count in (1, 1, 2, 4, 8)]
        np.testing.assert_allclose(parts["sufficiency"][row], np.mean(alone))
        np.testing.assert_allclose(parts["comprehensiveness"][row], np.mean(without))


def test_monotonicity(case: Case) -> None:
    parts = monotonicity(case, STEPS)
    for row in range(4):
        added = _order(case, row)[::-1]
        scores = [_scores(case, row, added[count:])[case.targets[row]] for count in range(17)]
        share = np.mean([b >= a for a, b in itertools.pairwise(scores)])
        np.testing.assert_allclose([parts["share"][row], parts["monotone"][row]], [share, share == 1])


def test_a_linear_model_with_positive_terms_is_monotone() -> None:
    subject = subjects.Linear(np.abs(subjects.linear(6).weights), np.zeros(3))
    case = subjects.make_case(np.abs(np.random.default_rng(0).normal(size=(3, 6))), subject)
    np.testing.assert_array_equal(monotonicity(case, STEPS)["monotone"], 1)
