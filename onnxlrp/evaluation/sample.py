"""What data readers give: samples one by one, and what is the same for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from onnxlrp.evaluation.case import Array


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        name: what reports call it: a file, a row.
        inputs: the model's inputs by name, without the batch axis.
        label: the true class, -1 where unknown.
        marked: bool in the shape of the explained input, what a person has marked as the object.
        units: int64 in the shape of the explained input where samples differ in it (padding is -1); else None.
        photo: what maps are shown beside: the part of the photo that the model sees.
        words: for tokens, the text of each.
    """

    name: str
    inputs: Mapping[str, Array]
    label: int = -1
    marked: Array | None = None
    units: Array | None = None
    photo: Image.Image | None = None
    words: tuple[str, ...] = ()

    @property
    def digest(self) -> bytes:
        """Changes with all that results depend on."""
        found = hashlib.sha256(str(self.label).encode())
        arrays = {**self.inputs, "marked": self.marked, "units": self.units}
        for name, array in sorted(arrays.items()):
            if array is not None:
                found.update(f"{name} {array.dtype} {array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
        return found.digest()


class Data(Protocol):
    """The samples of a run, read when they are asked for."""

    @property
    def input_name(self) -> str:
        """The explained input."""

    @property
    def layout(self) -> Layout:
        """How the explained input's axes are to be read."""

    @property
    def shared(self) -> Mapping[str, Array]:
        """Inputs that are the same for all samples and have no batch axis."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes by index."""

    @property
    def has_labels(self) -> bool:
        """Whether the true class of any sample is known."""

    @property
    def has_marks(self) -> bool:
        """Whether anything is marked in any sample."""

    def __len__(self) -> int: ...

    def sample(self, place: int) -> Sample:
        """One sample, read now."""


def samples(data: Data, limit: int | None = None) -> Iterator[Sample]:
    """The samples in their order, all or the first `limit`, one at a time."""
    for place in range(len(data) if limit is None else min(limit, len(data))):
        yield data.sample(place)


@dataclass(frozen=True)
class Subset:
    """Some of the samples of other data, in an order of their own; see `Data`."""

    whole: Data
    places: Sequence[int]

    @property
    def input_name(self) -> str:
        return self.whole.input_name

    @property
    def layout(self) -> Layout:
        return self.whole.layout

    @property
    def shared(self) -> Mapping[str, Array]:
        return self.whole.shared

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.whole.class_names

    @property
    def has_labels(self) -> bool:
        return self.whole.has_labels

    @property
    def has_marks(self) -> bool:
        return self.whole.has_marks

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, place: int) -> Sample:
        return self.whole.sample(self.places[place])


@dataclass(frozen=True)
class Layout:
    """How the axes of an explained input are to be read, the batch axis left out.

    Attributes:
        rows, columns: the axes of a picture's height and width; None where the input is no picture.
        channels: the axis of a picture's channels.
        is_token: whether each element is the id of a token.
        mask_token: the id that stands for a token that was taken away.
        means: the mean of each element over the data, for tables.
    """

    rows: int | None = None
    columns: int | None = None
    channels: int | None = None
    is_token: bool = False
    mask_token: int = 0
    means: Array | None = field(default=None, compare=False)

    @property
    def is_picture(self) -> bool:
        return self.rows is not None and self.columns is not None

    @property
    def channels_first(self) -> Layout:
        """The same data as metrics see it: pictures have the axes [channels, height, width], whatever the model has."""
        return Layout(1, 2, 0) if self.is_picture else self

    def to_channels_first(self, values: Array) -> Array:
        """A batch as metrics see it."""
        if not self.is_picture or self.channels == 0:
            return values
        return values[:, None] if self.channels is None else np.moveaxis(values, self.channels + 1, 1)

    def from_channels_first(self, values: Array) -> Array:
        """A batch as the model takes it."""
        if not self.is_picture or self.channels == 0:
            return values
        return values[:, 0] if self.channels is None else np.moveaxis(values, 1, self.channels + 1)

    def picture(self, values: Array) -> Array:
        """A map in the input's shape as [height, width]: summed over the channels."""
        exact = np.asarray(values, np.float64)
        return exact if self.channels is None else exact.sum(axis=self.channels)

    def spread(self, grid: Array, shape: tuple[int, ...]) -> Array:
        """[height, width] in the shape of the input: the same for all channels."""
        full = grid if self.channels is None else np.expand_dims(grid, self.channels)
        return np.broadcast_to(full, shape)
