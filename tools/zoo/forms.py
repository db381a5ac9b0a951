"""What networks take and return: how those of a form are built, exported, fed and explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from zoo.detectors import build_detector
from zoo.export import export, export_detector
from zoo.network import Network
from zoo.networks import Array, build, images


@dataclass(frozen=True)
class Form:
    """A form of networks.

    Attributes:
        build: the network with random weights.
        export: writes a network for images of a size by an exporter; the last argument says what is dynamic.
        sample: what it is verified on, of a size in pixels.
        asked: what onnxlrp is asked for, beside the rule table.
        compared: whether the maps of class 0 of both exports are compared.
    """

    build: Callable[[Network], nn.Module]
    export: Callable[[nn.Module, int, str, Path, str], Path]
    sample: Callable[[int], Array]
    asked: Mapping[str, Any] = field(default_factory=dict)
    compared: bool = True


def _photo(size: int) -> Array:
    """An image [3, size, size] with values of 0 to 1."""
    found: Array = 1 / (1 + np.exp(-images(1, size)[0]))
    return found


#: Neither the batch nor, where it is dynamic, the image is as large as it was when the model was exported.
_SCORES = Form(build, export, lambda size: images(3, size))
#: The scores have an axis of boxes and none of samples: a seed says how much each box counts.
_DETECTORS = Form(
    build_detector,
    lambda model, size, exporter, path, dynamic: export_detector(model, size, exporter, path),
    _photo,
    {"outputs": ("scores",), "target": "seed"},
    compared=False,
)


def form_of(network: Network) -> Form:
    return _DETECTORS if network.group == "detectors" else _SCORES
