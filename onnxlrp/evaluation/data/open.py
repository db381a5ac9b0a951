"""Which reader a path goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.data.arrays import open_arrays
from onnxlrp.evaluation.data.photos import open_photos
from onnxlrp.evaluation.data.rows import open_rows
from onnxlrp.evaluation.data.sentences import open_sentences
from onnxlrp.evaluation.sample import Data
from onnxlrp.evaluation.subject import Engine
from onnxlrp.explain import sound
from onnxlrp.explain.feeds import ARRAY_SUFFIXES, Value, arrays_for
from onnxlrp.explain.labels import read_labels
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.table import SUFFIXES as TABLE_SUFFIXES
from onnxlrp.explain.table import TableOptions

#: File name endings that stand for texts.
TEXT_SUFFIXES = frozenset([".jsonl", ".ndjson"])


@dataclass(frozen=True)
class DataOptions:
    """How data goes into a model.

    Attributes:
        labels: the names of the classes: themselves, a file, or "imagenet".
        truth: photos: a CSV file with lines `file,label`.
        label_column: tables: the column that holds the class.
        tokenizer: texts: the model's tokenizer.json.
        feed: texts: what inputs without a usual name take.
        fixed: the model's other inputs by name, the same for every sample.
    """

    labels: str | Sequence[str] | None = None
    truth: str | None = None
    label_column: str | None = None
    tokenizer: str | None = None
    feed: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Value] = field(default_factory=dict)
    image: ImageOptions = field(default_factory=ImageOptions)
    table: TableOptions = field(default_factory=lambda: TableOptions(rows=":"))


def open_data(engine: Engine, path: str | Path, options: DataOptions, input_name: str | None = None) -> Data:
    """The samples at `path`: a folder of photos, .csv, .npz or .jsonl.

    The engine is told which input is explained.

    Raises:
        UsageError: nothing is there, it is of another kind, or it does not fit the model or the options.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    labels = None if options.labels is None else read_labels(options.labels)
    others = {n: _one(n, array) for n, array in arrays_for(engine, options.fixed, options.image).items()}
    suffix = path.suffix.lower()
    _refuse(options, suffix)
    data: Data
    if suffix in sound.SUFFIXES:
        raise UsageError(f"{path}: sound cannot be evaluated directly; write its windows as an .npz of arrays")
    if suffix in ARRAY_SUFFIXES:
        layout = options.image.layout
        data = open_arrays(engine, path, input_name=input_name, layout=layout, labels=labels, others=others)
    elif suffix in TABLE_SUFFIXES:
        column = options.label_column
        data = open_rows(engine, path, options.table, label_column=column, labels=labels, others=others)
    elif suffix in TEXT_SUFFIXES:
        tokenizer = None if options.tokenizer is None else Path(options.tokenizer)
        data = open_sentences(engine, path, tokenizer, options.feed, labels=labels, others=others)
    else:
        truth = None if options.truth is None else Path(options.truth)
        data = open_photos(engine, path, options.image, labels=labels, truth=truth, others=others)
    engine.explain_input(data.input_name)
    return data


def _one(name: str, array: np.ndarray) -> np.ndarray:
    """A value that is the same for every sample, without its batch axis."""
    if not array.ndim:
        raise UsageError(f"input {name!r} is a single number without a batch axis, which evaluation cannot fill")
    found: np.ndarray = array[0]
    return found


def _refuse(options: DataOptions, suffix: str) -> None:
    """Options that go with another kind of data are a mistake."""
    stated = (
        ("--label-column", options.label_column, suffix in TABLE_SUFFIXES, "tables (.csv)"),
        ("--tokenizer", options.tokenizer, suffix in TEXT_SUFFIXES, "texts (.jsonl)"),
        ("--truth", options.truth, suffix not in (*TABLE_SUFFIXES, *TEXT_SUFFIXES, *ARRAY_SUFFIXES), "photos"),
    )
    for name, value, fits, where in stated:
        if value is not None and not fits:
            raise UsageError(f"{name} goes with {where}")
