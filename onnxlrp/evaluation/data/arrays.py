"""Arrays from an .npz file: the samples, their classes, and what is marked in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.data.photos import layout_of
from onnxlrp.evaluation.sample import Layout, Sample
from onnxlrp.explain.feeds import read_array_file
from onnxlrp.explain.layout import find_image_input
from onnxlrp.explain.session import ModelInputs

#: Names of the arrays that are no input: the classes, and what is marked.
CLASSES, MARKED = "y", "marked"
#: The name of the array that fills the explained input, where it does not have the input's own name.
VALUES = "x"


@dataclass(frozen=True)
class Arrays:
    """Samples from arrays in memory; see `Data`."""

    input_name: str
    layout: Layout
    inputs: Mapping[str, Array]
    labels: Array | None = None
    marked: Array | None = None
    names: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    shared: Mapping[str, Array] = field(default_factory=dict)

    @property
    def has_labels(self) -> bool:
        return self.labels is not None and bool((self.labels >= 0).any())

    @property
    def has_marks(self) -> bool:
        return self.marked is not None

    def __len__(self) -> int:
        return len(self.inputs[self.input_name])

    def sample(self, place: int) -> Sample:
        values = {name: array[place] for name, array in self.inputs.items()}
        return Sample(
            self.names[place] if self.names else f"sample {place}",
            values,
            -1 if self.labels is None else int(self.labels[place]),
            None if self.marked is None else self.marked[place],
            photo=picture_of(values[self.input_name], self.layout),
        )


def open_arrays(
    model: ModelInputs,
    path: Path,
    *,
    input_name: str | None = None,
    layout: str = "auto",
    labels: tuple[str, ...] | None = None,
    others: Mapping[str, Array] | None = None,
) -> Arrays:
    """The samples of an .npz file: an array for each input by its name, batch axis first.

    Also `x` for the one input that has no array of its name, `y` the classes [n], and `marked` in the shape of the
    explained input, or of a picture without its channels. An .npy file is `x` alone.

    Raises:
        UsageError: arrays that are missing, too many, or do not fit.
    """
    others = others or {}
    found = read_array_file(path)
    arrays = found if isinstance(found, dict) else {VALUES: found}
    free = [name for name in model.input_names if name not in others]
    missing = [name for name in free if name not in arrays]
    if VALUES in arrays and len(missing) == 1 and VALUES not in free:
        arrays[missing[0]] = arrays.pop(VALUES)
        missing = []
    if missing:
        have = ", ".join(found) if isinstance(found, dict) else "one array"
        raise UsageError(f"{path}: there is no array for input {missing[0]!r} (it holds {have}); save it by that name")
    unknown = next((name for name in arrays if name not in (*free, CLASSES, MARKED)), None)
    if unknown is not None:
        raise UsageError(
            f"{path}: {unknown!r} is no input of the model, which has {', '.join(model.input_names)}; besides them "
            f"there may be {CLASSES} (classes) and {MARKED}"
        )
    chosen = input_name or _only_float(path, free, model)
    if chosen not in free:
        raise UsageError(f"--input {chosen!r} is not filled by {path}")
    count = len(arrays[chosen]) if arrays[chosen].ndim else 0
    wrong = next((n for n, a in arrays.items() if a.ndim == 0 or len(a) != count), None)
    if wrong is not None or not count:
        raise UsageError(f"{path}: {wrong or chosen!r} must have a row for each of the {count} samples of {chosen!r}")
    axes = axes_of(model, chosen, layout)
    values = arrays[chosen]
    _check_shape(path, chosen, values, model)
    inputs = {name: arrays[name] for name in free}
    repeated = {name: np.repeat(array[None], count, axis=0) for name, array in others.items()}
    return Arrays(
        chosen,
        axes,
        {**inputs, **repeated},
        _classes(path, arrays.get(CLASSES)),
        _marked(path, arrays.get(MARKED), values, axes),
        class_names=labels,
    )


def axes_of(model: ModelInputs, name: str, layout: str) -> Layout:
    """How an input's axes are to be read: of a picture where it takes one, else as single numbers."""
    if model.input_types[name].kind in "iu":
        return Layout(is_token=True)
    try:
        return layout_of(find_image_input([name], model.input_shapes, model.input_types, layout))
    except UsageError:
        return Layout()


def picture_of(values: Array, layout: Layout) -> Image.Image | None:
    """A picture of values of unknown range, for reports: the smallest black, the largest white."""
    if not layout.is_picture:
        return None
    exact = np.asarray(values, np.float64)
    planes = exact[None] if layout.channels is None else np.moveaxis(exact, layout.channels, 0)
    shown = planes if len(planes) == 3 else planes.mean(axis=0, keepdims=True)
    low, high = float(shown.min()), float(shown.max())
    pixels = np.rint((shown - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)).convert("RGB")
    factor = max(1, 224 // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _only_float(path: Path, free: list[str], model: ModelInputs) -> str:
    floats = [name for name in free if model.input_types[name].kind == "f"]
    chosen = floats if floats else free
    if len(chosen) != 1:
        raise UsageError(f"{path} fills several inputs ({', '.join(chosen)}); name the explained one with --input")
    return chosen[0]


def _check_shape(path: Path, name: str, values: Array, model: ModelInputs) -> None:
    shape = model.input_shapes[name]
    if shape is None:
        return
    fits = len(shape) == values.ndim and all(
        not isinstance(want, int) or want == have for want, have in zip(shape[1:], values.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join("?" if not isinstance(s, int) else str(s) for s in ("n", *shape[1:]))
        raise UsageError(f"{path}: input {name!r} takes [{wanted}], but the array is {list(values.shape)}")


def _classes(path: Path, given: Array | None) -> Array | None:
    if given is None:
        return None
    flat = given.reshape(len(given), -1)
    if flat.shape[1] != 1 or given.dtype.kind not in "iuf" or not np.array_equal(flat, np.rint(flat)):
        raise UsageError(f"{path}: {CLASSES} holds one whole number for each sample, not {given.dtype} {given.shape}")
    return flat[:, 0].astype(np.int64)


def _marked(path: Path, given: Array | None, values: Array, layout: Layout) -> Array | None:
    if given is None:
        return None
    given = given.astype(bool)
    if given.shape == values.shape:
        return given
    if layout.is_picture and layout.channels is not None:
        plain = values.shape[: layout.channels + 1] + values.shape[layout.channels + 2 :]
        if given.shape == plain:
            return np.broadcast_to(np.expand_dims(given, layout.channels + 1), values.shape)
    raise UsageError(f"{path}: {MARKED} has the shape {list(given.shape)}, but the samples have {list(values.shape)}")
