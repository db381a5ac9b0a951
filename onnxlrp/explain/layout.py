"""Which input of a model takes images, and how: layout, channels, sizes and number type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from onnxlrp.errors import UsageError

Layout = Literal["nchw", "nhwc", "nhw"]
Dimension = int | str | None

_CHANNELS = (1, 3, 4)
_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class ImageInput:
    """An image input. `batch`, `height` and `width` are None where the model leaves them open."""

    name: str
    layout: Layout
    channels: int
    batch: int | None
    height: int | None
    width: int | None
    dtype: np.dtype[Any]

    def arrange(self, pixels: np.ndarray) -> np.ndarray:
        """[height, width, channels] in the model's own order and type, without the batch axis."""
        ordered = {
            "nchw": lambda: pixels.transpose(2, 0, 1),
            "nhwc": lambda: pixels,
            "nhw": lambda: pixels[:, :, 0],
        }[self.layout]()
        if np.issubdtype(self.dtype, np.integer):
            limits = np.iinfo(self.dtype)
            ordered = np.clip(np.rint(ordered), limits.min, limits.max)
        return np.ascontiguousarray(ordered.astype(self.dtype))

    def over_channels(self, values: np.ndarray) -> np.ndarray:
        """Sum of values shaped like one input sample over its channels: [height, width], float64."""
        axis = {"nchw": 0, "nhwc": 2, "nhw": None}[self.layout]
        exact = values.astype(np.float64)
        return exact if axis is None else exact.sum(axis=axis)


def find_image_input(
    names: Iterable[str],
    shapes: Mapping[str, Sequence[Dimension] | None],
    types: Mapping[str, Any],
    layout: str = "auto",
) -> ImageInput:
    """The model's one image input.

    An input with four axes whose axis 1 or last axis holds 1, 3 or 4 channels (axis 1 where both do), or with
    three axes [batch, height, width]. `layout` "nchw" or "nhwc" settles it by hand.
    Raises UsageError when there is none, or when the model has other inputs that images cannot fill.
    """
    listed = list(names)
    described = ", ".join(f"{name} {_text(shapes.get(name))}" for name in listed) or "none"
    found = [
        image
        for name in listed
        if (image := _image_input(name, shapes.get(name), dtype_of(types.get(name)), layout)) is not None
    ]
    if not found:
        raise UsageError(
            f"the model has no input that takes images; its inputs are: {described}. Images need four axes "
            "with 1, 3 or 4 channels (--layout nchw or nhwc settles the order); other data goes in as .wav, .csv, "
            ".npz or by --data"
        )
    if len(listed) > 1:
        raise UsageError(
            f"the model needs more than one image: its inputs are: {described}. Fill the others with "
            "--data NAME=FILE|NUMBER"
        )
    return found[0]


def _image_input(name: str, shape: Sequence[Dimension] | None, dtype: np.dtype[Any], layout: str) -> ImageInput | None:
    if shape is None or dtype.kind not in "fui":
        return None
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(sizes) == 3 and layout == "auto" and sizes[1] not in _CHANNELS and sizes[2] not in _CHANNELS:
        return ImageInput(name, "nhw", 1, sizes[0], sizes[1], sizes[2], dtype)
    if len(sizes) != 4:
        return None
    first_ok, last_ok = (sizes[axis] in (*_CHANNELS, None) for axis in (1, 3))
    if layout == "nhwc" or (layout == "auto" and sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS):
        return ImageInput(name, "nhwc", sizes[3] or 3, sizes[0], sizes[1], sizes[2], dtype) if last_ok else None
    return ImageInput(name, "nchw", sizes[1] or 3, sizes[0], sizes[2], sizes[3], dtype) if first_ok else None


def dtype_of(stated: Any) -> np.dtype[Any]:
    """A numpy type from a numpy type, its name, or onnxruntime's way to write it ("tensor(float)")."""
    if isinstance(stated, str):
        inner = stated.removeprefix("tensor(").removesuffix(")")
        stated = _TYPES.get(inner, inner)
    try:
        known: np.dtype[Any] = np.dtype(stated)
    except TypeError:
        return np.dtype(object)
    return known


def _text(shape: Sequence[Dimension] | None) -> str:
    return "of unknown shape" if shape is None else "[" + ", ".join("?" if s is None else str(s) for s in shape) + "]"
