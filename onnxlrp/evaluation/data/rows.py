"""Rows of a table as samples, with a column that holds their class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.data.arrays import Arrays
from onnxlrp.evaluation.data.classes import class_index
from onnxlrp.evaluation.sample import Layout
from onnxlrp.explain.session import ModelInputs
from onnxlrp.explain.table import TableOptions, fill_inputs, read_table


def open_rows(
    model: ModelInputs,
    path: Path,
    options: TableOptions,
    *,
    label_column: str | None = None,
    labels: tuple[str, ...] | None = None,
    others: Mapping[str, Array] | None = None,
) -> Arrays:
    """The rows of a CSV file whose first line names the columns; all of them fill one input [rows, features].

    Args:
        label_column: the column with the class, by its index or its name in `labels`; it is no feature.

    Raises:
        UsageError: files, rows, columns and classes that do not fit.
    """
    others = others or {}
    drop = options.drop if label_column is None else (*options.drop, label_column)
    table = read_table(path, replace(options, drop=drop))
    free = [name for name in model.input_names if name not in others]
    filled = fill_inputs(table, free, model.input_shapes, model.input_types)
    if len(filled.feeds) != 1:
        raise UsageError(
            f"{path}: the model takes each column by an input of its own; evaluation explains one, [rows, features]"
        )
    ((name, values),) = filled.feeds.items()
    if values.dtype.kind != "f":
        raise UsageError(f"{path}: input {name!r} does not take floats, so that it cannot be explained")
    if not np.isfinite(values).all():
        raise UsageError(f"{path}: there are empty cells; fill them, because parts of a row are taken away in turn")
    classes = None
    if label_column is not None:
        column = read_table(path, TableOptions(rows=options.rows, columns=(label_column,))).cells[label_column]
        classes = np.array(
            [class_index(c, labels, f"{path} row {n}") for n, c in zip(table.numbers, column, strict=True)], np.int64
        )
    repeated = {key: np.repeat(array[None], len(values), axis=0) for key, array in others.items()}
    means = values.mean(axis=0, dtype=np.float64)
    names = tuple(f"row {number}" for number in table.numbers)
    return Arrays(name, Layout(means=means), {name: values, **repeated}, classes, names=names, class_names=labels)
