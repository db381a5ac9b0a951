"""A network of a library, as a value: known without the library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network of a library.

    Attributes:
        group: "classification", "segmentation", "detection" (backbones and heads) or "detectors" (whole ones) of
            torchvision, or "timm".
        family: what it stands for: the module that it is built by in timm, its group elsewhere.
        size: height and width in pixels of an image that it takes.
        part: what of it is taken, where that is not all.
    """

    group: str
    family: str
    name: str
    size: int
    part: str = ""
