"""Models made by others: the nine light architectures of the onnx package, and those of models/MANIFEST.toml.

The latter are fetched by tools/fetch.py into models/cache; those that were not fetched are left out.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import onnx
import pytest

from onnxlrp import verify
from onnxlrp.verification import Report
from tests.breadth.real import ALL, MODELS, Real, fetched

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("light_*.onnx"))
RULES = ("epsilon-plus", "epsilon")


def failures(report: Report) -> list[str]:
    return [f"{c.name}: {c.value} ({c.detail})" for c in report.checks if not c.passed]


def test_there_are_nine_light_models() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_architectures(path: Path) -> None:
    report = verify(path, rules="epsilon-plus")
    assert failures(report) == []


def test_every_model_of_the_manifest_is_tested() -> None:
    entries = tomllib.loads((MODELS / "MANIFEST.toml").read_text())["fetch"]
    assert {e["name"] for e in entries if e["path"].endswith(".onnx")} == {model.name for model in ALL}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_models_of_the_manifest(model: Real, rules: str) -> None:
    path, feeds = fetched(model.name), model.feeds()
    for output in model.outputs:
        report = verify(path, feeds, rules=rules, outputs=(output,) if output else ())
        assert failures(report) == [], json.dumps([line.node for line in report.worst[:3]])
