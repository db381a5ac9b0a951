"""Relevance of heads and neurons against Dual Path Attribution's formulas in PyTorch, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import onnxlrp
from tests.oracle.modified_gradient import rules
from tests.oracle.transformer_models import ACTIVATIONS, Case, case, export
from tests.support.evaluate import relative_l2, run_reference, to_float64

#: Family -> end of the name of the last matrix of a feed-forward layer.
_DOWN = {"bert": "layer.{}.output.dense", "gpt2": "h.{}.mlp.c_proj", "llama": "layers.{}.mlp.down_proj"}


class _Products(TorchFunctionMode):
    """Keeps the products of attention weights (rows that add up to 1) with values: (weights, values, product)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        y = func(*args, **(kwargs or {}))
        if func is torch.matmul and all(isinstance(a, Tensor) and a.ndim == 4 for a in args):
            with torch._C.DisableTorchFunction():
                if y.requires_grad and torch.allclose(args[0].sum(-1), torch.ones((), dtype=args[0].dtype)):
                    y.retain_grad()
                    self.found.append((args[0], args[1], y))
        return y


def _expected(given: Case, name: str, seed: np.ndarray) -> dict[str, np.ndarray]:
    """<t, A[q, k] V_k W_o> and <t, a_i W_i> for each layer."""
    runner = given.double()
    neurons: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any) -> None:
        inputs[0].retain_grad()
        neurons.append(inputs[0])

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_(True)

    named = dict(runner.named_modules())
    ends = [end.format(i) for i in range(2) for end in (_DOWN[name],)]
    for end in ends:
        next(m for n, m in named.items() if n.endswith(end)).register_forward_pre_hook(keep)
    runner.model.get_input_embeddings().register_forward_hook(cut)  # type: ignore[operator]
    with rules(runner.model, ACTIVATIONS), _Products() as products:
        y = runner(*given.inputs)
    (y * torch.from_numpy(seed)).sum().backward()
    found = {}
    for i, (weights, values, mixed) in enumerate(products.found):
        assert mixed.grad is not None
        found[f"heads_{i}_relevance"] = (weights * (mixed.grad @ values.transpose(-1, -2))).detach().numpy()
    for i, x in enumerate(neurons):
        assert x.grad is not None
        found[f"neurons_{i}_relevance"] = (x * x.grad).detach().numpy()
    return found


@pytest.mark.parametrize("table", ["dpa", "attnlrp"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", _DOWN)
def test_heads_and_neurons(tmp_path: Path, name: str, exporter: str, table: str) -> None:
    given = case(name)
    model = export(given, tmp_path / "model.onnx", exporter == "dynamo")
    how = {"target": "seed", "inputs": ("ids",), "components": ("heads", "neurons")}
    emitted = to_float64(onnxlrp.convert(model, rules=table, **how))
    feeds = given.feeds(model)
    with torch.no_grad():
        shape = tuple(given.runner(*given.inputs).shape)
    seed = np.random.default_rng(5).normal(size=shape) * given.inputs[1].numpy()[..., None]
    found = run_reference(emitted, {**feeds, "lrp_seed": seed})
    expected = _expected(given, name, seed)
    assert len(expected) == 4
    for output, values in expected.items():
        assert relative_l2(found[output].reshape(values.shape), values) < 1e-6, output
    # Each pair's contributions add up to what the attention's output was given, each neuron's to the layer's.
    assert set(expected) == {o for o in found if o.startswith(("heads", "neurons"))}
