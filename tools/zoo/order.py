"""In which order networks are measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from benchmark.networks import torchvision_models

from zoo.networks import Network, bare


def smallest_first(networks: Sequence[Network]) -> list[Network]:
    """Networks in the order of their parameters: a run that is cut off has then measured as many as it could."""
    return sorted(networks, key=parameters)


def parameters(network: Network) -> int:
    """How many parameters a network has, without making them; 0 where that cannot be found out."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in bare(network).parameters())
    except Exception:  # a constructor may ask for values, which tensors of this device do not have
        return _published(network)


def _published(network: Network) -> int:
    """What torchvision says of the weights that it offers."""
    if network.group == "timm":
        return 0
    weights = torchvision_models().get_model_weights(network.name)
    return max((int(w.meta["num_params"]) for w in weights), default=0)
