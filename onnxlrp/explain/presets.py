"""Named ways to turn pixels into a model's numbers, as one table of data.

Every preset means `(pixel * scale - mean) / std` per channel, with pixels in 0..255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ColourOrder = Literal["rgb", "bgr"]
Resampling = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preset:
    """A named normalisation with the geometry it is customarily used with.

    `size` is the crop's height and width for models that leave them open (None: the image keeps its size).
    `crop_fraction` is the crop's share of the resized shorter side: 224 / 256 = 0.875 for ImageNet
    classifiers.
    """

    name: str
    summary: str
    scale: float
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: ColourOrder = "rgb"
    size: int | None = None
    crop_fraction: float = 1.0
    resampling: Resampling = "bilinear"


_UNIT = 1.0 / 255.0

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "imagenet",
            "(x/255 - mean)/std with ImageNet's mean and deviation, side 256, crop 224 (PyTorch, ONNX zoo)",
            _UNIT,
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
            size=224,
            crop_fraction=0.875,
        ),
        Preset(
            "imagenet-255",
            "x - ImageNet's mean with pixels in 0..255, RGB, not divided by a deviation",
            1.0,
            (123.675, 116.28, 103.53),
            size=224,
            crop_fraction=0.875,
        ),
        Preset(
            "caffe",
            "BGR, x - (103.939, 116.779, 123.68) with pixels in 0..255 (Caffe, Keras VGG and ResNet)",
            1.0,
            (103.939, 116.779, 123.68),
            order="bgr",
            size=224,
            crop_fraction=0.875,
        ),
        Preset(
            "inception",
            "x/127.5 - 1, in -1..1 (Inception, Keras MobileNet, many vision transformers)",
            1.0 / 127.5,
            (1.0,),
            size=224,
            crop_fraction=0.875,
        ),
        Preset(
            "clip",
            "(x/255 - mean)/std with CLIP's mean and deviation, bicubic, crop 224",
            _UNIT,
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
            size=224,
            resampling="bicubic",
        ),
        Preset(
            "cifar10",
            "(x/255 - mean)/std with CIFAR-10's mean and deviation, 32 x 32",
            _UNIT,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            size=32,
        ),
        Preset("mnist", "(x/255 - 0.1307)/0.3081, 28 x 28 gray", _UNIT, (0.1307,), (0.3081,), size=28),
        Preset("unit", "x/255, in 0..1", _UNIT),
        Preset("raw", "pixels as they are, 0..255", 1.0),
    )
}


def default_preset(channels: int) -> Preset:
    """The preset taken when none was named: ImageNet's for colour, raw pixels for one or four channels."""
    return PRESETS["imagenet" if channels == 3 else "raw"]
