"""Which networks there are, and how each is built: an image in, one tensor of numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from benchmark.networks import settle, torchvision_models
from torch import Tensor, nn

from zoo.families import TIMM
from zoo.network import Network

Array = np.ndarray[Any, Any]

#: Networks whose operators (attention over windows or patches) are no part of a convolutional network.
ATTENTION = ("vit_*", "swin_*", "maxvit_*")
#: The smallest image that leaves something to pool at the end; everything else takes 64 pixels.
SMALLEST: Mapping[str, int] = {
    "alexnet": 224,
    "vgg*": 224,
    "vit_*": 224,
    "maxvit_*": 224,
    "inception_v3": 96,
    "ssd300*": 300,
    "deeplabv3*": 96,
}
#: The same for whole detectors.
WHOLE: Mapping[str, int] = {"*": 96, "ssd300*": 300, "ssdlite320*": 320}
_SMALL = 64
#: Detectors whose heads are convolutions on feature maps; of the others the backbone is taken.
_WITH_HEADS = ("fcos*", "retinanet*", "ssd*")


def networks(patterns: Sequence[str] = ("*",), groups: Sequence[str] = ()) -> list[Network]:
    """The networks of these groups (all when empty) whose name matches one of the patterns."""
    found = [*_torchvision(), *(Network("timm", family, name, size) for family, (name, size) in TIMM.items())]
    return [n for n in found if (not groups or n.group in groups) and any(fnmatch(n.name, p) for p in patterns)]


def _torchvision() -> list[Network]:
    models = torchvision_models()
    modules = {
        "classification": models,
        "segmentation": models.segmentation,
        "detection": models.detection,
        "detectors": models.detection,
    }
    return [
        Network(group, group, name, smallest_size(name, group), _part(group, name))
        for group, module in modules.items()
        for name in models.list_models(module=module)
    ]


def _part(group: str, name: str) -> str:
    if group != "detection":
        return ""
    return "backbone and heads" if any(fnmatch(name, p) for p in _WITH_HEADS) else "backbone"


def smallest_size(name: str, group: str = "") -> int:
    """Height and width of a small image that a network of torchvision can take, in pixels."""
    sizes = WHOLE if group == "detectors" else SMALLEST
    fitting = [size for pattern, size in sizes.items() if fnmatch(name, pattern)]
    return fitting[-1] if fitting else _SMALL


def has_attention(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in ATTENTION)


def build(network: Network) -> nn.Module:
    """The network with random weights, non-trivial BatchNorm statistics, biases and layer scales.

    Raises:
        LookupError: the library has no such network.
    """
    torch.manual_seed(0)
    model = bare(network).eval()
    # Few images, or noise, leave channels that hardly vary: a deep network then blows its rounding up.
    count = 64 if network.size <= 128 else 16
    settle(model, network.size, torch.from_numpy(images(count, network.size, seed=5)))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith(("layer_scale", "gamma", "gamma_1", "gamma_2", "ls1.gamma", "ls2.gamma")):
                value.uniform_(0.2, 1.0)  # initialised to 1e-6, a block would do nothing
        for module in model.modules():
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            if not module.weight.any():  # a classifier that starts from nothing hands nothing back
                module.weight.normal_(0.0, 0.02)
            if module.bias is not None:
                module.bias.normal_(0.0, 0.1)
    return model


def bare(network: Network) -> nn.Module:
    """The network as its library makes it.

    Raises:
        LookupError: the library has no such network.
    """
    return _from_timm(network) if network.group == "timm" else _from_torchvision(network)


def _from_timm(network: Network) -> nn.Module:
    torchvision_models()  # timm imports torchvision, which must be importable
    import timm

    model: nn.Module = timm.create_model(network.name, pretrained=False, exportable=True, num_classes=10)
    return model


def _from_torchvision(network: Network) -> nn.Module:
    models = torchvision_models()
    if network.group == "classification":
        builder = getattr(models, network.name, None)
        if not callable(builder):
            raise LookupError(f"torchvision has no network {network.name!r}")
        found: nn.Module = builder(weights=None)
        return found
    whole = models.get_model(network.name, weights=None, weights_backbone=None)
    if network.group == "segmentation":
        return _Segmenter(whole)
    return _Detector(whole, with_heads=network.part == "backbone and heads")


class _Segmenter(nn.Module):
    """The class scores of a segmentation network, averaged over the image."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.whole(image)["out"]
        return scores.mean((2, 3))


class _Detector(nn.Module):
    """A detector without what depends on the number of boxes: its features averaged, or the class scores of all boxes.

    Resizing and normalising the images, and sorting out boxes, are no part of it.
    """

    def __init__(self, whole: nn.Module, with_heads: bool) -> None:
        super().__init__()
        self.backbone = whole.backbone
        self.head = whole.head if with_heads else None

    def forward(self, image: Tensor) -> Tensor:
        found = self.backbone(image)
        features = list(found.values()) if isinstance(found, dict) else [found]
        if self.head is None:
            return torch.cat([f.mean((2, 3)) for f in features], 1)
        scores: Tensor = self.head(features)["cls_logits"]
        return scores.mean(1)


def images(batch: int, size: int, seed: int = 3) -> Array:
    """Smooth random images [batch, 3, size, size], float32, about standard normal."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, -(-size // 8), -(-size // 8), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    found: Array = (smooth + 0.3 * torch.randn(batch, 3, size, size, generator=generator)).numpy()
    return found
