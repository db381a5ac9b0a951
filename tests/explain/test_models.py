"""Original and converted models: where rule table and target come from, and what can no longer change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxlrp
from onnxlrp.check import metadata
from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.explain.images import explain_images
from onnxlrp.explain.preprocess import ImageOptions
from tests.explain.fakes import QuadrantExplainer
from tests.explain.test_images import quadrant

RAW = ImageOptions(preset="raw")


@pytest.fixture
def built(monkeypatch):
    """Every call of onnxlrp.Explainer as (model, the options that were stated, what it returned)."""
    calls = []

    def build(model, **options):
        stated = {name: value for name, value in options.items() if value not in (None, ())}
        maps = 2 if options.get("target") == "top:2" else 0
        explainer = QuadrantExplainer((1, 1, 16, 16), maps=maps)
        inside = metadata.read(model) if isinstance(model, onnx.ModelProto) else None
        target, rules = str(options["target"] or "argmax"), options["rules"] or "default"
        explainer.metadata = inside or metadata.Metadata("1", rules, target, {}, "logits")
        calls.append((model, stated, explainer))
        return explainer

    monkeypatch.setattr(onnxlrp, "Explainer", build, raising=False)
    return calls


@pytest.fixture
def photo(tmp_path):
    return quadrant(tmp_path / "spot.png", 1)


def original() -> onnx.ModelProto:
    shape = [1, 1, 16, 16]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("photo", "logits"))
    graph = helper.make_graph([helper.make_node("Relu", ["photo"], ["logits"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def converted(target: str) -> onnx.ModelProto:
    model = original()
    metadata.write(model, metadata.Metadata("1", "epsilon", target, {"photo": "photo_relevance"}, "logits"))
    return model


def test_an_original_model_is_converted_with_what_was_stated_and_nothing_else(tmp_path, built, photo):
    onnx.save(original(), tmp_path / "net.onnx")
    explain_images(tmp_path / "net.onnx", [photo], rules="epsilon", target=2, options=RAW, out_dir=tmp_path)
    assert [(model.name, options) for model, options, _ in built] == [("net.onnx", {"rules": "epsilon", "target": 2})]


def test_one_explainer_serves_all_images(tmp_path, built, photo):
    files = [photo, quadrant(tmp_path / "other.png", 2)]
    results = explain_images(original(), files, options=RAW, out_dir=tmp_path / "out", labels=list("abcd"))
    assert len(built) == 1 and [result.target for result in results] == ["b", "c"]
    assert results[0].files[0].name == "spot.default.png"


def test_a_converted_model_brings_its_rule_table_and_target(tmp_path, built, photo):
    (result,) = explain_images(converted("3"), [photo], options=RAW, out_dir=tmp_path, providers=["P"])
    assert built[0][1] == {"providers": ["P"]}
    assert result.files[0].name == "spot.epsilon.class-3.png" and result.target == "class 3"


@pytest.mark.parametrize("stated", [{"rules": "epsilon"}, {"target": 7}, {"axis": 1}, {"inputs": ["photo"]}])
def test_options_for_a_converted_model_are_left_to_the_explainer_to_refuse(tmp_path, built, photo, stated):
    explain_images(converted("argmax"), [photo], options=RAW, out_dir=tmp_path, **stated)
    assert built[0][1] == stated


def test_a_model_that_takes_the_class_with_every_run_is_given_it(tmp_path, built, photo, monkeypatch):
    given = []
    explain = QuadrantExplainer.explain

    def remember(self, inputs, /, *, target=None):
        given.append(target)
        return explain(self, inputs)

    monkeypatch.setattr(QuadrantExplainer, "explain", remember)
    (result,) = explain_images(converted("input"), [photo], target=2, options=RAW, out_dir=tmp_path)
    assert built[0][1] == {} and given == [2] and result.target == "class 2"
    with pytest.raises(UsageError, match="name the class, as in --target 7"):
        explain_images(converted("input"), [photo], out_dir=tmp_path)


@pytest.mark.parametrize("target", ["input", "seed"])
def test_targets_that_need_a_value_with_every_run_are_refused(tmp_path, built, photo, target):
    with pytest.raises(UsageError, match="takes a value with every run"):
        explain_images(original(), [photo], target=target, out_dir=tmp_path)


def test_a_model_converted_for_seeds_is_refused(tmp_path, built, photo):
    with pytest.raises(UsageError, match=r"'seed' takes a value.*onnxlrp\.Explainer"):
        explain_images(converted("seed"), [photo], out_dir=tmp_path)


def test_bad_images_and_labels_are_found_before_the_model_is_built(tmp_path, built, photo):
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(UsageError, match="not an image"):
        explain_images(original(), [photo, tmp_path / "text.png"], out_dir=tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be read"):
        explain_images(original(), [photo], labels=tmp_path / "none", out_dir=tmp_path / "out")
    assert not built and not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_read_says_so(tmp_path, built, photo):
    with pytest.raises(ModelReadError):
        explain_images(tmp_path / "none.onnx", [photo], out_dir=tmp_path)


def test_a_class_rather_than_another_is_said_in_title_and_file_name(tmp_path, built, photo):
    names = list("abcd")
    (result,) = explain_images(converted("3 rather than 1"), [photo], options=RAW, out_dir=tmp_path, labels=names)
    assert result.files[0].name == "spot.epsilon.class-3.not-1.png" and result.target == "d rather than b"
    (result,) = explain_images(converted("argmax rather than 0"), [photo], options=RAW, out_dir=tmp_path)
    assert result.files[0].name == "spot.epsilon.not-0.png" and result.target == "class 1 rather than class 0"


def test_a_position_that_is_needed_with_every_run_is_refused(tmp_path, built, photo):
    with pytest.raises(UsageError, match="the position 'input' takes a value with every run"):
        explain_images(original(), [photo], position="input", out_dir=tmp_path)


def test_several_maps_of_one_original_model(tmp_path, built, photo):
    (result,) = explain_images(original(), [photo], target="top:2", options=RAW, out_dir=tmp_path)
    with np.load(result.files[-1]) as saved:
        assert saved["relevance"].shape == (2, 1, 16, 16)
