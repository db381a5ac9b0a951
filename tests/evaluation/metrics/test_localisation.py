"""Relevance where a person has marked the object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics.localisation import (
    localisation_auc,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from tests.evaluation import subjects

SIGNED, ABSOLUTE = {"absolute": 0.0}, {"absolute": 1.0}
TOP = {"k": 0.0, "share": 0.25, "absolute": 0.0}


def _case(maps: Array, marked: Array) -> Case:
    return subjects.make_case(
        np.zeros(maps.shape), subjects.linear(maps[0].size), subjects.constant(maps), marked=np.asarray(marked, bool)
    )


@pytest.fixture
def case() -> Case:
    return _case(np.asarray([[4.0, -6.0, 3.0, 1.0], [1.0, 2.0, -9.0, 5.0]]), np.asarray([[1, 1, 0, 0], [1, 0, 1, 0]]))


def test_numbers_by_hand(case: Case) -> None:
    np.testing.assert_array_equal(pointing_game(case, SIGNED)["hit"], [1, 0])
    np.testing.assert_array_equal(pointing_game(case, ABSOLUTE)["hit"], [1, 1])
    np.testing.assert_allclose(relevance_mass(case, SIGNED)["accuracy"], [4 / 8, 1 / 8])
    np.testing.assert_allclose(relevance_mass(case, ABSOLUTE)["accuracy"], [10 / 14, 10 / 17])
    np.testing.assert_allclose(relevance_rank(case, SIGNED)["accuracy"], [1 / 2, 0])
    np.testing.assert_allclose(relevance_rank(case, ABSOLUTE)["accuracy"], [1, 1 / 2])
    np.testing.assert_allclose(top_k_intersection(case, TOP)["share"], [1, 0])
    np.testing.assert_allclose(top_k_intersection(case, {**TOP, "k": 3})["share"], [1 / 3, 1 / 3])
    np.testing.assert_allclose(top_k_intersection(case, {**TOP, "k": 3})["weighted"], [2 / 3, 2 / 3])
    np.testing.assert_allclose(top_k_intersection(case, {**TOP, "k": 1000})["share"], [1 / 2, 1 / 2])


def test_auc_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(0)
    maps, marked = generator.integers(-3, 4, (5, 12)).astype(float), generator.random((5, 12)) < 0.4
    expected = []
    for one, mark in zip(maps, marked, strict=True):
        pairs = [(a > b) + (a == b) / 2 for a in one[mark] for b in one[~mark]]
        expected.append(np.mean(pairs))
    np.testing.assert_allclose(localisation_auc(_case(maps, marked), SIGNED)["auc"], expected)


def test_what_cannot_be_judged(case: Case) -> None:
    nothing = replace(case, marked=np.zeros((2, 4), bool))
    everything = replace(case, marked=np.ones((2, 4), bool))
    for measure in (pointing_game, relevance_mass, relevance_rank, localisation_auc):
        assert all(np.isnan(numbers).all() for numbers in measure(nothing, SIGNED).values())
    assert np.isnan(localisation_auc(everything, SIGNED)["auc"]).all()
    flat = _case(np.zeros((2, 4)), np.asarray([[1, 1, 0, 0]] * 2))
    assert np.isnan(pointing_game(flat, SIGNED)["hit"]).all()
    assert np.isnan(relevance_mass(flat, SIGNED)["accuracy"]).all()
    with pytest.raises(UsageError, match="boxes or masks"):
        pointing_game(replace(case, marked=None), SIGNED)


def test_a_unit_is_marked_where_half_of_it_is() -> None:
    maps = np.asarray([[[1.0, 1.0, 5.0, 5.0, 2.0, 2.0]]])
    case = subjects.make_case(
        maps,
        subjects.linear(6),
        subjects.constant(maps),
        units=np.asarray([[0, 0, 1, 1, 2, 2]]),
        marked=np.asarray([[[True, True, False, True, False, False]]]),
    )
    np.testing.assert_allclose(relevance_mass(case, SIGNED)["accuracy"], [12 / 16])
