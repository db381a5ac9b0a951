"""What a map predicts for random subsets, against a loop over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.metrics.subsets import faithfulness_correlation, infidelity, subsets
from onnxlrp.evaluation.removal import units
from tests.evaluation import subjects

SETTINGS = {"runs": 12.0, "share": 0.3, "multiply": 0.0, "probability": 0.0}


@pytest.fixture
def case() -> Case:
    return subjects.make_case(
        subjects.images(3),
        subjects.two_layer(32),
        units=subjects.pixels(2, 4),
        baseline=np.asarray(0.4),
        targets=np.asarray([2, 1, 0]),
    )


def _losses(case: Case, row: int, multiply: bool) -> tuple[list[float], list[float]]:
    """Predicted and actual losses of the subsets of a sample."""
    value, target = case.values[row], case.targets[row]
    at = np.asarray([row])
    relevance = case.method.maps(value[None], case.targets[at], at)[0]
    predicted, lost = [], []
    for gone in subsets(case, row, units(case)[row], SETTINGS):
        image = value.copy()
        for pixel in np.flatnonzero(gone):
            image[:, pixel // 4, pixel % 4] = 0.4
        predicted.append(float(np.sum(relevance * (value - image) if multiply else relevance * (image != value))))
        lost.append(float((case.subject.scores(value[None], at) - case.subject.scores(image[None], at))[0, target]))
    return predicted, lost


@pytest.mark.parametrize("multiply", [False, True])
def test_infidelity_and_correlation(case: Case, multiply: bool) -> None:
    settings = {**SETTINGS, "multiply": float(multiply)}
    parts = infidelity(case, settings)
    correlation = faithfulness_correlation(case, settings)["correlation"]
    for row in range(3):
        predicted, lost = map(np.asarray, _losses(case, row, multiply))
        np.testing.assert_allclose(parts["infidelity"][row], np.mean((predicted - lost) ** 2))
        np.testing.assert_allclose(correlation[row], np.corrcoef(predicted, lost)[0, 1])
        factors = np.linspace(-5, 5, 100_001)[:, None]
        least = ((factors * predicted - lost) ** 2).mean(axis=1).min()
        np.testing.assert_allclose(parts["scaled"][row], least / np.mean(lost**2), rtol=1e-6)


def test_exact_relevance_of_a_linear_model_predicts_every_loss() -> None:
    case = subjects.make_case(subjects.images(3), subjects.linear(32))
    parts = infidelity(case, SETTINGS)
    np.testing.assert_allclose(parts["infidelity"], 0, atol=1e-20)
    np.testing.assert_allclose(parts["scaled"], 0, atol=1e-20)
    np.testing.assert_allclose(faithfulness_correlation(case, SETTINGS)["correlation"], 1)
    wrong = replace(
        case, method=subjects.constant(-3 * case.method.maps(case.values, case.targets, case.rows))(case.subject)
    )
    np.testing.assert_allclose(infidelity(wrong, SETTINGS)["scaled"], 0, atol=1e-20)
    np.testing.assert_allclose(faithfulness_correlation(wrong, SETTINGS)["correlation"], -1)


def test_the_gradient_of_a_linear_model_predicts_every_loss_when_multiplied() -> None:
    subject = subjects.linear(32)
    gradient = subjects.Attributes(subject.gradients)
    case = subjects.make_case(subjects.images(3), subject, lambda _: gradient, baseline=np.asarray(-0.7))
    np.testing.assert_allclose(infidelity(case, {**SETTINGS, "multiply": 1})["infidelity"], 0, atol=1e-20)


def test_subsets_have_the_share_or_a_random_size(case: Case) -> None:
    unit = units(case)[0]
    assert set(subsets(case, 0, unit, SETTINGS).sum(axis=1)) == {5}
    assert set(subsets(case, 0, unit, {**SETTINGS, "share": 1e-9}).sum(axis=1)) == {1}
    sizes = subsets(case, 0, unit, {**SETTINGS, "share": 0, "runs": 2000}).sum(axis=1)
    assert set(sizes) == set(range(1, 17))
    shares = subsets(case, 0, unit, {**SETTINGS, "runs": 4000}).mean(axis=0)
    np.testing.assert_allclose(shares, 5 / 16, atol=0.03)


def test_token_ids_cannot_be_multiplied() -> None:
    case = subjects.make_case(
        np.asarray([[1, 2]]), subjects.Tokens(np.ones((3, 2))), subjects.constant(np.ones((1, 2)))
    )
    with pytest.raises(UsageError, match="real numbers"):
        infidelity(case, {**SETTINGS, "multiply": 1})
