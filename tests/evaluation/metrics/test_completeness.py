"""The sum of a map and what it should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.metrics.completeness import completeness
from tests.evaluation import subjects


@pytest.fixture
def case() -> Case:
    subject = replace(subjects.linear(32), bias=np.asarray([0.5, -2.0, 0.0]))
    return subjects.make_case(subjects.images(3), subject, targets=np.asarray([0, 1, 2]))


def test_exact_relevance_lacks_the_bias_of_the_score_and_nothing_of_the_difference(case: Case) -> None:
    parts = completeness(case, {"relative": 0})
    np.testing.assert_allclose(parts["score"], [0.5, 2.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(parts["difference"], 0, atol=1e-12)


def test_errors_in_shares_of_what_should_be_there(case: Case) -> None:
    maps = case.method.maps(case.values, case.targets, case.rows)
    half = replace(case, method=subjects.constant(maps / 2)(case.subject))
    np.testing.assert_allclose(completeness(half, {"relative": 1})["difference"], 0.5)
    scores = case.subject.scores(case.values, case.rows)[case.rows, case.targets]
    sums = maps.reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(
        completeness(half, {"relative": 1})["score"], np.abs(sums / 2 - scores) / np.abs(scores), rtol=1e-9
    )


def test_padding_is_not_taken_away(case: Case) -> None:
    units = case.units.copy()
    units[1] = -1
    kept = replace(case, units=units, baseline=np.asarray(9.0))
    changed = case.values.copy()
    changed[:, 0] = 9
    lost = case.subject.scores(case.values, case.rows) - case.subject.scores(changed, case.rows)
    sums = case.method.maps(case.values, case.targets, case.rows).reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(
        completeness(kept, {"relative": 0})["difference"], np.abs(sums - lost[case.rows, case.targets])
    )


def test_what_should_be_nothing_has_no_relative_error() -> None:
    case = subjects.make_case(np.zeros((2, 4)), replace(subjects.linear(4), bias=np.zeros(3)))
    assert np.isnan(completeness(case, {"relative": 1})["score"]).all()
