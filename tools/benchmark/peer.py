"""The same networks in PyTorch: zennit's composites, and the plain gradient. Needs torch and zennit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmark.networks import build, torchvision_models

#: Bounds of the table epsilon-gamma-box.
LOW, HIGH = -2.12, 2.64
#: Rule tables that zennit has no composite for because it needs none: PyTorch's own gradient.
PLAIN = ("gradient-x-input",)
#: Rule table -> name of zennit's composite.
COMPOSITES: Mapping[str, str] = {
    "epsilon": "epsilon",
    "epsilon-plus": "EpsilonPlus",
    "default": "EpsilonPlus",
    "epsilon-plus-flat": "EpsilonPlusFlat",
    "epsilon-alpha2-beta1": "EpsilonAlpha2Beta1",
    "epsilon-alpha2-beta1-flat": "EpsilonAlpha2Beta1Flat",
    "epsilon-gamma-box": "EpsilonGammaBox",
    "deconvnet": "DeconvNet",
    "guided-backprop": "GuidedBackprop",
    "excitation-backprop": "ExcitationBackprop",
}


def explainer(network: str, rules: str, data: np.ndarray[Any, Any], device: str, threads: int) -> Callable[[], object]:
    """A function that explains the most likely class of each sample once: forward pass and relevance pass.

    The composite stays attached to the network between calls. `device` is "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    model = build(network).to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if rules not in PLAIN:
        _composite(network, rules).register(model)

    def run() -> object:
        x = torch.from_numpy(data).to(device).requires_grad_()
        y = model(x)
        winner = y.detach().amax(dim=1, keepdim=True)
        seed = torch.where(y.detach() == winner, winner, 0.0)
        (relevance,) = torch.autograd.grad(y, x, seed)
        return relevance.cpu().numpy()

    return run


def _composite(network: str, rules: str) -> Any:
    torchvision_models()  # zennit imports torchvision itself
    composites, types, rules_module = (import_module(f"zennit.{module}") for module in ("composites", "types", "rules"))

    canonizers = _canonizers(network)
    name = COMPOSITES[rules]
    if name == "epsilon":
        layers = [*composites.layer_map_base(), (types.Linear, rules_module.Epsilon())]
        return composites.LayerMapComposite(layers, canonizers=canonizers)
    bounds = {"low": LOW, "high": HIGH} if name == "EpsilonGammaBox" else {}
    return getattr(composites, name)(canonizers=canonizers, **bounds)


def _canonizers(network: str) -> list[Any]:
    canonizers, torchvision = (import_module(f"zennit.{module}") for module in ("canonizers", "torchvision"))
    if network.startswith("vgg"):
        return [torchvision.VGGCanonizer()]
    if network.startswith(("resnet", "resnext", "wide_resnet")):
        return [torchvision.ResNetCanonizer()]
    if network.startswith("densenet"):
        return []
    return [canonizers.SequentialMergeBatchNorm()]
