"""LXT's AttnLRP on the benchmark's transformers. Needs lxt, and torch and transformers in versions that fit it.

LXT replaces methods of the classes that a network is made of, for the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from benchmark import transformer_networks
from benchmark.networks import torchvision_models
from benchmark.transformer_networks import Runner

#: Network -> the module that LXT patches for it, and where and under which name it keeps the patches.
_PATCHES: Mapping[str, tuple[str, str, str]] = {
    "bert-base": ("transformers.models.bert.modeling_bert", "bert", "attnLRP"),
    "gpt2-small": ("transformers.models.gpt2.modeling_gpt2", "gpt2", "attnLRP"),
    "vit-base": ("torchvision.models.vision_transformer", "vit_torch", "cp_LRP"),
}


class _Image(nn.Module):
    """torchvision's ViT-B/16, the only one that LXT has patches for, called like those of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torchvision_models().vit_b_16()
        # torchvision starts the head at zero, through which nothing gets relevance.
        nn.init.normal_(self.model.heads.head.weight, std=0.02)

    def forward(self, pixel_values: Tensor, return_dict: bool) -> Any:
        return SimpleNamespace(logits=self.model(pixel_values))


def explainer(network: str, batch: int, device: str, threads: int) -> Callable[[], object]:
    """A function that explains the largest logit once: forward pass and relevance pass.

    Raises:
        LookupError: LXT has no patches for the network.
    """
    if network not in _PATCHES:
        raise LookupError(f"LXT has no patches for {network!r}")
    torchvision_models()  # transformers and LXT import torchvision themselves
    patched, home, name = _PATCHES[network]
    patches = getattr(import_module(f"lxt.efficient.models.{home}"), name)
    import_module("lxt.efficient").monkey_patch(import_module(patched), patches)
    runner = Runner(_Image(), text=False) if network == "vit-base" else transformer_networks.build(network)
    runner.eval().requires_grad_(False)
    return transformer_networks.gradient_of(runner, batch, device, threads)
