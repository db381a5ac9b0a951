"""Rule tables for transformers against a modified gradient in PyTorch, in float64 and in onnxruntime."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import onnxlrp
from tests.oracle.modified_gradient import input_relevance, token_relevance
from tests.oracle.transformer_models import ACTIVATIONS, FAMILIES, Case, case, export
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime, run_reference, to_float64

Array = np.ndarray


def _expected(given: Case, seed: Array, conservative: bool) -> Array:
    runner, wide = given.double(), torch.from_numpy(seed)
    how = {"activations": ACTIVATIONS, "conservative": conservative}
    if len(given.inputs) > 1:
        return token_relevance(runner.explained, runner.model, lambda: runner(*given.inputs), wide, **how).numpy()
    return input_relevance(runner, runner.model, given.inputs[0].double(), wide, **how).numpy()


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_is_the_modified_gradient(tmp_path: Path, name: str, exporter: str, rules: str) -> None:
    given = case(name)
    model = export(given, tmp_path / "model.onnx", exporter == "dynamo")
    emitted = onnxlrp.convert(model, rules=rules, target="seed", inputs=(given.names[0],))
    feeds = given.feeds(model)
    with torch.no_grad():
        shape = given.runner(*given.inputs).shape
    seed = np.random.default_rng(5).normal(size=tuple(shape))
    if len(given.inputs) == 2:
        # Nothing that stands at a padded position is explained.
        seed *= given.inputs[1].numpy()[..., None]
    expected = _expected(given, seed, rules == "cp-lrp")
    output = f"{given.names[0]}_relevance"
    widened = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in feeds.items()}
    wide = run_reference(to_float64(emitted), {**widened, "lrp_seed": seed})[output]
    narrow = run_onnxruntime(emitted, {**feeds, "lrp_seed": seed.astype(np.float32)})[output]
    assert relative_l2(wide, expected) < 1e-6
    assert relative_l2(narrow, expected) < 1e-4


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_a_float16_version_has_nearly_the_same_map(tmp_path: Path, name: str) -> None:
    given = case(name)
    narrow = Case(copy.deepcopy(given.runner).half(), tuple(_halved(x) for x in given.inputs), given.names)
    maps = []
    for version, folder in ((given, "single"), (narrow, "half")):
        (tmp_path / folder).mkdir()
        model = export(version, tmp_path / folder / "model.onnx", dynamo=True)
        emitted = onnxlrp.convert(model, rules="attnlrp", target=_first_element(version), inputs=(given.names[0],))
        feeds = {n: x.numpy() for n, x in zip(version.names, version.inputs, strict=True)}
        used = {v.name for v in model.graph.input}
        found = run_onnxruntime(emitted, {n: x for n, x in feeds.items() if n in used})
        maps.append(found[f"{given.names[0]}_relevance"])
    assert maps[1].dtype == np.float32
    assert np.isfinite(maps[1]).all()
    assert cosine(maps[1], maps[0]) >= 0.99


def _halved(x: torch.Tensor) -> torch.Tensor:
    return x.half() if x.is_floating_point() else x


def _first_element(given: Case) -> tuple[int, ...]:
    """The target: the last channel of the first position."""
    with torch.no_grad():
        y = given.runner(*given.inputs)
    return (*[0] * (y.ndim - 2), y.shape[-1] - 1)
