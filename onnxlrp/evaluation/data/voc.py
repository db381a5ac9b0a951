"""Pascal VOC: photos with boxes in XML and, for some, masks of their objects."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array

#: The classes in the order of the numbers in a mask, from 1.
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_UNSURE = 255


@dataclass(frozen=True)
class Object:
    """One object: its class, and its box in pixels from 0, right and bottom left out."""

    name: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Annotation:
    """What is marked in one photo. `size` is (height, width); `segmentation` the file of its mask, where it has one."""

    path: Path
    size: tuple[int, int]
    objects: tuple[Object, ...]
    segmentation: Path | None = None

    def by_size(self) -> list[Object]:
        """The objects, the largest first."""
        return sorted(self.objects, key=lambda o: -o.area)

    def of_class(self, name: str) -> Annotation:
        """The same with the objects of one class only."""
        return replace(self, objects=tuple(o for o in self.objects if o.name == name))

    def mask(self) -> Array:
        """bool [height, width]: where the objects are, by the mask where there is one, else by the boxes.

        Raises:
            UsageError: the mask cannot be read, or is no picture of class numbers.
        """
        if self.segmentation is not None and all(o.name in CLASSES for o in self.objects):
            numbers = _numbers(self.segmentation)
            wanted = [CLASSES.index(o.name) + 1 for o in self.objects]
            found = np.isin(numbers, wanted)
            if found.any():
                return found
        boxes = np.zeros(self.size, bool)
        for o in self.objects:
            boxes[o.top : o.bottom, o.left : o.right] = True
        return boxes


def _numbers(path: Path) -> Array:
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L"):
                raise UsageError(
                    f"{path}: a mask has the numbers of classes as its pixels, not colours ({picture.mode})"
                )
            numbers = np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: the mask cannot be read: {error}") from None
    return np.where(numbers == _UNSURE, 0, numbers)


def is_voc(folder: Path) -> bool:
    """Whether a folder is arranged like Pascal VOC."""
    return (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir()


def annotated(folder: Path) -> Iterator[tuple[Path, Annotation]]:
    """The photos that have an annotation, by name.

    Raises:
        UsageError: an annotation cannot be read, or there is none.
    """
    files = sorted((folder / "Annotations").glob("*.xml"))
    if not files:
        raise UsageError(f"{folder / 'Annotations'}: the folder holds no annotation (.xml)")
    for file in files:
        photo = folder / "JPEGImages" / f"{file.stem}.jpg"
        if not photo.exists():
            raise UsageError(f"{file}: its photo is missing: {photo}")
        mask = folder / "SegmentationClass" / f"{file.stem}.png"
        yield photo, read_annotation(file, mask if mask.exists() else None)


def read_annotation(path: Path, segmentation: Path | None = None) -> Annotation:
    """One annotation file.

    Raises:
        UsageError: it is not an annotation of Pascal VOC.
    """
    try:
        # Boxes are numbers between tags; entities and the like, which could be abused, are of no use here.
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UsageError(f"{path}: an annotation has no document type of its own; refused")
        root = ElementTree.fromstring(text)
        size = (_number(root, "size/height"), _number(root, "size/width"))
        objects = tuple(_object(entry) for entry in root.iter("object"))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise UsageError(f"{path}: not an annotation of Pascal VOC: {error}") from None
    return Annotation(path, size, objects, segmentation)


def _object(entry: ElementTree.Element) -> Object:
    left, top, right, bottom = (_number(entry, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    # Pascal VOC counts pixels from 1 and names the last one inside.
    return Object((entry.findtext("name") or "").strip(), max(0, left - 1), max(0, top - 1), right, bottom)


def _number(entry: ElementTree.Element, path: str) -> int:
    text = entry.findtext(path)
    if text is None:
        raise ValueError(f"{path} is missing")
    return round(float(text))
