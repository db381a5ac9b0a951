"""A region of an image as the target: the sum of a class over a mask, or of the likeliest class at each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import Layout
from onnxlrp.explain.load import read_photo
from onnxlrp.explain.preprocess import Prepared


@dataclass(frozen=True)
class Region:
    """The pixels that are not black in a mask as large as the photo; an `Aim`.

    `target` is the class whose values are summed there, None for the largest one at each position. `axis` is the
    axis of the classes in the explained output (batch counted); None: by the layout of the model's images.
    """

    path: Path
    mask: Image.Image
    target: int | None
    axis: int | None = None

    def inside(self, photo: Prepared, height: int, width: int) -> np.ndarray:
        """Which of `height` x `width` positions over the part of the photo that the model sees lie in the region.

        Raises UsageError when the mask has another size than the photo, or no position lies in it.
        """
        if self.mask.size != photo.photo.image.size:
            (have_width, have_height), (want_width, want_height) = self.mask.size, photo.photo.image.size
            raise UsageError(
                f"{self.path}: the mask is {have_height} x {have_width}, but {photo.photo.path} is {want_height} x "
                f"{want_width} (height x width)"
            )
        seen = self.mask.resize((width, height), Image.Resampling.BOX, box=photo.frame.box)
        found: np.ndarray = np.asarray(seen) >= 128
        if not found.any():
            raise UsageError(
                f"{self.path}: the mask covers none of the {height} x {width} positions of the explained output "
                "(at least half of a position has to lie in it, within the part of the photo that the model sees)"
            )
        return found

    def seeds(self, explained: np.ndarray, photos: Sequence[Prepared], layout: Layout) -> np.ndarray:
        """1 where the explained output [batch, ...] is to be explained, 0 elsewhere, in its shape and type.

        Samples beyond the photos stay 0. Raises UsageError for outputs that are no map of positions.
        """
        axis = self._class_axis(explained, layout)
        maps = explained[..., None] if axis is None else np.moveaxis(explained, axis, -1)
        seeds = np.zeros_like(maps)
        for place, photo in enumerate(photos):
            inside = self.inside(photo, *maps.shape[1:3])
            chosen = np.full(inside.shape, self.target) if self.target is not None else maps[place].argmax(axis=-1)
            if axis is None or maps.shape[-1] == 1:
                chosen = np.zeros(inside.shape, np.int64)
            seeds[place, inside, chosen[inside]] = 1
        return seeds[..., 0] if axis is None else np.moveaxis(seeds, -1, axis)

    def details(self, explained: np.ndarray, layout: Layout) -> list[str]:
        """Nothing is added to what is said of a region."""
        return [""] * len(explained)

    def _class_axis(self, explained: np.ndarray, layout: Layout) -> int | None:
        shape = list(explained.shape)
        if explained.ndim == 3 and self.axis is None:
            return None
        axis = self.axis if self.axis is not None else (3 if layout == "nhwc" else 1)
        if explained.ndim != 4 or not -4 <= axis < 4 or axis % 4 == 0:
            raise UsageError(
                f"a mask needs an output that is a map, [batch, classes, height, width] or another order with --axis; "
                f"the explained output is {shape}"
            )
        if self.target is not None and not 0 <= self.target < max(2, shape[axis]):
            raise UsageError(f"class {self.target} does not exist: axis {axis} of the output {shape} has {shape[axis]}")
        return axis % 4

    @property
    def has_classes(self) -> bool:
        """Each position has scores of classes."""
        return True

    @property
    def tag(self) -> str:
        """The part of file names that tells regions apart."""
        return f"{'' if self.target is None else f'class-{self.target}-'}in-{self.path.stem}"

    def words(self, labels: Sequence[str] | None) -> str:
        """What is explained, in words."""
        if self.target is None:
            return f"the likeliest classes within {self.path.name}"
        known = labels is not None and self.target < len(labels)
        name = labels[self.target] if labels is not None and known else f"class {self.target}"
        return f"{name} within {self.path.name}"


def read_region(path: str | Path, target: Any, axis: int | None) -> Region:
    """The region of a mask file. Raises UsageError when it cannot be read or the target is no class."""
    if target not in (None, "argmax") and (not isinstance(target, int) or isinstance(target, bool)):
        raise UsageError(f"with a mask the target is a class such as 7, or left out; not {target!r}")
    image = read_photo(Path(path)).image
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    gray = image.convert("L").point(lambda value: 255 if value else 0)
    if alpha is not None:
        gray = Image.composite(gray, Image.new("L", gray.size), alpha.point(lambda value: 255 if value else 0))
    return Region(Path(path), gray, target if isinstance(target, int) else None, axis)
