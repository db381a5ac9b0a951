"""Tree ensembles: what each feature contributed, against a walk down each tree, one split at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.classical import labels, ml_model, ml_node, relevance, scores
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.trees import MODES, Leaf, Split, Tree, apart, contributions, expected, grown, listed, predictions

Array = np.ndarray
#: Halves as the thresholds are, so that values on a threshold occur.
X = (np.random.default_rng(5).integers(-4, 5, size=(40, 6)) / 2).astype(np.float32)


def forest(targets: int, modes: tuple[str, ...] = ("BRANCH_LEQ",), seed: int = 1, trees: int = 4) -> list[Tree]:
    rng = np.random.default_rng(seed)
    return [*(grown(rng, 5, 6, targets, modes) for _ in range(trees)), Leaf(np.full(targets, 0.25))]


def regressor(trees: list[Tree], targets: int, **more: Any) -> onnx.ModelProto:
    attributes = {**listed(trees), "n_targets": targets, **more}
    return ml_model(ml_node("TreeEnsembleRegressor", "x", "y", **attributes), width=6)


def expect(model: onnx.ModelProto, contributed: Array, x: Array = X) -> None:
    """R = sum over targets of seed times what each feature contributed."""
    seed = np.random.default_rng(2).normal(size=(len(x), contributed.shape[2]))
    found = relevance(model, x, seed, "epsilon")
    assert relative_l2(found, np.einsum("nfk,nk->nf", contributed, seed)) < 1e-5


@pytest.mark.parametrize("targets", [1, 3])
def test_path_contributions(targets: int) -> None:
    trees = forest(targets)
    model = regressor(trees, targets)
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], predictions(trees, X)) < 1e-5
    expect(model, contributions(trees, X, targets))


@pytest.mark.parametrize("mode", [*MODES, "all of them"])
def test_every_kind_of_split(mode: str) -> None:
    trees = forest(1, MODES if mode == "all of them" else (mode,))
    model = regressor(trees, 1)
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], predictions(trees, X)) < 1e-5
    expect(model, contributions(trees, X, 1))


def test_missing_values_go_where_the_split_sends_them() -> None:
    trees, x = forest(1), X.copy()
    x[np.random.default_rng(3).random(x.shape) < 0.3] = np.nan
    model = regressor(trees, 1)
    assert relative_l2(run_onnxruntime(model, {"x": x})["y"], predictions(trees, x)) < 1e-5
    expect(model, contributions(trees, x, 1), x)


def test_they_add_up_to_prediction_minus_expectation() -> None:
    trees = forest(1)
    model = regressor(trees, 1, base_values=[0.5])
    whole = relevance(model, X, np.ones((len(X), 1)), "epsilon").sum(axis=1)
    y = run_onnxruntime(model, {"x": X})["y"][:, 0]
    assert relative_l2(whole, y - 0.5 - sum(expected(tree) for tree in trees)) < 1e-5
    checks = {check.name: check.passed for check in onnxlrp.verify(model, {"x": X}, rules="epsilon").checks}
    assert checks["ledger"]


def test_an_average_counts_each_tree_less() -> None:
    trees = forest(2)
    model = regressor(trees, 2, aggregate_function="AVERAGE")
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], predictions(trees, X) / len(trees)) < 1e-5
    expect(model, contributions(trees, X, 2) / len(trees))


def test_hit_rates_that_differ_weigh_the_sides() -> None:
    tree = Split(
        2,
        0.5,
        Split(1, 0.0, Leaf(np.array([1.0]), 30), Leaf(np.array([-2.0]), 10), hits=40),
        Leaf(np.array([5.0]), 60),
        hits=100,
    )
    expect(regressor([tree], 1), contributions([tree], X, 1, weighted=True))
    assert any("hit rates" in s.reason for s in onnxlrp.plan(regressor([tree], 1), rules="epsilon").steps)


def _single_target(tree: Tree, rng: np.random.Generator) -> Tree:
    if isinstance(tree, Leaf):
        chosen = int(rng.integers(2))
        return Leaf(np.where(np.arange(2) == chosen, tree.value[chosen], 0.0))
    return replace(tree, yes=_single_target(tree.yes, rng), no=_single_target(tree.no, rng))


def test_the_ensemble_of_newer_models() -> None:
    rng = np.random.default_rng(9)
    grown_ones = [_single_target(t, rng) for t in forest(2, MODES)]
    trees = [t for t in grown_ones if isinstance(t, Split)]
    node = ml_node("TreeEnsemble", "x", "y", **apart(trees), n_targets=2, aggregate_function=1, post_transform=0)
    model = ml_model(node, width=6, version=5)
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], predictions(trees, X)) < 1e-5
    expect(model, contributions(trees, X, 2))


# -- classification ----------------------------------------------------------------------------------------------


def classifier(trees: list[Tree], classes: int, kind: str, **more: Any) -> onnx.ModelProto:
    attributes = {**listed(trees, "class"), "classlabels_int64s": list(range(classes)), "post_transform": kind, **more}
    node = ml_node("TreeEnsembleClassifier", "x", "label y", **attributes)
    return ml_model(node, width=6, outputs=(labels(), scores()))


def _shown(raw: Array, kind: str) -> Array:
    if kind == "LOGISTIC":
        return 1 / (1 + np.exp(-raw))
    whole = np.exp(raw - raw.max(axis=1, keepdims=True))
    return whole / whole.sum(axis=1, keepdims=True) if kind == "SOFTMAX" else raw


@pytest.mark.parametrize("kind", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_relevance_of_a_classifier_starts_at_its_raw_scores(kind: str) -> None:
    trees = forest(3)
    model = classifier(trees, 3, kind)
    shown = _shown(predictions(trees, X), kind)
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], shown) < 1e-5, "what onnxruntime computes"
    expect(model, contributions(trees, X, 3))


@pytest.mark.parametrize("kind", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("base", [[], [0.25]], ids=["no-base", "base"])
def test_one_score_for_two_classes(kind: str, positive: bool, base: list[float]) -> None:
    trees = forest(1)
    if positive:
        trees = [_absolute(tree) for tree in trees]
    more = {"base_values": base} if base else {}
    model = classifier(trees, 2, kind, **more)
    s = predictions(trees, X) + sum(base)
    raw = np.concatenate([1 - s if positive and kind == "NONE" else -s, s], axis=1)
    plain = run_onnxruntime(model, {"x": X})["y"]
    assert relative_l2(plain, _shown(raw, kind)) < 1e-5, "what onnxruntime computes"
    one = contributions(trees, X, 1)
    expect(model, np.concatenate([-one, one], axis=2))


def _absolute(tree: Tree) -> Tree:
    if isinstance(tree, Leaf):
        return Leaf(np.abs(tree.value))
    return replace(tree, yes=_absolute(tree.yes), no=_absolute(tree.no))


def test_the_predicted_class_is_explained_by_default() -> None:
    trees = forest(3)
    found = onnxlrp.Explainer(classifier(trees, 3, "SOFTMAX"), rules="epsilon").explain(X)
    chosen = predictions(trees, X).argmax(axis=1)
    of_chosen = contributions(trees, X, 3)[np.arange(len(X)), :, chosen]
    assert relative_l2(found.relevance["x"], of_chosen) < 1e-5


# -- what is zero, and what is refused ---------------------------------------------------------------------------


def test_the_derivative_of_a_step_function_is_zero() -> None:
    assert not relevance(regressor(forest(1), 1), X, np.ones((len(X), 1)), "gradient-x-input").any()


def test_doubles() -> None:
    trees = forest(1)
    attributes = dict(listed(trees))
    for name in ("nodes_values", "target_weights"):
        values = np.asarray(attributes.pop(name), np.float64)
        attributes[f"{name}_as_tensor"] = onnx.numpy_helper.from_array(values)
    attributes.pop("nodes_hitrates")
    node = ml_node("TreeEnsembleRegressor", "x", "y", **attributes, n_targets=1)
    model = ml_model(node, width=6, dtype=TensorProto.DOUBLE)
    expect(model, contributions(trees, X, 1), X.astype(np.float64))


@pytest.mark.parametrize("function", ["MIN", "MAX"])
def test_other_aggregates_are_refused_by_name(function: str) -> None:
    with pytest.raises(ConversionError, match=f"it takes the {function} of its trees"):
        onnxlrp.convert(regressor(forest(1), 1, aggregate_function=function), rules="epsilon")


def test_other_transforms_are_refused_by_name() -> None:
    with pytest.raises(ConversionError, match="post_transform PROBIT is not taken apart"):
        onnxlrp.convert(regressor(forest(1), 1, post_transform="PROBIT"), rules="epsilon")
