"""Photos: a folder of them with or without a file of labels, one folder for each class, or Pascal VOC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.data.classes import index_by_name, plain, read_truth
from onnxlrp.evaluation.data.voc import Annotation, annotated, is_voc
from onnxlrp.evaluation.sample import Layout, Sample
from onnxlrp.explain.layout import ImageInput, find_image_input
from onnxlrp.explain.load import SUFFIXES, expand_paths, read_photo
from onnxlrp.explain.preprocess import Frame, ImageOptions, Prepared, Recipe, recipe_for
from onnxlrp.explain.session import ModelInputs

#: The side of the pictures in reports, in pixels.
_SHOWN = 224


@dataclass(frozen=True)
class Item:
    """One photo: its file, its class, and what is marked in it."""

    path: Path
    name: str
    label: int = -1
    annotation: Annotation | None = None


@dataclass(frozen=True)
class Photos:
    """Photos as samples; see `Data`. Files are read when they come up."""

    recipe: Recipe
    items: Sequence[Item]
    others: Mapping[str, Array]
    class_names: tuple[str, ...] | None = None
    shared: Mapping[str, Array] = field(default_factory=dict)

    @property
    def input_name(self) -> str:
        return self.recipe.image_input.name

    @property
    def layout(self) -> Layout:
        return layout_of(self.recipe.image_input)

    @property
    def has_labels(self) -> bool:
        return any(item.label >= 0 for item in self.items)

    @property
    def has_marks(self) -> bool:
        return any(item.annotation is not None for item in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, place: int) -> Sample:
        item = self.items[place]
        prepared = self.recipe.prepare(read_photo(item.path))
        marked = None
        if item.annotation is not None:
            seen = through_frame(item.annotation.mask(), prepared.frame, item.path)
            marked = np.ascontiguousarray(self.layout.spread(seen, prepared.array.shape))
        inputs = {self.input_name: prepared.array, **self.others}
        return Sample(item.name, inputs, item.label, marked, photo=_shown(prepared))


def layout_of(image_input: ImageInput) -> Layout:
    """The axes of an image input."""
    if image_input.layout == "nchw":
        return Layout(rows=1, columns=2, channels=0)
    return Layout(rows=0, columns=1, channels=2 if image_input.layout == "nhwc" else None)


def through_frame(mask: Array, frame: Frame, path: Path) -> Array:
    """A mask of a photo, resized and cropped like the photo; bool [height, width].

    Raises:
        UsageError: it is not as large as the photo.
    """
    if mask.shape != frame.source:
        raise UsageError(
            f"{path}: the photo is {frame.source[0]} x {frame.source[1]} (height x width), but what is marked in it "
            f"belongs to one of {mask.shape[0]} x {mask.shape[1]}"
        )
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    if frame.resized != frame.source:
        picture = picture.resize((frame.resized[1], frame.resized[0]), Image.Resampling.NEAREST)
    height, width = frame.size
    cropped = picture.crop((frame.left, frame.top, frame.left + width, frame.top + height))
    return np.asarray(cropped) > 127


def _shown(prepared: Prepared) -> Image.Image:
    height, width = prepared.frame.size
    factor = max(1, _SHOWN // max(height, width))
    return prepared.view(height * factor, width * factor)


def open_photos(
    model: ModelInputs,
    path: Path,
    options: ImageOptions,
    *,
    labels: tuple[str, ...] | None = None,
    truth: Path | None = None,
    others: Mapping[str, Array] | None = None,
) -> Photos:
    """The photos of a folder.

    Args:
        labels: the names of the classes.
        truth: a CSV file with lines `file,label`.
        others: the model's other inputs, without the batch axis.

    Raises:
        UsageError: no photos, classes that have no index, or a model that takes none.
    """
    others = others or {}
    free = [name for name in model.input_names if name not in others]
    image_input = find_image_input(free, model.input_shapes, model.input_types, options.layout)
    if path.is_dir() and is_voc(path):
        if truth is not None:
            raise UsageError(f"{path}: the classes of Pascal VOC stand in its annotations; leave --truth out")
        items = _voc_items(path, labels)
    elif path.is_dir() and truth is None and (folders := _class_folders(path)):
        items = _of_class_folders(path, folders, labels)
    else:
        items = _of_folder(path, labels, truth)
    return Photos(recipe_for(options, image_input), items, others, labels)


def _of_folder(path: Path, labels: tuple[str, ...] | None, truth: Path | None) -> list[Item]:
    files = expand_paths([path])
    known = {} if truth is None else read_truth(truth, labels)
    items = [Item(file, file.name, known.get(file.name, -1)) for file in files]
    if known and all(item.label < 0 for item in items):
        raise UsageError(f"{truth}: none of the files in {path} is labelled in it; it names {next(iter(known))}")
    return items


def _class_folders(path: Path) -> list[Path]:
    """The folders of a folder that hold photos, where no photo lies beside them."""
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if any(entry.suffix.lower() in SUFFIXES for entry in inside if entry.is_file()):
        return []
    return [entry for entry in inside if entry.is_dir() and any(f.suffix.lower() in SUFFIXES for f in entry.iterdir())]


def _of_class_folders(path: Path, folders: Sequence[Path], labels: tuple[str, ...] | None) -> list[Item]:
    """ImageNet's arrangement: the name of a folder is the class of what lies in it."""
    if labels is None:
        # As torchvision's ImageFolder has it: the classes are the folders in the order of their names.
        indices = {folder.name: index for index, folder in enumerate(folders)}
    else:
        by_name = index_by_name(labels)
        indices = {folder.name: by_name.get(plain(folder.name), -1) for folder in folders}
        unknown = next((name for name, index in indices.items() if index < 0), None)
        if unknown is not None and len(labels) == len(folders):
            raise UsageError(f"{path}: --labels has no class {unknown!r}, which a folder is named after")
        if unknown is not None:
            raise UsageError(
                f"{path}: --labels has no class {unknown!r}, which a folder is named after; give a file with the names "
                "of the folders in the order of the model's classes"
            )
    return [
        Item(file, f"{folder.name}/{file.name}", indices[folder.name])
        for folder in folders
        for file in expand_paths([folder])
    ]


def _voc_items(path: Path, labels: tuple[str, ...] | None) -> list[Item]:
    by_name = None if labels is None else index_by_name(labels)
    items = []
    for photo, annotation in annotated(path):
        label, chosen = -1, annotation
        if by_name is not None:
            # The largest object whose class the model knows is what the photo shows.
            known = [o for o in annotation.by_size() if plain(o.name) in by_name]
            if known:
                label, chosen = by_name[plain(known[0].name)], annotation.of_class(known[0].name)
        items.append(Item(photo, photo.name, label, chosen))
    return items
