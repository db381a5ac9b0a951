"""The Python interface: models in any form, files written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError, ModelReadError, OnnxLrpError, UsageError
from tests.graph.written import classifier, network, normal
from tests.support.evaluate import run_onnxruntime


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "net.onnx"
    file.write_bytes(classifier().SerializeToString())
    return file


def test_everything_public_can_be_imported_and_nothing_else_pretends_to_be() -> None:
    for name in onnxlrp.__all__:
        assert getattr(onnxlrp, name) is not None
    assert set(dir(onnxlrp)) == set(onnxlrp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        _ = onnxlrp.convrt  # type: ignore[attr-defined]


def test_importing_the_package_loads_neither_onnx_nor_onnxruntime() -> None:
    code = "import sys, onnxlrp; print(sorted({'onnx', 'onnxruntime', 'onnx_graphsurgeon'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_is_converted_from_any_form_to_the_same_bytes(path: Path) -> None:
    forms = (path, str(path), path.read_bytes(), onnx.load(path))
    converted = {onnxlrp.convert(form).SerializeToString(deterministic=True) for form in forms}
    assert len(converted) == 1


def test_plan_says_what_convert_does(path: Path) -> None:
    plan = onnxlrp.plan(path, rules="epsilon", target="top:2", on_demand=True)
    converted = onnxlrp.convert(path, rules="epsilon", target="top:2", on_demand=True)
    stated = {p.key: p.value for p in converted.metadata_props}
    assert (plan.rule_table, plan.target) == (stated["onnxlrp.rules"], stated["onnxlrp.target"])
    assert plan.settings["on_demand"] is True


def test_a_file_becomes_a_file_beside_it(path: Path) -> None:
    before = path.read_bytes()
    result = onnxlrp.convert_file(path)
    assert result.path == path.with_name("net.lrp.onnx") and result.written == (result.path,)
    assert path.read_bytes() == before
    assert result.relevance == {"image": "image_relevance"}
    assert result.grown_bytes == result.path.stat().st_size - len(before) > 0
    assert result.plan.steps and result.seconds > 0
    written = onnx.load(result.path)
    onnx.checker.check_model(written, full_check=True)
    assert "image_relevance" in run_onnxruntime(written, {"image": normal(1, 2, 8, 8)})


def test_a_file_becomes_the_file_that_is_named(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub"
    out.mkdir()
    result = onnxlrp.convert_file(str(path), out / "other.onnx", rules="epsilon")
    assert result.path == out / "other.onnx" and result.path.exists()


@pytest.mark.parametrize("what", ["unsupported", "no folder", "a folder", "the model itself", "not a model"])
def test_whatever_goes_wrong_nothing_is_written(path: Path, tmp_path: Path, what: str) -> None:
    out: Path = tmp_path / "out.onnx"
    expected: type[OnnxLrpError] = UsageError
    if what == "unsupported":
        path.write_bytes(network("g (float[2] x) => (float[2] y) { y = com.example.Odd(x) }").SerializeToString())
        expected = ConversionError
    elif what == "no folder":
        out = tmp_path / "none" / "out.onnx"
    elif what == "a folder":
        out = tmp_path
    elif what == "the model itself":
        out = path
    else:
        path.write_text("not a model")
        expected = ModelReadError
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(expected):
        onnxlrp.convert_file(path, out)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_second_conversion_overwrites_the_first(path: Path) -> None:
    first = onnxlrp.convert_file(path).path.read_bytes()
    assert onnxlrp.convert_file(path, rules="epsilon").path.read_bytes() != first
    assert onnxlrp.convert_file(path).path.read_bytes() == first


def test_the_given_model_and_the_callers_arrays_are_left_alone() -> None:
    model = classifier()
    before = model.SerializeToString(deterministic=True)
    x = normal(2, 2, 8, 8)
    given = x.copy()
    onnxlrp.Explainer(model).explain({"image": x})
    onnxlrp.verify(model, {"image": x})
    assert model.SerializeToString(deterministic=True) == before
    np.testing.assert_array_equal(x, given)


def test_every_error_on_purpose_is_of_one_family() -> None:
    for kind in (UsageError, ModelReadError, ConversionError, onnxlrp.VerificationError):
        assert issubclass(kind, OnnxLrpError) and kind.exit_code in (2, 3, 4, 5)
