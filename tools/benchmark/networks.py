"""torchvision networks with random weights, and their export. Needs torch, torchvision and onnxscript."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.exporting import export_with_open_batch

SIZE = 224
#: Declarations hold as long as their library lives.
_declared: list[Any] = []


def torchvision_models() -> Any:
    """The module torchvision.models, also where its compiled operators do not fit the installed torch."""
    try:
        return import_module("torchvision.models")
    except RuntimeError:
        # The operators are not used here; they only have to be declared for the import to work.
        registry: Any = torch.library
        library = registry.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        return import_module("torchvision.models")


def build(name: str, seed: int = 0) -> nn.Module:
    """A classifier of torchvision in evaluation mode, whose BatchNorms have statistics like trained ones.

    Raises:
        LookupError: torchvision has no such network.
    """
    builder = getattr(torchvision_models(), name, None)
    if not callable(builder):
        raise LookupError(f"torchvision has no network {name!r}")
    torch.manual_seed(seed)
    network: nn.Module = builder(weights=None).eval()
    settle(network, SIZE)
    return network


def settle(network: nn.Module, size: int, images: Tensor | None = None) -> None:
    """Gives the BatchNorms of an image network, in place, statistics like trained ones.

    Args:
        size: of the images that they come from, in pixels, unless `images` [n, 3, height, width] are given.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    with torch.no_grad():
        for norm in norms:
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0.0, 0.3)
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        if norms:
            network(torch.randn(4, 3, size, size) if images is None else images)
        for norm in norms:
            norm.eval()
            deviation = norm.running_var.sqrt() if norm.running_var is not None else torch.ones(1)
            if norm.running_mean is not None:
                norm.running_mean += 0.1 * deviation * torch.randn_like(deviation)


def export(name: str, path: Path, exporter: str) -> None:
    """Writes the network as ONNX with a dynamic batch; `exporter` is "dynamo" or "torchscript"."""
    export_with_open_batch(build(name), torch.randn(2, 3, SIZE, SIZE), "image", path, exporter)
