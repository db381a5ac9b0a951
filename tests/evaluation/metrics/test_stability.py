"""Stability under noise, against loops over the disturbed variants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics.stability import local_lipschitz, noise, relative_stability, sensitivity
from tests.evaluation import subjects

SETTINGS = {"runs": 6.0, "radius": 0.5, "relative": 1.0}


@pytest.fixture
def case() -> Case:
    return subjects.make_case(subjects.images(4), subjects.two_layer(32), targets=np.asarray([0, 1, 2, 0]))


def _of(case: Case, row: int, value: Array) -> tuple[Array, Array]:
    at = np.asarray([row])
    return case.method.maps(value[None], case.targets[at], at)[0], case.subject.scores(value[None], at)[0]


def test_against_a_loop(case: Case) -> None:
    change, stability = (measure(case, SETTINGS) for measure in (sensitivity, relative_stability))
    slope, scaled = (local_lipschitz(case, {**SETTINGS, "normalise": normalise}) for normalise in (0, 1))
    left_out = 0
    for row in range(4):
        value = case.values[row]
        own, scores = _of(case, row, value)
        changes, slopes, scaled_slopes, by_input, by_output = [], [], [], [], []
        for added in noise(case, row, SETTINGS):
            other, others = _of(case, row, value + added)
            changes.append(np.linalg.norm(other - own) / np.linalg.norm(own))
            slopes.append(np.linalg.norm(other - own) / np.linalg.norm(added))
            scaled_change = other / np.abs(other).max() - own / np.abs(own).max()
            scaled_slopes.append(np.linalg.norm(scaled_change) / np.linalg.norm(added))
            if others.argmax() != scores.argmax():
                left_out += 1
                continue
            moved = np.linalg.norm((other - own) / own)
            by_input.append(moved / np.linalg.norm(added / value))
            by_output.append(moved / np.linalg.norm(others - scores))
        np.testing.assert_allclose([change["maximum"][row], change["average"][row]], [max(changes), np.mean(changes)])
        np.testing.assert_allclose(slope["constant"][row], max(slopes))
        np.testing.assert_allclose(scaled["constant"][row], max(scaled_slopes))
        np.testing.assert_allclose([stability["input"][row], stability["output"][row]], [max(by_input), max(by_output)])
    assert left_out, "no variant with another prediction: the test shows less than it should"


def test_maps_that_never_change_are_stable(case: Case) -> None:
    fixed = replace(case, method=subjects.constant(case.values)(case.subject))
    for measure in (sensitivity, local_lipschitz, relative_stability):
        for name, numbers in measure(fixed, {**SETTINGS, "normalise": 1}).items():
            np.testing.assert_array_equal(numbers, 0, err_msg=name)


def test_the_constant_of_a_linear_map_is_its_largest_weight_at_most() -> None:
    """Gradient x input of a linear model stretches noise by its weights."""
    case = subjects.make_case(
        np.random.default_rng(0).normal(size=(3, 1)), subjects.Linear(np.asarray([[2.5, -1.0]]), np.zeros(2))
    )
    np.testing.assert_allclose(local_lipschitz(case, {**SETTINGS, "relative": 0, "normalise": 0})["constant"], 2.5)


def test_noise_is_relative_to_the_sample_unless_it_is_not(case: Case) -> None:
    large = replace(case, values=case.values * 100)
    np.testing.assert_allclose(noise(large, 0, SETTINGS), noise(case, 0, SETTINGS) * 100)
    absolute = {**SETTINGS, "relative": 0, "runs": 500}
    np.testing.assert_array_equal(noise(large, 0, absolute), noise(case, 0, absolute))
    assert 0.49 < np.abs(noise(case, 0, absolute)).max() <= 0.5


def test_padding_gets_no_noise(case: Case) -> None:
    units = case.units.copy()
    units[:, :, 3] = -1
    added = noise(replace(case, units=units), 0, SETTINGS)
    assert np.all(added[..., 3] == 0)
    assert np.all(added[..., :3] != 0)


def test_a_map_of_zeros_has_no_sensitivity(case: Case) -> None:
    nothing = replace(case, method=subjects.constant(np.zeros(case.values.shape))(case.subject))
    assert np.all(np.isnan(sensitivity(nothing, SETTINGS)["maximum"]))
