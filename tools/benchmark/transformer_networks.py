"""Transformers with random weights, their export, and one forward and backward pass of them. Needs torch, transformers.

Their shapes are those of BERT-base, ViT-B/16 and GPT-2 small; text is `SEQUENCE` tokens long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from benchmark.exporting import export_with_open_batch
from benchmark.networks import torchvision_models

SEQUENCE = 128
_PIXELS = 224


class Runner(nn.Module):
    """A model as a function of tensors alone; what it returns are logits."""

    def __init__(self, model: nn.Module, text: bool) -> None:
        super().__init__()
        self.model, self.text = model, text

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(**{"input_ids" if self.text else "pixel_values": x}, return_dict=True).logits
        return logits


@dataclass(frozen=True)
class _Network:
    """How a model is made and whether it reads token ids or pixels."""

    build: Callable[[], nn.Module]
    text: bool = True


_NETWORKS: Mapping[str, _Network] = {
    "bert-base": _Network(lambda: transformers.BertForSequenceClassification(transformers.BertConfig())),
    "vit-base": _Network(
        lambda: transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)), False
    ),
    "gpt2-small": _Network(lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))),
}


def build(name: str, seed: int = 0) -> Runner:
    """The network in evaluation mode, parameters fixed."""
    torchvision_models()  # transformers imports torchvision itself
    torch.manual_seed(seed)
    network = _NETWORKS[name]
    model = network.build().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return Runner(model, network.text)


def export(name: str, path: Path, exporter: str) -> None:
    """Writes the network as ONNX with a dynamic batch; `exporter` is "dynamo" or "torchscript"."""
    runner = build(name)
    example = torch.ones(2, SEQUENCE, dtype=torch.int64) if runner.text else torch.randn(2, 3, _PIXELS, _PIXELS)
    export_with_open_batch(runner, example, "input_ids" if runner.text else "image", path, exporter)


def gradient(name: str, batch: int, device: str, threads: int) -> Callable[[], object]:
    """As `gradient_of`, of one of these networks."""
    return gradient_of(build(name), batch, device, threads)


def gradient_of(runner: Runner, batch: int, device: str, threads: int) -> Callable[[], object]:
    """A function that runs the forward pass and the gradient of the explained logit times the embeddings (or pixels).

    The logit is the largest, for text that is continued of the last position.
    """
    torch.set_num_threads(threads)
    runner = runner.to(device)
    leaves: list[Tensor] = []

    def embedded(module: nn.Module, given: Any, found: Tensor) -> Tensor:
        leaves.append(found.detach().requires_grad_())
        return leaves[-1]

    if runner.text:
        table: Any = runner.model
        table.get_input_embeddings().register_forward_hook(embedded)
        data = torch.ones(batch, SEQUENCE, dtype=torch.int64)
    else:
        data = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, _PIXELS, _PIXELS), np.float32))

    def run() -> object:
        x = data.to(device)
        if not runner.text:
            leaves.append(x.requires_grad_())
        y = runner(x)
        last = y[:, -1] if y.ndim == 3 else y
        (slope,) = torch.autograd.grad(last.amax(dim=-1).sum(), leaves[-1])
        relevance = slope * leaves[-1].detach()
        leaves.clear()
        return (relevance.sum(-1) if runner.text else relevance).cpu().numpy()

    return run
