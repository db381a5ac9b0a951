"""The metrics of quantus 0.6.0 on the same maps of the same network.

quantus computes in float32 and takes single elements as units; images here have one channel, so that pixels are
elements. Where the two differ on purpose, the test says how, and so does the metric's docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from quantus.helpers.model.pytorch_model import PyTorchModel
from skimage.metrics import structural_similarity as reference

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics import (
    completeness,
    complexity,
    localisation,
    neighbours,
    randomisation,
    regions,
    removal,
    stability,
    subsets,
)
from onnxlrp.evaluation.removal import units
from onnxlrp.evaluation.similarity import structural_similarity
from tests.evaluation import subjects

SIZE, SAMPLES, CLASSES = 8, 6, 3
QUIET = {
    "disable_warnings": True,
    "display_progressbar": False,
    "return_aggregate": False,
    "abs": False,
    "normalise": False,
}
#: By default quantus fills in the smallest value of each sample.
EMPTY = {**QUIET, "perturb_baseline": 0.0}
PROBABILITY = {"probability": 1.0}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _numpy_before_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """quantus calls np.trapz, which numpy 2.4 no longer has."""
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)


@pytest.fixture
def case() -> Case:
    values = subjects.images(SAMPLES, channels=1, size=SIZE)
    marked = np.random.default_rng(1).random(values.shape) < 0.3
    return subjects.make_case(
        values,
        subjects.two_layer(SIZE * SIZE, CLASSES),
        units=subjects.pixels(1, SIZE),
        targets=np.arange(SAMPLES) % CLASSES,
        marked=marked,
    )


def _network(subject: subjects.TwoLayer) -> torch.nn.Module:
    """The same two layers in torch."""
    layers = []
    for one in (subject.first, subject.second):
        layer = torch.nn.Linear(*one.weights.shape)
        layer.weight.data, layer.bias.data = (torch.tensor(x, dtype=torch.float32) for x in (one.weights.T, one.bias))
        layers.append(layer)
    return torch.nn.Sequential(torch.nn.Flatten(), layers[0], torch.nn.ReLU(), layers[1]).eval()


def _maps(case: Case) -> Array:
    return case.method.maps(case.values, case.targets, case.rows)


def _explain(case: Case) -> Callable[..., Array]:
    """The case's method as quantus calls one; maps do not depend on the row."""

    def explain(model: Any, inputs: Array, targets: Array, **_: Any) -> Array:
        values = np.asarray(inputs, np.float64).reshape(-1, *case.values.shape[1:])
        return case.method.maps(values, np.asarray(targets), np.zeros(len(values), np.int64))

    return explain


def _quantus(metric: Any, case: Case, **others: Any) -> Any:
    arguments = {
        "model": _network(case.subject),  # type: ignore[arg-type]
        "x_batch": case.values.astype(np.float32),
        "y_batch": case.targets,
        "a_batch": _maps(case),
        "s_batch": case.marked,
        "channel_first": True,
        "explain_func": _explain(case),
        "device": "cpu",
        **others,
    }
    return np.asarray(metric(**arguments))


def _close(found: Array, expected: Array, tolerance: float = 2e-4) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("probability", [False, True])
def test_pixel_flipping(case: Case, probability: bool) -> None:
    curve = _quantus(quantus.PixelFlipping(features_in_step=4, **EMPTY), case, softmax=probability)
    found = removal.pixel_flipping(case, {"steps": 16, "probability": probability})
    _close(found["morf-curve"][:, 1:], curve)
    area = _quantus(quantus.PixelFlipping(features_in_step=1, return_auc_per_sample=True, **EMPTY), case)
    _close(np.trapezoid(removal.deletion(case, {"steps": 64})["probability-curve"][:, 1:], axis=1), area)


@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_region_perturbation(case: Case, order: str) -> None:
    drops = _quantus(quantus.RegionPerturbation(patch_size=2, order=order, regions_evaluation=10, **EMPTY), case)
    found = regions.region_perturbation(case, {"size": 2, "regions": 10, "noise": 0, **PROBABILITY})
    _close(found[order], drops.sum(axis=1) / 11)


def test_selectivity(case: Case) -> None:
    curve = _quantus(quantus.Selectivity(patch_size=4, **EMPTY), case)
    whole = np.exp(case.subject.scores(case.values, case.rows))
    start = (whole / whole.sum(axis=1, keepdims=True))[case.rows, case.targets]
    found = regions.selectivity(case, {"size": 4, **PROBABILITY})["area"]
    _close(found, np.trapezoid(np.column_stack([start, curve]), axis=1) / 4)


def test_irof(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With squares instead of superpixels; quantus sums from the first removal on, here it is the mean from none on."""
    grid = np.arange(SIZE)[:, None] // 4 * 2 + np.arange(SIZE) // 4
    monkeypatch.setattr(quantus.helpers.utils, "get_superpixel_segments", lambda **_: grid)
    over = _quantus(quantus.IROF(**EMPTY), case)
    found = regions.irof(case, {"size": 4})["area-over"]
    whole = _shares(case, grid)
    _close(over, 4 - np.trapezoid(whole[:, 1:], axis=1))
    _close(found, 1 - np.trapezoid(whole, axis=1) / 4)


def _shares(case: Case, grid: Array) -> Array:
    """p(without k squares) / p, [n, 5], squares by mean relevance."""
    shares = []
    for row, one in enumerate(_maps(case)):
        image, found = case.values[row].copy(), []
        for square in (None, *np.argsort([-one[:, grid == k].mean() for k in range(4)])):
            if square is not None:
                image[:, grid == square] = 0
            scores = np.exp(case.subject.scores(image[None], np.asarray([row]))[0])
            found.append(scores[case.targets[row]] / scores.sum())
        shares.append(np.asarray(found) / found[0])
    return np.asarray(shares)


def test_faithfulness_correlation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"runs": 20, "share": 0.25, "multiply": 0, "probability": 0}
    of = units(case)
    drawn = [subsets.subsets(case, row, of[row], settings) for row in range(SAMPLES)]
    calls = iter([np.flatnonzero(drawn[row][run]) for run in range(20) for row in range(SAMPLES)])
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(calls))
    correlation = _quantus(quantus.FaithfulnessCorrelation(nr_runs=20, subset_size=16, **EMPTY), case)
    _close(subsets.faithfulness_correlation(case, settings)["correlation"], correlation, 2e-3)


def test_infidelity(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """quantus removes squares in rows, one after another; given these subsets, the numbers are the same."""
    gradients = subjects.Attributes(case.subject.gradients)
    case = replace(case, method=gradients)
    expected = _quantus(quantus.Infidelity(perturb_patch_sizes=[4], n_perturb_samples=1, **EMPTY), case)
    grid = (np.arange(SIZE)[:, None] // 4 * 2 + np.arange(SIZE) // 4).reshape(-1)
    monkeypatch.setattr(subsets, "subsets", lambda *_: grid <= np.arange(4)[:, None])
    _close(subsets.infidelity(case, {"multiply": 1, "probability": 0})["infidelity"], expected)


def test_monotonicity_of_quantus_is_true_of_every_map(case: Case) -> None:
    """It removes from a sample that is empty already, which is why the numbers are not compared."""
    for sign in (1, -1):
        assert _quantus(quantus.Monotonicity(**EMPTY), case, a_batch=sign * _maps(case)).all()


class _Noise:
    """The noise of this package as a perturbation of quantus, which asks for the whole batch run by run."""

    def __init__(self, case: Case, settings: dict[str, float]) -> None:
        added = np.stack([stability.noise(case, row, settings) for row in range(len(case.values))], axis=1)
        self.runs = iter(added.reshape(len(added), len(case.values), -1))

    def __call__(self, arr: Array, indices: Array, **_: Any) -> Array:
        return arr + next(self.runs)


def test_sensitivity(case: Case) -> None:
    settings = {"runs": 5, "radius": 0.2, "relative": 0}
    found = stability.sensitivity(case, settings)
    for name, metric in (("maximum", quantus.MaxSensitivity), ("average", quantus.AvgSensitivity)):
        expected = _quantus(metric(nr_samples=5, perturb_func=_Noise(case, settings), **QUIET), case)
        _close(found[name], expected)


@pytest.mark.parametrize("normalise", [0, 1])
def test_local_lipschitz(case: Case, normalise: int) -> None:
    settings = {"runs": 5, "radius": 0.2, "relative": 0, "normalise": normalise}
    found = stability.local_lipschitz(case, settings)["constant"]
    for row in range(SAMPLES):
        one = _one(case, row)
        options = {**QUIET, "normalise": bool(normalise)}
        metric = quantus.LocalLipschitzEstimate(nr_samples=5, perturb_func=_Noise(one, settings), **options)
        _close(found[row], _quantus(metric, one)[0])


def test_relative_stability(case: Case) -> None:
    """Output stability by logits; the noise is small enough for no prediction to change."""
    settings = {"runs": 5, "radius": 0.02, "relative": 0}
    found = stability.relative_stability(case, settings)
    inputs = quantus.RelativeInputStability(nr_samples=5, perturb_func=_Noise(case, settings), **QUIET)
    outputs = quantus.RelativeOutputStability(nr_samples=5, perturb_func=_Noise(case, settings), **QUIET)
    _close(found["input"], _quantus(inputs, case), 2e-3)
    _close(found["output"], _quantus(outputs, case, softmax=False), 2e-3)


def test_parameter_randomisation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same randomised networks: quantus would draw new parameters."""
    methods = {depth: case.make(case.subject.randomised(depth, 0)) for depth in (1, 2)}

    def networks(self: Any, order: str, seed: int) -> Any:
        yield from ((f"layer {depth}", depth) for depth in (1, 2))

    def explain(model: Any, inputs: Array, targets: Array, **_: Any) -> Array:
        method = methods.get(model, case.method) if isinstance(model, int) else case.method
        values = np.asarray(inputs, np.float64)
        return method.maps(values, np.asarray(targets), np.zeros(len(values), np.int64))

    monkeypatch.setattr(PyTorchModel, "get_random_layer_generator", networks)
    monkeypatch.setattr(PyTorchModel, "random_layer_generator_length", 2)
    metric = quantus.MPRT(similarity_func=quantus.similarity_func.correlation_spearman, **QUIET)
    scores = metric(
        model=_network(case.subject),  # type: ignore[arg-type]
        x_batch=case.values,
        y_batch=case.targets,
        a_batch=_maps(case),
        channel_first=True,
        explain_func=explain,
        device="cpu",
    )
    found = randomisation.parameter_randomisation(case, {"steps": 2, "absolute": 0, "seed": 0})
    curve = np.stack([scores["original"], scores["layer 1"], scores["layer 2"]], axis=1)
    _close(found["correlation-curve"], curve)


def test_efficient_randomisation(case: Case) -> None:
    """Only quantus' measure of complexity is compared: its test draws parameters of its own."""
    entropy = quantus.functions.complexity_func.discrete_entropy
    methods = (case.method, case.make(case.subject.randomised(2, 0)))
    before, after = (
        np.asarray([entropy(one, x=one, n_bins=30) for one in method.maps(case.values, case.targets, case.rows)])
        for method in methods
    )
    found = randomisation.efficient_randomisation(case, {"bins": 30, "seed": 0})["rise"]
    _close(found, (after - before) / before, 1e-9)


def test_random_logit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [randomisation.other_class(case, row, CLASSES) for row in range(SAMPLES)]
    drawn = np.asarray([other - (other > target) for other, target in zip(others, case.targets, strict=True)])
    monkeypatch.setattr(np.random, "randint", lambda *_, **__: drawn)
    metric = quantus.RandomLogit(
        num_classes=CLASSES, similarity_func=quantus.similarity_func.correlation_spearman, **QUIET
    )
    _close(randomisation.random_logit(case, {"absolute": 0})["correlation"], _quantus(metric, case))


def test_complexity_and_sparseness(case: Case) -> None:
    absolute = {**QUIET, "abs": True}
    _close(complexity.complexity(case, {})["entropy"], _quantus(quantus.Complexity(**absolute), case))
    _close(complexity.sparseness(case, {})["gini"], _quantus(quantus.Sparseness(**absolute), case))
    metric = quantus.EffectiveComplexity(eps=0.1, **{**absolute, "normalise": True})
    found = complexity.effective_complexity(case, {"threshold": 0.1})["units"]
    np.testing.assert_array_equal(found, [_quantus(metric, _one(case, row))[0] for row in range(SAMPLES)])


def _one(case: Case, row: int) -> Case:
    """quantus normalises by the maximum of the batch; a batch of one has its own."""
    return subjects.part_of(case, slice(row, row + 1))


@pytest.mark.parametrize("absolute", [False, True])
def test_localisation(case: Case, absolute: bool) -> None:
    settings = {"absolute": float(absolute)}
    options = {**QUIET, "abs": absolute}
    for found, metric in (
        (localisation.pointing_game(case, settings)["hit"], quantus.PointingGame(**options)),
        (localisation.relevance_rank(case, settings)["accuracy"], quantus.RelevanceRankAccuracy(**options)),
        (localisation.localisation_auc(case, settings)["auc"], quantus.AUC(**options)),
        (
            localisation.top_k_intersection(case, {**settings, "k": 9, "share": 0})["share"],
            quantus.TopKIntersection(k=9, **options),
        ),
        (
            localisation.top_k_intersection(case, {**settings, "k": 9, "share": 0})["weighted"],
            quantus.TopKIntersection(k=9, concept_influence=True, **options),
        ),
    ):
        _close(found, _quantus(metric, case))


def test_relevance_mass(case: Case) -> None:
    """quantus refuses or mixes negative relevance; absolute or clipped maps agree."""
    metric = quantus.RelevanceMassAccuracy(**QUIET)
    for settings, maps in (({"absolute": 1}, np.abs(_maps(case))), ({"absolute": 0}, np.maximum(_maps(case), 0))):
        _close(localisation.relevance_mass(case, settings)["accuracy"], _quantus(metric, case, a_batch=maps))


def test_neighbour_sufficiency() -> None:
    values = subjects.images(16, channels=1, size=SIZE)
    case = subjects.make_case(values, subjects.two_layer(SIZE * SIZE), units=subjects.pixels(1, SIZE))
    maps = np.abs(_maps(case))
    maps = maps / maps.max(axis=(1, 2, 3), keepdims=True)
    expected = _quantus(quantus.Sufficiency(threshold=0.8, **QUIET), case, a_batch=maps)
    found = neighbours.neighbour_sufficiency(case, {"threshold": 0.8})["agreement"]
    assert len(np.unique(expected)) > 2, "all samples agree alike: the test shows nothing"
    _close(np.nan_to_num(found), expected)


def test_completeness(case: Case) -> None:
    """quantus only says whether the sum is exactly the difference, in float32; so the errors are compared with that."""
    linear = replace(case, subject=subjects.linear(SIZE * SIZE, CLASSES))
    exact = replace(linear, method=subjects.gradient_x_input(linear.subject))
    assert np.all(completeness.completeness(exact, {"relative": 1})["difference"] < 1e-9)
    wrong = completeness.completeness(case, {"relative": 1})["difference"]
    np.testing.assert_array_equal(_quantus(quantus.Completeness(**EMPTY), case, softmax=False), wrong < 1e-9)


def test_structural_similarity() -> None:
    generator = np.random.default_rng(0)
    one = generator.normal(size=(12, 15))
    other = one + 0.4 * generator.normal(size=(12, 15))
    span = max(one.max(), other.max()) - min(one.min(), other.min())
    np.testing.assert_allclose(structural_similarity(one, other), reference(one, other, data_range=span), rtol=1e-9)
