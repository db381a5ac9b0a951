"""What `explain` and `verify` hand to the API and print of its results."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxlrp.explain.answer import TopClass
from onnxlrp.explain.results import ImageResult
from tests.cli.conftest import Run


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for `explain_images` and keeps what it was called with."""
    call: dict[str, Any] = {}

    def explain_images(model: str, paths: Any, **options: Any) -> list[ImageResult]:
        call.update(options, model=model, paths=tuple(paths))
        top = (TopClass(281, "tabby", 0.6321), TopClass(3, None, 0.01))
        files = (Path("cat.png"), Path("cat.npz"))
        return [ImageResult(Path("cat.jpg"), top, "softmax", "class 281", files, "imagenet", ("a note",))]

    monkeypatch.setattr("onnxlrp.explain.images.explain_images", explain_images)
    return call


def test_explain_prints_classes_and_files(run: Run, explained: dict[str, Any]) -> None:
    result = run("explain", "m.onnx", "cat.jpg", "more")
    assert result.exit_code == 0
    assert (explained["model"], explained["paths"]) == ("m.onnx", ("cat.jpg", "more"))
    assert explained["out_dir"] == "."
    assert explained["providers"] is None
    assert explained["progress"] is None
    assert not {"rules", "target", "inputs", "outputs", "axis"} & explained.keys()
    assert result.stdout.splitlines() == [
        "image      cat.jpg",
        "classes     63.21%   281  tabby",
        "             1.00%     3",
        "explained  class 281",
        "prepared   imagenet",
        "written    cat.png",
        "           cat.npz",
    ]
    assert result.stderr == "warning: cat.jpg: a note\n"


def test_explain_hands_on_every_option(run: Run, explained: dict[str, Any]) -> None:
    stated = (
        "--rules epsilon --target top:2 --input x --output y --labels l.txt --preprocess imagenet "
        "--resize 256 --crop 224x192 --mean 0.5,0.25,0 --std 1/4 --scale 1/255 --layout nhwc --color bgr "
        "-o out --top 3 --provider cuda --provider XnnpackExecutionProvider"
    )
    assert run("explain", "m.onnx", "cat.jpg", *stated.split()).exit_code == 0
    options = explained.pop("options")
    assert (options.preset, options.resize, options.crop) == ("imagenet", 256, (224, 192))
    assert (options.mean, options.std, options.scale) == ((0.5, 0.25, 0.0), (0.25,), 1 / 255)
    assert (options.layout, options.order) == ("nhwc", "bgr")
    assert explained == {
        "model": "m.onnx",
        "paths": ("cat.jpg",),
        "rules": "epsilon",
        "target": "top:2",
        "inputs": ("x",),
        "outputs": ("y",),
        "labels": "l.txt",
        "out_dir": "out",
        "top": 3,
        "providers": ["CUDAExecutionProvider", "XnnpackExecutionProvider"],
        "progress": None,
    }


def test_explain_as_json(run: Run, explained: dict[str, Any]) -> None:
    result = run("explain", "m.onnx", "cat.jpg", "--json")
    assert result.stderr == ""
    (found,) = json.loads(result.stdout)
    assert (found["image"], found["files"], found["notes"]) == ("cat.jpg", ["cat.png", "cat.npz"], ["a note"])
    assert found["top"][0] == {"index": 281, "label": "tabby", "score": 0.6321}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--resize", "0"),
        ("--resize", "1x2x3"),
        ("--crop", "big"),
        ("--mean", "0.5,"),
        ("--mean", "nan"),
        ("--std", "1/0"),
        ("--scale", "1/2/3"),
        ("--layout", "hwc"),
        ("--color", "grey"),
        ("--preprocess", "nothing"),
        ("--top", "0"),
    ],
)
def test_explain_refuses_odd_values(run: Run, explained: dict[str, Any], option: str, value: str) -> None:
    result = run("explain", "m.onnx", "cat.jpg", option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not explained


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True)
class WorstNode:
    node: str
    operator: str
    rule: str
    relevance_in: float
    relevance_out: float
    bias: float
    stabiliser: float
    other: float
    stopped: float
    gap: float


@dataclass(frozen=True)
class Report:
    checks: tuple[Check, ...]
    worst: tuple[WorstNode, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


GOOD = Check("forward equality", True, 0.0, 1e-5, "optimisation off")
SKIPPED = Check("batch independence", True, None, None, "the batch size is fixed")
BAD = Check("ledger", False, float("nan"), 1e-3, "the widest gap is at /f/0/Conv")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for `onnxlrp.verification.verify`; the report holds the checks under "checks"."""
    call: dict[str, Any] = {"checks": (GOOD, SKIPPED)}

    def verify(model: str, data: Any, **options: Any) -> Report:
        call.update(options, model=model, data=data)
        worst = WorstNode("/f/0/Conv", "Conv", "z-plus", 1.0, 0.5, 0.25, 1e-7, 0.0, 0.0, 0.24999)
        return Report(call["checks"], (worst,))

    monkeypatch.setitem(sys.modules, "onnxlrp.verification", SimpleNamespace(verify=verify))
    return call


def test_verify_prints_its_checks_and_the_worst_nodes(run: Run, verified: dict[str, Any]) -> None:
    result = run("verify", "m.onnx", "--rules", "epsilon", "--samples", "3", "--provider", "CUDA")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (verified["model"], verified["data"]) == ("m.onnx", None)
    assert (verified["rules"], verified["samples"]) == ("epsilon", 3)
    assert verified["providers"] == ["CUDAExecutionProvider"]
    lines = result.stdout.splitlines()
    assert lines[2].split() == ["forward", "equality", "ok", "0", "1e-05", "optimisation", "off"]
    assert lines[3].split() == ["batch", "independence", "-", "the", "batch", "size", "is", "fixed"]
    assert lines[-1] == "m.onnx: every check that applies has passed"
    cells = re.split(" {2,}", lines[-3].strip())
    assert cells == ["0.25", "/f/0/Conv", "z-plus", "1", "passed on 0.5, bias 0.25, stabiliser 1e-07"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_failed_check_is_exit_code_5(run: Run, verified: dict[str, Any], form: list[str]) -> None:
    verified["checks"] = (GOOD, BAD)
    result = run("verify", "m.onnx", *form)
    assert result.exit_code == 5
    assert result.stderr == "onnxlrp: m.onnx: 1 of 2 checks failed: ledger\n"
    if form:
        found = json.loads(result.stdout)
        assert found["passed"] is False
        assert found["checks"][1]["value"] is None
    else:
        assert "FAILED" in result.stdout
        assert "has passed" not in result.stdout


def test_verify_reads_arrays_by_input_name(run: Run, verified: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(6.0).reshape(2, 3), ids=np.array([[1], [2]]))
    assert run("verify", "m.onnx", str(tmp_path / "data.npz")).exit_code == 0
    assert verified["data"].keys() == {"x", "ids"}
    np.testing.assert_array_equal(verified["data"]["x"], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def test_verify_names_data_that_it_cannot_read(run: Run, verified: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello", encoding="utf-8")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    for name in ("missing.npz", "text.npz", "cut.npz", "empty.npz", "single.npy", "objects.npz"):
        result = run("verify", "m.onnx", str(tmp_path / name))
        assert (result.exit_code, result.stdout) == (2, ""), name
        (line,) = result.stderr.splitlines()
        assert name in line
    assert "model" not in verified
