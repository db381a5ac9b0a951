"""pe-aware: the relevance of positions, learned and rotary, against a replica in PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

import onnxlrp
from tests.oracle.modified_gradient import rules
from tests.oracle.transformer_models import ACTIVATIONS, Case, Runner, case, export
from tests.support.evaluate import relative_l2, run_reference, to_float64

Leaves = list[Tensor]


def _leaf(x: Tensor, batch: int) -> Tensor:
    """A copy for each sample, so that samples can be told apart."""
    return x.detach().expand(batch, *x.shape[1:]).clone().requires_grad_()


def _learned(module: Callable[[Runner], nn.Module]) -> Callable[[Runner, pytest.MonkeyPatch], Leaves]:
    def cut(runner: Runner, patch: pytest.MonkeyPatch) -> Leaves:
        leaves: Leaves = []

        def keep(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            leaves.append(_leaf(output if output.ndim == 3 else output[None], 2))
            return leaves[-1]

        module(runner).register_forward_hook(keep)
        return leaves

    return cut


def _added_parameter(runner: Runner, patch: pytest.MonkeyPatch) -> Leaves:
    embeddings: Any = runner.model.embeddings
    leaf = _leaf(embeddings.position_embeddings, 2)
    del embeddings.position_embeddings
    embeddings.position_embeddings = leaf
    return [leaf]


def _rotary(runner: Runner, patch: pytest.MonkeyPatch) -> Leaves:
    """The tables of each layer are leaves of their own."""
    leaves: Leaves = []
    turn = modeling_llama.apply_rotary_pos_emb

    def with_leaves(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        both = [_leaf(cos, 2), _leaf(sin, 2)]
        leaves.extend(both)
        return turn(q, k, *both, *args, **kwargs)

    patch.setattr(modeling_llama, "apply_rotary_pos_emb", with_leaves)
    return leaves


#: Family -> how its position tables are made leaves, and whether absolute values count.
_FAMILIES: dict[str, tuple[Callable[[Runner, pytest.MonkeyPatch], Leaves], bool]] = {
    "bert": (_learned(lambda r: r.model.embeddings.position_embeddings), False),
    "gpt2": (_learned(lambda r: r.model.transformer.wpe), False),
    "vit": (_added_parameter, False),
    "llama": (_rotary, True),
}


def _expected(given: Case, name: str, seed: np.ndarray, patch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """(relevance of the embeddings or the image, relevance of positions)."""
    runner = given.double()
    cut, absolute = _FAMILIES[name]
    inputs: Leaves = []
    tables = cut(runner, patch)
    if len(given.inputs) > 1:

        def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            inputs.append(output.detach().requires_grad_())
            return inputs[-1]

        runner.model.get_input_embeddings().register_forward_hook(keep)  # type: ignore[operator]
        data = given.inputs
    else:
        inputs.append(given.inputs[0].double().requires_grad_())
        data = (inputs[0],)
    with rules(runner.model, ACTIVATIONS):
        y = runner(*data)
    (y * torch.from_numpy(seed)).sum().backward()
    (x,) = inputs
    assert x.grad is not None
    own = (x * x.grad).detach()
    parts = [(t * t.grad).sum(-1).detach() for t in tables if t.grad is not None]
    position = sum(part.abs() if absolute else part for part in parts)
    assert isinstance(position, Tensor)
    return (own.sum(-1) if len(given.inputs) > 1 else own).numpy(), position.numpy()


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", _FAMILIES)
def test_positions_keep_what_they_receive(
    tmp_path: Path, name: str, exporter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = case(name)
    model = export(given, tmp_path / "model.onnx", exporter == "dynamo")
    source = given.names[0]
    emitted = to_float64(onnxlrp.convert(model, rules="pe-aware", target="seed", inputs=(source,)))
    feeds = given.feeds(model)
    widened = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in feeds.items()}
    with torch.no_grad():
        shape = tuple(given.runner(*given.inputs).shape)
    seed = np.random.default_rng(5).normal(size=shape)
    if len(given.inputs) > 1:
        seed *= given.inputs[1].numpy()[..., None]
    found = run_reference(emitted, {**widened, "lrp_seed": seed})
    own, position = _expected(given, name, seed, monkeypatch)
    assert relative_l2(found[f"{source}_position_relevance"], position) < 1e-6
    counted = own + position if len(given.inputs) > 1 else own
    assert relative_l2(found[f"{source}_relevance"], counted) < 1e-6
