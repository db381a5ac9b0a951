"""Models made by others: the nine light architectures of the onnx package, and those of models/MANIFEST.toml.

The latter are fetched by tools/fetch.py into models/cache; those that were not fetched are left out.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxlrp import verify
from onnxlrp.verification import Report

REPOSITORY = Path(__file__).resolve().parents[2]
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


@dataclass(frozen=True)
class Fetched:
    """A model of the manifest: what it is given, and the outputs that are explained one after another."""

    name: str
    feeds: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...] = ("",)
    photo: str = ""
    """A fetched photo, put into the (image-shaped) input in place of random numbers."""


MODELS = (
    Fetched("mobilenetv2", {"data": (1, 3, 224, 224)}, photo="cat"),
    Fetched("mnist-conv", {"Input3": (1, 1, 28, 28)}),
    Fetched("yunet", {"input": (1, 3, 640, 640)}, ("cls_8", "obj_16", "bbox_32", "kps_8"), photo="astronaut"),
    Fetched("ocr-detect", {"x": (2, 3, 96, 160)}, photo="page"),
    Fetched("ocr-direction", {"x": (2, 3, 48, 192)}, photo="page"),
    Fetched("ocr-recognise", {"x": (2, 3, 48, 160)}, photo="page"),
    Fetched("basic-pitch", {"serving_default_input_2:0": (2, 43844, 1)}),
    Fetched("pulsevad", {"log_mel": (3, 64, 21)}),
)


def fetched(name: str) -> Path:
    """Where tools/fetch.py puts an entry of the manifest; the test is skipped where it has not done so."""
    entries = tomllib.loads((REPOSITORY / "models" / "MANIFEST.toml").read_text())["fetch"]
    entry = next(e for e in entries if e["name"] == name)
    path = REPOSITORY / "models" / "cache" / str(entry["package"]) / Path(str(entry["path"])).name
    if not path.is_file():
        pytest.skip(f"{name} is not fetched (tools/fetch.py {name})")
    return path


def data(model: Fetched) -> dict[str, np.ndarray]:
    """The photo, about standard normal, as a batch in which each sample is another part of it; or random numbers."""
    rng = np.random.default_rng(0)
    if not model.photo:
        return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in model.feeds.items()}
    picture = Image.open(fetched(model.photo)).convert("RGB")
    feeds = {}
    for name, (batch, channels, height, width) in model.feeds.items():
        parts = [picture.crop((0, 40 * i, picture.width, picture.height)) for i in range(batch)]
        pixels = [np.asarray(part.resize((width, height)), np.float32) for part in parts]
        feeds[name] = (np.stack(pixels).transpose(0, 3, 1, 2)[:, :channels] / 127.5 - 1.0).copy()
    return feeds


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_models_of_the_manifest(model: Fetched, rules: str) -> None:
    path, feeds = fetched(model.name), data(model)
    for output in model.outputs:
        report = verify(path, feeds, rules=rules, outputs=(output,) if output else ())
        assert failures(report) == [], json.dumps([line.node for line in report.worst[:3]])
