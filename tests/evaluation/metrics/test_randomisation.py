"""Maps of randomised models and of other classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.metrics.randomisation import (
    efficient_randomisation,
    other_class,
    parameter_randomisation,
    random_logit,
)
from onnxlrp.evaluation.similarity import spearman, structural_similarity
from tests.evaluation import subjects

SETTINGS = {"steps": 4.0, "absolute": 0.0, "seed": 3.0}


@pytest.fixture
def case() -> Case:
    return subjects.make_case(subjects.images(5, channels=2, size=8), subjects.two_layer(128))


def test_parameter_randomisation(case: Case) -> None:
    parts = parameter_randomisation(case, SETTINGS)
    own = case.method.maps(case.values, case.targets, case.rows)
    correlations, similarities = [], []
    for depth in (1, 2):
        method = case.make(case.subject.randomised(depth, 3))
        other = method.maps(case.values, case.targets, case.rows)
        correlations.append([spearman(a.ravel(), b.ravel()) for a, b in zip(own, other, strict=True)])
        similarities.append(structural_similarity(own.sum(axis=1), other.sum(axis=1)))
    np.testing.assert_allclose(parts["correlation"], np.mean(correlations, axis=0))
    np.testing.assert_allclose(parts["correlation-all"], correlations[-1])
    np.testing.assert_allclose(parts["ssim"], np.mean(similarities, axis=0))
    np.testing.assert_allclose(parts["ssim-all"], similarities[-1])
    np.testing.assert_allclose(parts["correlation-curve"], [[1, a, b] for a, b in zip(*correlations, strict=True)])
    assert np.all(parts["correlation-all"] < 0.9)


def test_a_map_that_does_not_look_at_the_model_fails(case: Case) -> None:
    """An edge detector is the example of Adebayo et al."""
    edges = subjects.Attributes(lambda values, targets, rows: np.abs(np.diff(values, axis=-1, append=0)))
    parts = parameter_randomisation(replace(case, make=lambda subject: edges, method=edges), SETTINGS)
    for name in ("correlation", "correlation-all", "ssim", "ssim-all"):
        np.testing.assert_allclose(parts[name], 1)


def test_one_step_randomises_everything(case: Case) -> None:
    one, four = (parameter_randomisation(case, {**SETTINGS, "steps": steps}) for steps in (1, 4))
    np.testing.assert_array_equal(one["correlation"], four["correlation-all"])


def test_what_is_compared_may_be_absolute(case: Case) -> None:
    flipped = replace(case, make=lambda subject: subjects.Attributes(lambda values, targets, rows: -values))
    flipped = replace(flipped, method=subjects.Attributes(lambda values, targets, rows: values))
    np.testing.assert_allclose(parameter_randomisation(flipped, SETTINGS)["correlation"], -1)
    np.testing.assert_allclose(parameter_randomisation(flipped, {**SETTINGS, "absolute": 1})["correlation"], 1)


def test_a_model_without_layers(case: Case) -> None:
    class Bare:
        layers = 0

    for measure in (parameter_randomisation, efficient_randomisation):
        with pytest.raises(UsageError, match="weighted layers, of which the model has none"):
            measure(replace(case, subject=Bare()), {**SETTINGS, "bins": 10})  # type: ignore[arg-type]


def test_the_rise_of_complexity(case: Case) -> None:
    found = efficient_randomisation(case, {"bins": 20, "seed": 3})["rise"]
    methods = (case.method, case.make(case.subject.randomised(2, 3)))
    entropies = []
    for method in methods:
        row = []
        for one in method.maps(case.values, case.targets, case.rows):
            edges = np.linspace(one.min(), one.max(), 21)
            place = np.clip(np.searchsorted(edges, one.ravel(), side="right") - 1, 0, 19)
            shares = [np.mean(place == k) for k in range(20)]
            row.append(-sum(share * np.log(share) for share in shares if share))
        entropies.append(np.asarray(row))
    np.testing.assert_allclose(found, (entropies[1] - entropies[0]) / entropies[0], rtol=1e-9)


def test_random_logit(case: Case) -> None:
    parts = random_logit(case, {"absolute": 0})
    others = np.asarray([other_class(case, row, 3) for row in range(5)])
    assert np.all(others != case.targets)
    own, other = (case.method.maps(case.values, classes, case.rows) for classes in (case.targets, others))
    np.testing.assert_allclose(
        parts["correlation"], [spearman(a.ravel(), b.ravel()) for a, b in zip(own, other, strict=True)]
    )
    np.testing.assert_allclose(parts["ssim"], structural_similarity(own.sum(axis=1), other.sum(axis=1)))


def test_other_classes_are_equally_likely(case: Case) -> None:
    many = replace(case, targets=np.full(5, 1), seeds=np.arange(5, dtype=np.uint64))
    drawn = [other_class(replace(many, seeds=many.seeds + 5 * run), row, 3) for run in range(200) for row in range(5)]
    assert set(drawn) == {0, 2}
    assert abs(np.mean(np.asarray(drawn) == 2) - 0.5) < 0.06
    assert other_class(many, 0, 1) == 1
