"""Which input of a model takes sound, and how: its axes, length, channels or frequency bins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import Dimension, dtype_of
from onnxlrp.explain.spectrogram import Spectrogram

_CHANNELS = (1, 2)


@dataclass(frozen=True)
class SoundInput:
    """A sound input.

    Attributes:
        axes: one letter for each axis behind the batch: "t" time, "r" rows (channels, or frequency bins), "1".
        batched: whether there is a batch axis in front.
        batch: its length, None where the model leaves it open.
        length: samples or frames in a window, None where the model leaves them open.
        rows: channels or frequency bins.
    """

    name: str
    axes: str
    batched: bool
    batch: int | None
    length: int | None
    rows: int
    dtype: np.dtype[Any]

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """[rows, time] in the model's own order and type, without the batch axis."""
        ordered = values.T if "r" in self.axes and self.axes.index("t") < self.axes.index("r") else values
        if "r" not in self.axes:
            ordered = values[0]
        axes = [i for i, axis in enumerate(self.axes) if axis == "1"]
        return np.ascontiguousarray(np.expand_dims(ordered, tuple(axes)).astype(self.dtype))

    def rows_of(self, values: np.ndarray) -> np.ndarray:
        """The reverse for values shaped like one sample: [rows, time], float64."""
        plain = values.astype(np.float64).squeeze(tuple(i for i, axis in enumerate(self.axes) if axis == "1"))
        if "r" not in self.axes:
            return plain[None]
        return plain.T if self.axes.index("t") < self.axes.index("r") else plain


def find_sound_input(
    names: Iterable[str],
    shapes: Mapping[str, Sequence[Dimension] | None],
    types: Mapping[str, Any],
    spectrogram: Spectrogram | None,
) -> SoundInput:
    """The one of the inputs `names` that takes sound.

    Samples: [time], [batch, time], or three axes of which the second or third holds 1 or 2 channels. With
    `spectrogram`: [batch, bins, frames] or [batch, frames, bins], with at most one more axis of length 1.
    Raises UsageError when there is none or more than one.
    """
    listed = list(names)
    found = [
        made
        for name in listed
        if (made := _sound_input(name, shapes.get(name), dtype_of(types.get(name)), spectrogram)) is not None
    ]
    if len(found) == 1 and len(listed) == 1:
        return found[0]
    described = ", ".join(f"{name} {_text(shapes.get(name))}" for name in listed) or "none"
    if len(listed) > 1:
        raise UsageError(f"the model has several inputs to fill: {described}. Name the others: --data NAME=FILE|NUMBER")
    wanted = (
        f"[batch, {spectrogram.rows} bins, frames] or [batch, frames, bins]; other settings: --spectrogram"
        if spectrogram
        else "[batch, samples], with 1 or 2 channels before or after the samples; a model that takes a spectrogram "
        "needs to be told which: --spectrogram"
    )
    raise UsageError(f"the input {described} does not take sound as it was described: that is {wanted}")


def _sound_input(
    name: str, shape: Sequence[Dimension] | None, dtype: np.dtype[Any], spectrogram: Spectrogram | None
) -> SoundInput | None:
    if shape is None or dtype.kind not in "fi":
        return None
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if spectrogram is None and len(sizes) == 1:
        return SoundInput(name, "t", False, None, sizes[0], 1, dtype)
    if len(sizes) < 2:
        return None
    axes = _spectrogram_axes(sizes[1:], spectrogram.rows) if spectrogram else _sample_axes(sizes[1:])
    if axes is None:
        return None
    rows = sizes[1 + axes.index("r")] if "r" in axes else 1
    if spectrogram:
        rows = spectrogram.rows
    return SoundInput(name, axes, True, sizes[0], sizes[1 + axes.index("t")], rows or 1, dtype)


def _sample_axes(sizes: Sequence[int | None]) -> str | None:
    if len(sizes) == 1:
        return "t"
    channels = [size in _CHANNELS for size in sizes]
    if len(sizes) != 2 or sum(channels) != 1:
        return None
    return "rt" if channels[0] else "tr"


def _spectrogram_axes(sizes: Sequence[int | None], rows: int) -> str | None:
    plain = [i for i, size in enumerate(sizes) if size != 1 or len(sizes) == 2]
    if len(plain) != 2 or len(sizes) > 3:
        return None
    first, second = (sizes[i] for i in plain)
    if first == rows or (first is None and second != rows):
        order = "rt"
    elif second == rows or second is None:
        order = "tr"
    else:
        return None
    axes = ["1"] * len(sizes)
    for i, letter in zip(plain, order, strict=True):
        axes[i] = letter
    return "".join(axes)


def _text(shape: Sequence[Dimension] | None) -> str:
    return "of unknown shape" if shape is None else "[" + ", ".join("?" if s is None else str(s) for s in shape) + "]"
