"""Values for inputs by name: arrays, numbers that fill an input, and files of images."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import dtype_of, find_image_input
from onnxlrp.explain.load import SUFFIXES, read_photo
from onnxlrp.explain.preprocess import ImageOptions, Prepared, Recipe, recipe_for
from onnxlrp.explain.session import ModelInputs

#: What an input may be given as: an array, a number that fills it, or a file (.npy, .npz with one array, an image).
Value = np.ndarray | float | str | Path

ARRAY_SUFFIXES = frozenset([".npy", ".npz"])


@dataclass(frozen=True)
class Feed:
    """The array for one input, batch axis first; `photo` and `recipe` where it was made of an image."""

    array: np.ndarray
    photo: Prepared | None = None
    recipe: Recipe | None = None


def feeds_for(model: ModelInputs, values: Mapping[str, Value], options: ImageOptions) -> dict[str, Feed]:
    """The named inputs filled.

    Raises UsageError for names that are no inputs, files that cannot be read or do not fit, and numbers for
    inputs whose size the model leaves open.
    """
    unknown = [name for name in values if name not in model.input_names]
    if unknown:
        raise UsageError(f"the model has no input {unknown[0]!r}; its inputs are {', '.join(model.input_names)}")
    return {name: _feed(model, name, value, options) for name, value in values.items()}


def arrays_for(model: ModelInputs, values: Mapping[str, Value], options: ImageOptions) -> dict[str, np.ndarray]:
    """The arrays of `feeds_for`, which raises the same."""
    return {name: feed.array for name, feed in feeds_for(model, values, options).items()}


def _feed(model: ModelInputs, name: str, value: Value, options: ImageOptions) -> Feed:
    if isinstance(value, np.ndarray):
        return Feed(value)
    number = _number(value)
    if number is not None:
        return Feed(_filled(model, name, number))
    path = Path(str(value))
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return Feed(_only_array(path))
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: input {name!r} takes a number, an .npy or .npz file, or an image ({', '.join(sorted(SUFFIXES))})"
        )
    recipe = recipe_for(options, find_image_input([name], model.input_shapes, model.input_types, options.layout))
    photo = recipe.prepare(read_photo(path))
    return Feed(np.repeat(photo.array[None], recipe.image_input.batch or 1, axis=0), photo, recipe)


def named_files(values: Mapping[str, Value]) -> list[Path]:
    """The files among the values."""
    return [Path(str(v)) for v in values.values() if not isinstance(v, np.ndarray) and _number(v) is None]


def _number(value: str | float | Path) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _filled(model: ModelInputs, name: str, number: float) -> np.ndarray:
    """The input's whole shape filled with a number; an open batch is 1."""
    shape = model.input_shapes.get(name)
    sizes = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(shape or ())]
    if shape is None or not all(isinstance(size, int) for size in sizes):
        raise UsageError(f"input {name!r} has no fixed size that {number:g} could fill; give an .npy file")
    return np.full([int(size) for size in sizes if size is not None], number).astype(
        dtype_of(model.input_types.get(name))
    )


def read_array_file(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an .npy file, or those of an .npz file by name.

    Raises UsageError when it cannot be read or holds anything but plain arrays.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        return np.asarray(loaded)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not an .npy or .npz file of plain arrays: {error}") from None


def _only_array(path: Path) -> np.ndarray:
    found = read_array_file(path)
    if isinstance(found, np.ndarray):
        return found
    if len(found) != 1:
        raise UsageError(f"{path}: holds {len(found)} arrays ({', '.join(found)}); one input takes one of them")
    return next(iter(found.values()))
