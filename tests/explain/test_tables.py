"""Tables in, bars and numbers out: the whole way with linear models."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.table import TableOptions
from onnxlrp.explain.tables import explain_tables
from tests.explain.linear import EXACT, WEIGHTS, best, columns_model, rows_model
from tests.graph.written import network, normal

X = normal(6, 4, seed=8)


@pytest.fixture
def rows(tmp_path):
    lines = ["a,b,c,d,kind", *(",".join(map(repr, map(float, row))) + ",k" for row in X)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "rows.csv"


def explain(model, file, out, **more):
    options = more.pop("options", TableOptions(drop=("kind",)))
    (result,) = explain_tables(model, [file], options=options, out_dir=out, rules=EXACT, **more)
    return result


def test_each_row_gets_the_relevance_of_its_own_class(tmp_path, rows):
    result = explain(rows_model(), rows, tmp_path)
    found = np.array([[feature.relevance for feature in row.features] for row in result.rows])
    np.testing.assert_allclose(found, best(X, WEIGHTS), rtol=1e-5)
    assert [row.row for row in result.rows] == list(range(6))
    assert [feature.name for feature in result.rows[0].features] == ["a", "b", "c", "d"]
    assert result.rows[0].features[1].value == repr(float(X[0, 1]))
    assert [row.target for row in result.rows] == [f"class {k}" for k in (X @ WEIGHTS).argmax(axis=1)]
    assert [row.top[0].index for row in result.rows] == (X @ WEIGHTS).argmax(axis=1).tolist()


def test_the_numbers_are_written_as_csv_and_npz_and_a_picture_for_each_row(tmp_path, rows):
    result = explain(
        rows_model(), rows, tmp_path / "out", options=TableOptions("2:4", ("kind",)), labels=["x", "y", "z"]
    )
    prefix = f"rows.{EXACT}"
    names = [f"{prefix}.row-2.png", f"{prefix}.row-3.png", f"{prefix}.csv", f"{prefix}.npz"]
    assert [file.name for file in result.files] == names
    for file in result.files[:2]:
        with Image.open(file) as image:
            image.verify()
    with result.files[2].open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["row", "explained", "a", "b", "c", "d"]
    assert [line[0] for line in lines] == ["2", "3"]
    assert [line[1] for line in lines] == ["xyz"[k] for k in (X[2:4] @ WEIGHTS).argmax(axis=1)]
    np.testing.assert_allclose(np.array(lines)[:, 2:].astype(float), best(X, WEIGHTS)[2:4], rtol=1e-5)
    with np.load(result.files[3]) as saved:
        np.testing.assert_allclose(saved["relevance"], best(X, WEIGHTS)[2:4], rtol=1e-5)
        np.testing.assert_array_equal(saved["input/features"], X[2:4].astype(np.float32))
        np.testing.assert_allclose(saved["output/y"], (X @ WEIGHTS)[2:4], rtol=1e-5)
        assert saved["columns"].tolist() == ["a", "b", "c", "d"] and saved["rows"].tolist() == [2, 3]
        assert json.loads(str(saved["settings"]))["rules"] == EXACT


def test_a_fixed_batch_is_filled_up(tmp_path, rows):
    fixed = network("g (float[4,4] features) => (float[4,3] y) { y = MatMul(features, w) }", w=WEIGHTS)
    result = explain(fixed, rows, tmp_path)
    found = np.array([[feature.relevance for feature in row.features] for row in result.rows])
    np.testing.assert_allclose(found, best(X, WEIGHTS), rtol=1e-5)


def test_several_maps_are_several_entries_of_a_row(tmp_path, rows):
    result = explain(rows_model(), rows, tmp_path, options=TableOptions("1", ("kind",)), target="top:2")
    order = np.argsort(-(X @ WEIGHTS)[1])[:2]
    assert [(row.row, row.target) for row in result.rows] == [(1, f"class {k}") for k in order]
    found = np.array([[feature.relevance for feature in row.features] for row in result.rows])
    np.testing.assert_allclose(found, X[1] * WEIGHTS[:, order].T, rtol=1e-5)
    assert [file.name for file in result.files[:2]] == [f"rows.{EXACT}.row-1.top-{k}.png" for k in (1, 2)]


def test_an_input_for_each_column(tmp_path):
    (tmp_path / "homes.csv").write_text("Age,height (cm),town,rooms\n0.5,-2,X,3\n-1,1.5,Y,1\n", encoding="utf-8")
    result = explain(columns_model(), tmp_path / "homes.csv", tmp_path, options=TableOptions())
    x = np.array([[0.5, -2, 3, 6], [-1, 1.5, 1, 2]])
    found = np.array([[feature.relevance for feature in row.features] for row in result.rows])
    np.testing.assert_allclose(found, best(x, WEIGHTS)[:, :2], rtol=1e-5)
    assert [feature.name for feature in result.rows[0].features] == ["Age", "height (cm)"]
    assert result.notes == ("columns whose inputs are not explained have no relevance: rooms, town",)


def test_a_classifier_of_scikit_learn_with_names_for_its_scores(tmp_path, rows):
    """Scaler, linear classifier and ZipMap, whose output is a list of dicts; relevance is that of the raw scores."""
    offset, scale = [0.5, -1.0, 0.0, 2.0], [2.0, 0.5, 1.0, 4.0]
    ml = "ai.onnx.ml"
    nodes = [
        helper.make_node("Scaler", ["features"], ["scaled"], domain=ml, offset=offset, scale=scale),
        helper.make_node(
            "LinearClassifier", ["scaled"], ["label", "raw"], domain=ml, coefficients=WEIGHTS.T.ravel().tolist(),
            intercepts=[0.1, 0.2, 0.3], classlabels_ints=[10, 20, 30], post_transform="SOFTMAX",
        ),
        helper.make_node("ZipMap", ["raw"], ["named"], domain=ml, classlabels_int64s=[10, 20, 30]),
    ]  # fmt: skip
    named = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        helper.make_value_info("named", helper.make_sequence_type_proto(named)),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [features], outputs)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid(ml, 3)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    result = explain(model, rows, tmp_path)
    raw = (X - offset) * scale @ WEIGHTS + [0.1, 0.2, 0.3]
    winners = raw.argmax(axis=1)
    found = np.array([[feature.relevance for feature in row.features] for row in result.rows])
    np.testing.assert_allclose(found, X * (np.array(scale)[:, None] * WEIGHTS)[:, winners].T, rtol=1e-4)
    assert [row.target for row in result.rows] == [f"class {k}" for k in winners]
    probabilities = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    assert [row.top[0].score for row in result.rows] == pytest.approx(probabilities.max(axis=1).tolist(), rel=1e-5)


def test_other_inputs_are_filled_by_name(tmp_path, rows):
    text = "g (float[N,4] features, float[1,4] factor) => (float[N,3] y) { z = Mul(features, factor) y = MatMul(z, w) }"
    factor = normal(1, 4, seed=3).astype(np.float32)
    result = explain(network(text, w=WEIGHTS), rows, tmp_path, data={"factor": factor}, inputs=["features"])
    found = np.array([[feature.relevance for feature in row.features] for row in result.rows])
    np.testing.assert_allclose(found, best(X * factor, WEIGHTS), rtol=1e-4)


def test_relevance_that_is_not_finite_is_an_error_and_nothing_is_written(tmp_path):
    (tmp_path / "gaps.csv").write_text("a,b,c,d\n1,2,3,4\n1,,3,4\n", encoding="utf-8")
    with pytest.raises(OnnxLrpError, match=r"row 1 is not finite; an empty cell"):
        explain(rows_model(), tmp_path / "gaps.csv", tmp_path / "out", options=TableOptions())
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, rows):
    onnx.save(rows_model(), tmp_path / "m.onnx")
    for options, reason in (
        (TableOptions(), "takes 4 features, but 5 columns"),
        (TableOptions(columns=("a", "b", "c", "kind")), "no number"),
    ):
        with pytest.raises(UsageError, match=reason):
            explain(tmp_path / "m.onnx", rows, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()
