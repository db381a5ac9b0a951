"""Texts of other lengths than the one that was exported, of one token, and padded ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import onnxlrp
from tests.oracle.modified_gradient import token_relevance
from tests.oracle.transformer_models import ACTIVATIONS, Case, case, export
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64

#: Absolute positions, learned or rotary, and relative ones; encoders and decoders.
_FAMILIES = ("bert", "gpt2", "llama", "t5-encoder")


def _ids(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(3, 40, (batch, length), generator=torch.Generator().manual_seed(length))


def _of_length(given: Case, length: int) -> Case:
    return Case(given.runner, (_ids(length), torch.ones(2, length, dtype=torch.long)), given.names)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", _FAMILIES)
def test_any_length_is_explained_by_a_model_exported_with_seven_tokens(
    tmp_path: Path, name: str, exporter: str
) -> None:
    exported = case(name)
    model = export(exported, tmp_path / "model.onnx", exporter == "dynamo")
    emitted = to_float64(onnxlrp.convert(model, rules="attnlrp", target="seed", inputs=("ids",)))
    used = {v.name for v in model.graph.input}
    for length in (1, 4, 12):
        given = _of_length(exported, length)
        runner = given.double()
        with torch.no_grad():
            shape = tuple(runner(*given.inputs).shape)
        seed = np.random.default_rng(5).normal(size=shape)
        run = lambda runner=runner, given=given: runner(*given.inputs)  # noqa: E731
        wide = torch.from_numpy(seed)
        expected = token_relevance(runner.explained, runner.model, run, wide, activations=ACTIVATIONS).numpy()
        feeds = {n: x.numpy() for n, x in zip(given.names, given.inputs, strict=True) if n in used}
        found = run_reference(emitted, {**feeds, "lrp_seed": seed})["ids_relevance"]
        assert relative_l2(found, expected) < 1e-6, length


def _padded(ids: np.ndarray, length: int, left: bool) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mask) filled up to a length."""
    missing = ((0, 0), (length - ids.shape[1], 0) if left else (0, length - ids.shape[1]))
    return np.pad(ids, missing, constant_values=2), np.pad(np.ones_like(ids), missing)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(("name", "left"), [("bert", False), ("t5-encoder", False), ("llama", True)])
def test_padding_gets_exactly_nothing_and_changes_nothing_for_others(
    tmp_path: Path, name: str, left: bool, exporter: str
) -> None:
    """Rotary and relative positions do not care where a text begins, so that decoders may be padded in front."""
    model = export(case(name), tmp_path / "model.onnx", exporter == "dynamo")
    how = {"position": "last"} if left else {"target": "seed"}
    emitted = onnxlrp.convert(model, rules="attnlrp", inputs=("ids",), **how)
    short, long = _ids(4, 1).numpy(), _ids(7, 1).numpy()
    filled, mask = _padded(short, 7, left)

    def relevance(ids: np.ndarray, seen: np.ndarray) -> np.ndarray:
        feeds = {"ids": ids, "mask": seen}
        if not left:
            # The first position's first channel, as in a classifier that reads [CLS].
            feeds["lrp_seed"] = np.zeros((*ids.shape, 16), np.float32)
            feeds["lrp_seed"][:, 0, 0] = 1.0
        return run_onnxruntime(emitted, feeds)["ids_relevance"]

    together = relevance(np.concatenate([long, filled]), np.concatenate([np.ones_like(long), mask]))
    padding = mask[0] == 0
    assert not together[1][padding].any()
    assert relative_l2(together[1][~padding], relevance(short, np.ones_like(short))[0]) < 1e-4
    assert relative_l2(together[0], relevance(long, np.ones_like(long))[0]) < 1e-5
