"""Decoders that take the keys and values of earlier tokens as inputs and return them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

import onnxlrp
from tests.oracle.modified_gradient import rules
from tests.oracle.transformer_models import ACTIVATIONS, FAMILIES
from tests.support.evaluate import relative_l2, run_reference, to_float64

_LAYERS, _PAST, _NEW = 2, 5, 3
_NAMES = [f"past_{kind}_{i}" for i in range(_LAYERS) for kind in ("key", "value")]
#: Family -> heads of keys and width of one.
_CACHES = {"gpt2": (2, 8), "llama": (1, 8)}


class _Continuing(nn.Module):
    """Logits of new tokens, and the caches with them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        cache = DynamicCache()
        for i in range(_LAYERS):
            cache.update(past[2 * i], past[2 * i + 1], i)
        found = self.model(input_ids=ids, past_key_values=cache, use_cache=True, return_dict=True)
        return (found.logits, *(t for layer in cache.layers for t in (layer.keys, layer.values)))


def _inputs(name: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 40, (2, _NEW), generator=generator)
    heads, width = _CACHES[name]
    return (ids, *(torch.randn(2, heads, _PAST, width, generator=generator) for _ in _NAMES))


def _export(model: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            inputs,
            str(path),
            dynamo=False,
            input_names=["ids", *_NAMES],
            output_names=["logits", *(f"new_{n}" for n in _NAMES)],
            dynamic_axes={"ids": {0: "batch"}, "logits": {0: "batch"}, **{n: {0: "batch"} for n in _NAMES}},
            opset_version=17,
        )
    return onnx.load(path)


def _expected(model: nn.Module, inputs: tuple[Tensor, ...], seed: np.ndarray) -> dict[str, np.ndarray]:
    """Modified gradient times input of the new tokens and of the caches."""
    wide = model.double().requires_grad_(False)
    leaves = {n: x.double().requires_grad_() for n, x in zip(_NAMES, inputs[1:], strict=True)}

    def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        leaves["ids"] = output.detach().requires_grad_()
        return leaves["ids"]

    handle = wide.model.get_input_embeddings().register_forward_hook(cut)  # type: ignore[operator,union-attr]
    with rules(wide, ACTIVATIONS):
        logits = wide(inputs[0], *(leaves[n] for n in _NAMES))[0]
    handle.remove()
    (logits * torch.from_numpy(seed)).sum().backward()
    found = {n: (x * x.grad).detach() for n, x in leaves.items() if x.grad is not None}
    return {n: (r.sum(-1) if n == "ids" else r).numpy() for n, r in found.items()}


@pytest.mark.parametrize("name", _CACHES)
def test_cached_positions_are_explained_or_left_out(tmp_path: Path, name: str) -> None:
    model, inputs = _Continuing(FAMILIES[name].build()).eval(), _inputs(name)
    exported = _export(model, inputs, tmp_path / "model.onnx")
    feeds = {n: x.numpy() for n, x in zip(["ids", *_NAMES], inputs, strict=True)}
    seed = np.random.default_rng(5).normal(size=(2, _NEW, 40))
    widened = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in feeds.items()}
    expected = _expected(model, inputs, seed)

    def found(**how: Any) -> dict[str, np.ndarray]:
        emitted = onnxlrp.convert(exported, rules="attnlrp", target="seed", outputs=("logits",), **how)
        return run_reference(to_float64(emitted), {**widened, "lrp_seed": seed})

    whole, tokens = found(), found(inputs=("ids",))
    for source, values in expected.items():
        assert relative_l2(whole[f"{source}_relevance"], values) < 1e-6, source
    assert relative_l2(tokens["ids_relevance"], expected["ids"]) < 1e-6
    assert not any(n.startswith("past") and n.endswith("relevance") for n in tokens)
    for n in _NAMES:
        assert whole[f"new_{n}"].shape[2] == _PAST + _NEW, "the caches are returned as before"
