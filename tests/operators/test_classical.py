"""Linear models, features and where relevance ends in ai.onnx.ml, against formulas written in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.classical import labels, ml_model, ml_node, relevance, scores
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient, distinct

Array = np.ndarray
W = np.array([[0.5, -1.0, 0.25], [2.0, 0.75, -0.5]], np.float32)
B = np.array([0.1, -0.3], np.float32)
X = distinct(4, 3, seed=3).astype(np.float32)


def expect(model: onnx.ModelProto, f: Callable[[Array], Array], x: Array = X) -> None:
    """R = x * d sum(seed * f) / dx, f being what relevance starts from."""
    seed = np.random.default_rng(2).normal(size=f(x.astype(float)).shape)
    gradient = central_gradient(lambda at: float((seed * f(at["x"])).sum()), {"x": x.astype(float)}, "x")
    assert relative_l2(relevance(model, x, seed), x * gradient) < 1e-5


def linear_classifier(kind: str, rows: int = 2) -> onnx.ModelProto:
    node = ml_node(
        "LinearClassifier",
        "x",
        "label y",
        coefficients=W[-rows:].ravel().tolist(),
        intercepts=B[-rows:].tolist(),
        classlabels_ints=[0, 1],
        post_transform=kind,
    )
    return ml_model(node, width=3, outputs=(labels(), scores()))


def test_a_linear_regressor_is_a_dense_layer() -> None:
    node = ml_node("LinearRegressor", "x", "y", coefficients=W.ravel().tolist(), intercepts=B.tolist(), targets=2)
    expect(ml_model(node, width=3), lambda x: x @ W.T + B)


@pytest.mark.parametrize("kind", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_relevance_of_a_linear_classifier_starts_at_its_raw_scores(kind: str) -> None:
    model = linear_classifier(kind)
    expect(model, lambda x: x @ W.T + B)
    notes = onnxlrp.plan(model, rules="epsilon").notes
    assert any("the LinearClassifier" in note and "stepped over" in note for note in notes) == (kind != "NONE")


@pytest.mark.parametrize("kind", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_one_score_for_two_classes(kind: str) -> None:
    model, s = linear_classifier(kind, rows=1), X @ W[1] + B[1]
    raw = {"LOGISTIC": [-s, s]}.get(kind, [1 - s, s])
    plain = run_onnxruntime(model, {"x": X})["y"]
    shown = 1 / (1 + np.exp(-np.stack(raw, 1))) if kind == "LOGISTIC" else np.stack(raw, 1)
    assert relative_l2(plain, shown) < 1e-6, "what onnxruntime computes"
    sign = np.array([-1.0, 1.0])
    expect(model, lambda x: (x @ W[1].astype(float) + B[1])[:, None] * sign)


def test_the_predicted_class_is_explained_by_default() -> None:
    found = onnxlrp.Explainer(linear_classifier("SOFTMAX"), rules="gradient-x-input").explain(X)
    chosen = (X @ W.T + B).argmax(axis=1)
    assert relative_l2(found.relevance["x"], X * W[chosen]) < 1e-6
    assert (found.outputs["label"] == chosen).all()


@pytest.mark.parametrize("options", [{}, {"on_demand": True}, {"target": "top:2"}], ids=["plain", "on-demand", "top"])
def test_a_fixed_class_whose_raw_score_the_model_does_not_return(options: dict[str, Any]) -> None:
    asked = {"target": 1, **options}
    found = onnxlrp.Explainer(linear_classifier("SOFTMAX"), rules="gradient-x-input", **asked).explain(X)
    of_class_one = found.relevance["x"]
    if "target" in options:
        rank = (X @ W.T + B).argmax(axis=1) == 0
        of_class_one = of_class_one[np.arange(len(X)), rank.astype(int)]
    assert relative_l2(of_class_one, X * W[1]) < 1e-6


def test_other_transforms_are_refused_by_name() -> None:
    with pytest.raises(ConversionError, match=r"the LinearClassifier .*post_transform PROBIT is not taken apart"):
        onnxlrp.convert(linear_classifier("PROBIT"), rules="epsilon")


def test_probabilities_of_a_classifier_of_scikit_learn_are_explained_by_their_scores() -> None:
    """LinearClassifier, Normalizer, ZipMap: its usual form."""
    classifier = linear_classifier("SOFTMAX").graph.node[0]
    classifier.output[1] = "raw"
    nodes = (
        classifier,
        ml_node("Normalizer", "raw", "probabilities", norm="L1"),
        ml_node("ZipMap", "probabilities", "named", classlabels_int64s=[0, 1]),
    )
    of = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    named = helper.make_value_info("named", helper.make_sequence_type_proto(of))
    model = ml_model(*nodes, width=3, outputs=(labels(), named))
    expect(model, lambda x: x @ W.T + B)
    notes = "\n".join(onnxlrp.plan(model, rules="epsilon").notes)
    assert all(f"the {op}" in notes for op in ("ZipMap", "Normalizer", "LinearClassifier"))
    assert onnxlrp.verify(model, {"x": X}, rules="epsilon").passed


def _normalised(kind: str) -> Callable[[Array], Array]:
    size = {
        "MAX": lambda x: x.max(axis=1, keepdims=True),
        "L1": lambda x: np.abs(x).sum(axis=1, keepdims=True),
        "L2": lambda x: np.sqrt((x**2).sum(axis=1, keepdims=True)),
    }[kind]
    return lambda x: x / size(x)


@pytest.mark.parametrize("kind", ["MAX", "L1", "L2"])
def test_normalizer(kind: str) -> None:
    nodes = (ml_node("Normalizer", "x", "unit", norm=kind), ml_node("Neg", "unit", "y", domain=""))
    model = ml_model(*nodes, width=3)
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], -_normalised(kind)(X)) < 1e-6
    expect(model, lambda x: -_normalised(kind)(x))


def test_a_row_of_zeros_is_not_divided() -> None:
    nodes = (ml_node("Normalizer", "x", "unit", norm="L2"), ml_node("Neg", "unit", "y", domain=""))
    assert not relevance(ml_model(*nodes, width=3), np.zeros((1, 3), np.float32), np.ones((1, 3))).any()


@pytest.mark.parametrize("width", [3, 1])
def test_a_scaler_is_part_of_the_dense_layer_behind_it(width: int) -> None:
    offset, scale = np.array([1.0, -2.0, 0.5][:width]), np.array([0.5, 3.0, -1.0][:width])
    nodes = (
        ml_node("Scaler", "x", "scaled", offset=offset.tolist(), scale=scale.tolist()),
        ml_node("LinearRegressor", "scaled", "y", coefficients=W.ravel().tolist(), intercepts=B.tolist(), targets=2),
    )
    model = ml_model(*nodes, width=3)
    expect(model, lambda x: ((x - offset) * scale) @ W.T + B)
    assert len(onnxlrp.plan(model, rules="epsilon").steps) == 1


def test_what_an_imputer_filled_in_gets_nothing() -> None:
    node = ml_node("Imputer", "x", "y", imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=float("nan"))
    x, seed = X.copy(), np.ones_like(X)
    x[1, 2] = x[0, 0] = np.nan
    expected = np.nan_to_num(x)
    for rules in ("gradient-x-input", "epsilon"):
        assert relative_l2(relevance(ml_model(node, width=3), x, seed, rules), expected) < 1e-6


def test_features_put_together_and_picked_out() -> None:
    columns = helper.make_node("Constant", [], ["columns"], value=onnx.numpy_helper.from_array(np.array([4, 0, 4])))
    nodes = (
        columns,
        ml_node("Abs", "x", "positive", domain=""),
        ml_node("FeatureVectorizer", "x positive", "both", inputdimensions=[3, 3]),
        ml_node("ArrayFeatureExtractor", "both columns", "y"),
    )
    expect(ml_model(*nodes, width=3), lambda x: np.concatenate([x, np.abs(x)], axis=1)[:, [4, 0, 4]])


def _onehot() -> Any:
    return ml_node("OneHotEncoder", "x", "y", cats_int64s=[0, 1, 2])


@pytest.mark.parametrize(
    "node", [ml_node("Binarizer", "x", "y", threshold=0.5), _onehot()], ids=["binarizer", "one-hot"]
)
def test_relevance_ends_at_categories(node: onnx.NodeProto) -> None:
    with pytest.raises(ConversionError, match="does not depend on any float input"):
        onnxlrp.convert(ml_model(node, width=3), rules="epsilon")


def test_integer_columns_are_explained_like_floats() -> None:
    scaler = ml_node("Scaler", "x", "s", offset=[0.0] * 3, scale=[2.0] * 3)
    dense = ml_node("LinearRegressor", "s", "y", coefficients=[1.0, 2.0, 3.0])
    emitted = onnxlrp.convert(ml_model(scaler, dense, width=3, dtype=TensorProto.INT64), rules="epsilon")
    found = run_onnxruntime(emitted, {"x": np.array([[4, 5, -6]])})["x_relevance"]
    np.testing.assert_allclose(found, [[8, 20, -36]], rtol=1e-5)
