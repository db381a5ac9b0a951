"""The Explainer: a model and its explanation in one session, from any form of model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.run.explainer import Explainer
from tests.emit.linear_nets import LinearNet, dense
from tests.graph.written import Array, classifier, network, normal

IMAGE: Array = normal(2, 2, 8, 8, seed=40)
GRADIENT: dict[str, Any] = {"rules": "gradient-x-input"}


def two_inputs() -> onnx.ModelProto:
    return network(
        "g (float[N,4] x, int64[N,2] ids, float[N,3] z) => (float[N,5] y)"
        " { a = MatMul(x, w) b = MatMul(z, v) y = Add(a, b) }",
        w=normal(4, 5, seed=1),
        v=normal(3, 5, seed=2),
    )


def test_an_original_model_is_converted_and_a_converted_one_is_taken_as_it_is() -> None:
    own = Explainer(classifier()).explain({"image": IMAGE})
    given = Explainer(onnxlrp.convert(classifier())).explain({"image": IMAGE})
    np.testing.assert_array_equal(own.relevance["image"], given.relevance["image"])
    assert own.relevance["image"].shape == IMAGE.shape and own.relevance["image"].any()
    assert (own.target, given.target) == ("argmax of logits", "argmax of logits")


def test_weights_that_are_kept_once_change_nothing_but_rounding() -> None:
    lean = Explainer(classifier(), lean=True)
    options = lean._session.get_session_options()
    assert options.get_session_config_entry("session.disable_prepacking") == "1" and not options.enable_mem_pattern
    usual = Explainer(classifier()).explain({"image": IMAGE})
    np.testing.assert_allclose(
        lean.explain({"image": IMAGE}).relevance["image"], usual.relevance["image"], rtol=1e-4, atol=1e-6
    )


def test_outputs_are_the_models_own_and_the_logits_are_told_beside_them() -> None:
    explainer = Explainer(classifier())
    assert (explainer.input_names, explainer.output_names, explainer.explained) == (
        ("image",),
        ("probabilities",),
        ("image",),
    )
    assert explainer.input_shapes == {"image": ("N", 2, 8, 8)}
    assert explainer.input_types == {"image": np.float32}
    found = explainer.explain({"image": IMAGE})
    assert set(found.outputs) == {"probabilities"}
    assert found.explained_output is not None
    e = np.exp(found.explained_output - found.explained_output.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found.outputs["probabilities"], e / e.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_logits_of_an_output_without_a_head_are_the_output() -> None:
    found = Explainer(dense().model).explain(dense().x)
    np.testing.assert_array_equal(found.explained_output, found.outputs["y"])


@pytest.mark.parametrize("kind", ["bytes", "path", "text path", "proto"])
def test_a_model_may_be_bytes_a_path_or_a_proto(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier().SerializeToString())
    model = {"bytes": path.read_bytes(), "path": path, "text path": str(path), "proto": classifier()}[kind]
    found = Explainer(model).explain({"image": IMAGE})
    expected = Explainer(classifier()).explain({"image": IMAGE})
    np.testing.assert_array_equal(found.relevance["image"], expected.relevance["image"])


def _externally(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.data", size_threshold=16)
    return path


@pytest.mark.parametrize("options", [{}, {"on_demand": True}, {"target": "top:2", "on_demand": True}], ids=str)
def test_weights_in_files_are_found(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = _externally(classifier(), tmp_path)
    assert (tmp_path / "weights.data").stat().st_size > 1000
    expected = Explainer(classifier(), **options).explain({"image": IMAGE})
    by_path = Explainer(path, **options).explain({"image": IMAGE})
    np.testing.assert_allclose(by_path.relevance["image"], expected.relevance["image"], rtol=1e-5, atol=1e-6)
    by_bytes = Explainer(path.read_bytes(), base_dir=tmp_path, **options).explain({"image": IMAGE})
    np.testing.assert_array_equal(by_bytes.relevance["image"], by_path.relevance["image"])
    onnxlrp.convert_file(path, tmp_path / "out.onnx", **options)
    monkeypatch.chdir(tmp_path)
    written = Explainer("out.onnx").explain({"image": IMAGE})
    np.testing.assert_array_equal(written.relevance["image"], by_path.relevance["image"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out.onnx", "weights.data"]


def test_weights_in_files_need_to_be_found(tmp_path: Path) -> None:
    path = _externally(classifier(), tmp_path)
    with pytest.raises(ModelReadError, match="base_dir"):
        Explainer(path.read_bytes())


def test_inputs_are_given_by_name_or_alone_and_converted_to_their_type() -> None:
    net: LinearNet = dense()
    explainer = Explainer(net.model, target=1, **GRADIENT)
    expected = net.maps_of([(1,)] * 3)
    for given in ({"x": net.x}, net.x, net.x.astype(np.float64), net.x.tolist()):
        np.testing.assert_allclose(explainer.explain(given).relevance["x"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": np.zeros((1, 4))}, "input 'ids' is missing; the model's inputs are x, ids, z"),
        ({"x": 0, "ids": 0, "z": 0, "q": 0}, "no input 'q'; the model's inputs are x, ids, z"),
        (np.zeros((1, 4)), "the model has 3 inputs; give arrays by name: x, ids, z"),
        ({"x": "text", "ids": [[1, 2]], "z": np.zeros((1, 3))}, "input 'x' must be an array of float32"),
        ({"x": [[1.0], [1.0, 2.0]], "ids": [[1, 2]], "z": np.zeros((1, 3))}, "input 'x' must be an array"),
        ({"x": np.zeros((1, 9)), "ids": [[1, 2]], "z": np.zeros((1, 3))}, "onnxruntime cannot run the model"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Explainer(two_inputs()).explain(given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_several_inputs_get_a_map_each_and_integers_none() -> None:
    explainer = Explainer(two_inputs(), target=3, **GRADIENT)
    assert explainer.explained == ("x", "z")
    assert explainer.input_types["ids"] == np.int64
    x, z = normal(2, 4), normal(2, 3, seed=1)
    found = explainer.explain({"x": x, "ids": np.zeros((2, 2), int), "z": z})
    np.testing.assert_allclose(found.relevance["x"], x * normal(4, 5, seed=1)[:, 3], rtol=1e-5)
    np.testing.assert_allclose(found.relevance["z"], z * normal(3, 5, seed=2)[:, 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (2, [2, 2, 2]),
        (np.int64(2), [2, 2, 2]),
        ((2,), [2, 2, 2]),
        ([4, 0, 1], [4, 0, 1]),
        (np.array([[4], [0], [1]]), [4, 0, 1]),
        (-1, [4, 4, 4]),
    ],
)
def test_a_target_per_call_is_for_all_samples_or_one_each(target: Any, classes: list[int]) -> None:
    net = dense()
    found = Explainer(net.model, target="input", **GRADIENT).explain(net.x, target=target)
    np.testing.assert_allclose(found.relevance["x"], net.maps_of([(c,) for c in classes]), rtol=1e-5)


def test_a_seed_per_call() -> None:
    net = dense()
    seed = normal(3, 5, seed=4)
    found = Explainer(net.model, target="seed", **GRADIENT).explain(net.x, seed=seed.tolist())
    np.testing.assert_allclose(found.relevance["x"], net.seeded(seed), rtol=1e-4)


@pytest.mark.parametrize(
    ("conversion", "call", "message"),
    [
        ("argmax", {"target": 1}, "a target per call needs a conversion with target='input'"),
        ("argmax", {"seed": np.zeros((3, 5))}, "a seed needs a conversion with target='seed'"),
        ("input", {}, "the model was converted with target='input': give a target"),
        ("seed", {}, "the model was converted with target='seed': give a seed"),
        ("input", {"target": (1, 2)}, "a target takes 1 indices per sample, not 2"),
        ("input", {"target": 1.5}, "a target is made of whole numbers, not 1.5"),
        ("input", {"target": "cat"}, "a target is made of whole numbers, not 'cat'"),
        ("input", {"target": np.zeros((9, 1), int)}, "onnxruntime cannot run the model on this input"),
        ("seed", {"seed": "everything"}, "the seed must be an array of float32"),
        ("seed", {"seed": np.zeros((3, 9))}, "onnxruntime cannot run the model on this input"),
    ],
)
def test_targets_and_seeds_go_with_their_conversion(conversion: str, call: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Explainer(dense().model, target=conversion).explain(dense().x, **call)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"rules": "epsilon"},
        {"target": 1},
        {"target": 0},
        {"inputs": ("x",)},
        {"outputs": ("y",)},
        {"axis": 1},
        {"on_demand": True},
    ],
    ids=str,
)
def test_options_of_conversion_do_not_go_with_a_converted_model(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="already converted"):
        Explainer(onnxlrp.convert(dense().model), **options)


def test_top_maps_stand_along_axis_one() -> None:
    found = Explainer(dense().model, target="top:3").explain(dense().x)
    assert found.relevance["x"].shape == (3, 3, 4)
    assert found.target == "top:3 of y"


def test_an_explainer_always_asks_for_relevance_on_demand() -> None:
    net = dense()
    found = Explainer(net.model, target=1, on_demand=True, **GRADIENT).explain(net.x)
    np.testing.assert_allclose(found.relevance["x"], net.maps_of([(1,)] * 3), rtol=1e-5)


def test_several_explained_outputs_are_told_apart() -> None:
    text = "g (float[N,4] x) => (float[N,5] y, float[N,5] z) { y = MatMul(x, w) z = Neg(y) }"
    explainer = Explainer(network(text, w=normal(4, 5)), outputs=("z", "y"), target=2, **GRADIENT)
    found = explainer.explain(normal(2, 4, seed=3))
    assert explainer.output_names == ("y", "z")
    assert list(found.by_output) == ["z", "y"]
    np.testing.assert_array_equal(found.relevance["x"], found.by_output["z"]["x"])
    np.testing.assert_allclose(found.by_output["y"]["x"], -found.by_output["z"]["x"])


def test_an_intermediate_target_is_told_though_the_model_does_not_return_it() -> None:
    model = classifier()
    found = Explainer(model, outputs=("s",), axis=1).explain(IMAGE)
    assert found.explained_output is not None and found.explained_output.shape == (2, 5, 4, 4)
    assert set(found.outputs) == {"probabilities"}


def test_the_input_as_target_has_no_further_output() -> None:
    assert Explainer(dense().model, outputs=("x",), target=0).explain(dense().x).explained_output is None


def test_without_onnxruntime_converting_works_and_running_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert onnxlrp.convert(dense().model).graph.output[1].name == "x_relevance"
    with pytest.raises(UsageError, match=r"onnxruntime is not installed; install it with `pip install onnxlrp\[cpu\]`"):
        Explainer(dense().model)


def test_a_broken_installation_of_onnxruntime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of its packages installed over one another leave an empty module behind."""
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    with pytest.raises(UsageError, match="the installed onnxruntime is broken"):
        Explainer(dense().model)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_not_there_is_an_error_and_not_a_silent_fall_back() -> None:
    with pytest.raises((UsageError, ModelReadError)) as caught:
        Explainer(dense().model, providers=["TensorrtExecutionProvider"])
    assert "Tensorrt" in str(caught.value)


def test_damaged_metadata_are_an_error() -> None:
    converted = onnxlrp.convert(dense().model)
    for entry in converted.metadata_props:
        if entry.key == "onnxlrp.relevance":
            entry.value = "{"
    with pytest.raises(ModelReadError, match="metadata is damaged"):
        Explainer(converted)


def test_what_the_runtime_cannot_load_is_told_in_one_line() -> None:
    converted = onnxlrp.convert(dense().model)
    converted.ir_version = 99
    with pytest.raises(ModelReadError, match="onnxruntime cannot load the model") as caught:
        Explainer(converted)
    assert "\n" not in str(caught.value)


def test_an_operator_that_the_runtime_does_not_know_is_named() -> None:
    model = network("g (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x) z = com.example.Odd(x) }")
    with pytest.raises(ModelReadError, match=r"does not know the model's own operator com\.example\.Odd") as caught:
        Explainer(model)
    assert "can be converted but not run here" in str(caught.value)


@pytest.mark.parametrize("asked", ["float64", "model"])
def test_relevance_comes_in_the_type_asked_for(asked: str) -> None:
    found = Explainer(dense().model, relevance_type=asked).explain({"x": dense().x}).relevance["x"]
    assert found.dtype == (np.float64 if asked == "float64" else np.float32)
    with pytest.raises(UsageError, match="already converted"):
        Explainer(onnxlrp.convert(dense().model), relevance_type=asked)
