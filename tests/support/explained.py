"""The one place where these tests touch the code under test: a model in, relevance in float64 out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

import onnxlrp
from tests.support.evaluate import run_reference, to_float64

Array = np.ndarray


@dataclass(frozen=True)
class Explained:
    """Relevance by input name, the explained output y, and the relevance R = seed * y that was put on it."""

    relevance: Mapping[str, Array]
    y: Array
    seed: Array

    @property
    def seeded(self) -> Array:
        return self.seed * self.y


def explain_seeded(
    model: ModelProto,
    rules: str,
    feeds: Mapping[str, Array],
    folder: Path | None = None,
    *,
    inputs: tuple[str, ...] = (),
    seed: Array | None = None,
    random_seed: int = 5,
) -> Explained:
    """Relevance of sum(seed * first output), run in float64 by `onnx.reference`; a random seed is signed.

    `rules` is a preset, or the TOML text of a table when `folder` says where to put it.
    """
    if folder is not None:
        path = folder / "table.toml"
        path.write_text(rules)
        rules = str(path)
    y_name = model.graph.output[0].name
    y = run_reference(to_float64(model), feeds)[y_name]
    seed = np.random.default_rng(random_seed).normal(size=y.shape) if seed is None else seed
    emitted = to_float64(onnxlrp.convert(model, rules=rules, target="seed", inputs=inputs, outputs=(y_name,)))
    result = run_reference(emitted, {**feeds, "lrp_seed": seed})
    np.testing.assert_array_equal(result[y_name], y)
    suffix = "_relevance"
    names = [name[: -len(suffix)] for name in result if name.endswith(suffix)]
    return Explained({name: result[name + suffix] for name in names}, y, seed)
