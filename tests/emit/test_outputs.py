"""Names, types and number of what a conversion adds, and names that are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.check import metadata
from onnxlrp.errors import ConversionError, OnnxLrpError, UsageError
from tests.emit.linear_nets import dense
from tests.graph.written import classifier, network, normal
from tests.support.evaluate import run_onnxruntime

TWO = """g (float[N,4] x, float[N,3] other) => (float[N,5] y, float[N,5] z)
{ a = MatMul(x, w) b = MatMul(other, v) y = Add(a, b) z = Neg(a) }"""


def two() -> onnx.ModelProto:
    return network(TWO, w=normal(4, 5, seed=1), v=normal(3, 5, seed=2))


def _values(values: Any) -> dict[str, tuple[int, list[int | str]]]:
    return {
        v.name: (
            v.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        )
        for v in values
    }


def test_each_explained_input_gets_an_output_of_its_shape() -> None:
    outputs = _values(onnxlrp.convert(two()).graph.output)
    assert list(outputs) == ["y", "z", "x_relevance", "other_relevance"]
    assert outputs["x_relevance"] == (onnx.TensorProto.FLOAT, ["N", 4])
    assert outputs["other_relevance"] == (onnx.TensorProto.FLOAT, ["N", 3])


def test_several_explained_outputs_stand_in_the_names() -> None:
    converted = onnxlrp.convert(two(), outputs=("y", "z"), target="input")
    assert list(_values(converted.graph.output))[2:] == [
        "x_relevance_y",
        "other_relevance_y",
        "x_relevance_z",
        "other_relevance_z",
    ]
    assert list(_values(converted.graph.input))[2:] == ["lrp_target_y", "lrp_target_z"]
    feeds = {
        "x": normal(2, 4),
        "other": normal(2, 3),
        "lrp_target_y": np.array([[1], [2]]),
        "lrp_target_z": np.array([[3], [4]]),
    }
    found = run_onnxruntime(onnxlrp.convert(two(), outputs=("y", "z"), target="input", rules="gradient-x-input"), feeds)
    w, v = normal(4, 5, seed=1), normal(3, 5, seed=2)
    np.testing.assert_allclose(found["x_relevance_y"], feeds["x"] * w.T[[1, 2]], rtol=1e-5)
    np.testing.assert_allclose(found["other_relevance_y"], feeds["other"] * v.T[[1, 2]], rtol=1e-5)
    np.testing.assert_allclose(found["x_relevance_z"], feeds["x"] * -w.T[[3, 4]], rtol=1e-5)
    assert found["other_relevance_z"].shape == (2, 3) and not found["other_relevance_z"].any()


def test_the_batch_is_the_first_axis_of_every_added_value() -> None:
    for target, inside in (("input", ["N", 1]), ("seed", ["N", 5]), ("top:2", None)):
        converted = onnxlrp.convert(two(), target=target)
        added = {**_values(converted.graph.input)}
        if inside is not None:
            assert added[f"lrp_{'target' if target == 'input' else 'seed'}"][1] == inside
        shape = _values(converted.graph.output)["x_relevance"][1]
        assert shape == (["N", 2, 4] if target == "top:2" else ["N", 4])


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_relevance_is_float32_whatever_the_model_computes_in(kind: str, dtype: Any) -> None:
    model = network(f"g ({kind}[N,4] x) => ({kind}[N,5] y) {{ y = MatMul(x, w) }}")
    w = normal(4, 5, seed=2).astype(dtype)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    seeded = onnxlrp.convert(model, target="seed", rules="gradient-x-input")
    # A seed is float32 for a float16 output: clients and servers need no half.
    x, seed = normal(2, 4).astype(dtype), normal(2, 5, seed=7).astype(np.float64 if kind == "double" else np.float32)
    found = run_onnxruntime(seeded, {"x": x, "lrp_seed": seed})["x_relevance"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x * (seed @ w.T.astype(np.float64)), rtol=1e-5)


@pytest.mark.parametrize("on_demand", [False, True])
@pytest.mark.parametrize(
    ("kind", "asked", "dtype"),
    [
        ("float16", "float32", np.float32),
        ("float16", "model", np.float16),
        ("float16", "float64", np.float64),
        ("float", "model", np.float32),
        ("float", "float64", np.float64),
        ("double", "float32", np.float32),
        ("double", "model", np.float64),
    ],
)
def test_relevance_is_returned_in_the_type_asked_for(kind: str, asked: str, dtype: Any, on_demand: bool) -> None:
    model = network(f"g ({kind}[N,4] x) => ({kind}[N,4] y) {{ y = Relu(x) }}")
    converted = onnxlrp.convert(model, target=0, relevance_type=asked, on_demand=on_demand)
    onnx.checker.check_model(converted, full_check=True)
    x = np.abs(normal(2, 4)).astype({"float": np.float32, "float16": np.float16, "double": np.float64}[kind])
    for wanted in (True, False):
        switch = {"lrp_explain": np.full((2, 1), wanted)} if on_demand else {}
        found = run_onnxruntime(converted, {"x": x, **switch})["x_relevance"]
        assert found.dtype == dtype
        expected = x * (np.arange(4) == 0) * (wanted or not on_demand)
        np.testing.assert_array_equal(found, expected.astype(dtype))
    stated = metadata.read(converted)
    assert stated is not None and stated.settings["relevance_type"] == asked


def test_relevance_that_its_type_cannot_hold_is_the_largest_number_and_not_infinite() -> None:
    model = network("g (float16[N,2] x, float16[N,2] s) => (float16[N,2] y) { y = Mul(x, s) }")
    seeded = onnxlrp.convert(model, target="seed", inputs=["x"], relevance_type="model")
    x, s = np.array([[100, -100]], np.float16), np.ones((1, 2), np.float16)
    found = run_onnxruntime(seeded, {"x": x, "s": s, "lrp_seed": np.array([[1e4, 1e4]], np.float32)})
    np.testing.assert_array_equal(found["x_relevance"], np.array([[65504, -65504]], np.float16))


def test_an_unknown_relevance_type_is_refused() -> None:
    with pytest.raises(UsageError, match="relevance type 'half' is none of float32, float64, model"):
        onnxlrp.convert(two(), relevance_type="half")


def test_the_metadata_say_how_the_model_was_made() -> None:
    model = classifier()
    model.metadata_props.add(key="author", value="me")
    converted = onnxlrp.convert(model, rules="epsilon", target="top:2", on_demand=True)
    found = metadata.read(converted)
    assert found is not None
    assert (found.version, found.rules, found.target) == (onnxlrp.__version__, "epsilon", "top:2")
    assert found.relevance == {"image": "image_relevance"}
    assert found.explained_output == "logits"
    assert found.settings["on_demand"] is True
    assert {p.key: p.value for p in converted.metadata_props}["author"] == "me"


def test_the_metadata_of_several_outputs_name_the_map_of_each() -> None:
    found = metadata.read(onnxlrp.convert(two(), outputs=("z", "y")))
    assert found is not None
    assert found.relevance == {"x": "x_relevance_z", "other": "other_relevance_z"}
    assert found.settings["relevance_by_output"]["y"] == {"x": "x_relevance_y", "other": "other_relevance_y"}
    assert json.loads(json.dumps(dict(found.settings))) == found.settings


def test_a_converted_model_is_not_converted_again() -> None:
    with pytest.raises(ConversionError, match="already converted by onnxlrp"):
        onnxlrp.convert(onnxlrp.convert(classifier()))


#: Names that a model must not have, and where it has them.
CLASHES: dict[str, tuple[str, type[OnnxLrpError], str]] = {
    "an output": (
        "g (float[N,4] x) => (float[N,4] y, float[N,4] x_relevance) { y = Relu(x) x_relevance = Neg(x) }",
        UsageError,
        "'x_relevance'",
    ),
    "an inner tensor": (
        "g (float[N,4] x) => (float[N,4] y) { x_relevance = Neg(x) y = Relu(x_relevance) }",
        UsageError,
        "'x_relevance'",
    ),
    "a tensor in a branch": (
        """g (float[N,4] x, bool c) => (float[N,4] y, bool d)
        { y = Relu(x) d = If(c) <then_branch = t () => (bool x_relevance) { x_relevance = Not(c) },
                                 else_branch = e () => (bool q) { q = Identity(c) }> }""",
        UsageError,
        "'x_relevance'",
    ),
    "another input": (
        "g (float[N,4] x, float[N,4] x_relevance) => (float[N,4] y) { y = Add(x, x_relevance) }",
        UsageError,
        "'x_relevance'",
    ),
    "the target input": (
        "g (float[N,4] x, float[N,4] lrp_target) => (float[N,4] y) { y = Add(x, lrp_target) }",
        UsageError,
        "'lrp_target'",
    ),
    "an input like a seed": (
        "g (float[N,4] x, float[N,4] lrp_seed_y) => (float[N,4] y) { y = Add(x, lrp_seed_y) }",
        UsageError,
        "'lrp_seed_y'",
    ),
    "the switch": (
        "g (float[N,4] x) => (float[N,4] y) { lrp_explain = Neg(x) y = Relu(lrp_explain) }",
        UsageError,
        "'lrp_explain'",
    ),
    "a tensor below lrp/": (
        'g (float[N,4] x) => (float[N,4] y) { "lrp/a" = Neg(x) y = Relu("lrp/a") }',
        ConversionError,
        "'lrp/a'",
    ),
    "a node below lrp/": (
        'g (float[N,4] x) => (float[N,4] y) { ["lrp/n"] y = Relu(x) }',
        ConversionError,
        "'lrp/n'",
    ),
    "a weight below lrp/": (
        'g (float[N,4] x) => (float[N,4] y) <float "lrp/w" = {2.0}> { y = Mul(x, "lrp/w") }',
        ConversionError,
        "'lrp/w'",
    ),
}


@pytest.mark.parametrize("case", CLASHES)
@pytest.mark.parametrize("on_demand", [False, True])
def test_a_name_that_is_needed_and_taken_is_refused(case: str, on_demand: bool) -> None:
    text, kind, name = CLASHES[case]
    with pytest.raises(kind) as caught:
        onnxlrp.convert(network(text), on_demand=on_demand)
    assert name in str(caught.value)


def test_a_ledger_is_kept_for_plain_conversions_only() -> None:
    with pytest.raises(UsageError, match="plain conversions only"):
        onnxlrp.convert(classifier(), ledger=True, on_demand=True)
    with pytest.raises(UsageError, match="plain conversions only"):
        onnxlrp.convert(classifier(), ledger=True, target="top:2")


def test_the_ledger_has_a_line_per_step_that_adds_up() -> None:
    net = dense()
    converted = onnxlrp.convert(net.model, ledger=True, target=2, rules="gradient-x-input")
    found = run_onnxruntime(converted, {"x": net.x})
    arrived, sent, bias, *others, mass = found["lrp_ledger"][0]
    b = normal(5, seed=3)
    np.testing.assert_allclose(
        [arrived, sent, bias], [net.y[:, 2].sum(), found["x_relevance"].sum(), 3 * b[2]], rtol=1e-5
    )
    np.testing.assert_allclose(mass, np.abs(net.y[:, 2]).sum(), rtol=1e-5)
    assert others == [0, 0, 0]
    assert len(found["lrp_ledger"]) == len(onnxlrp.plan(net.model).steps)
