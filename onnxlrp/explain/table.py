"""Tables in: rows of a CSV file by column name, and the inputs of a model that they fill."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import Dimension, dtype_of

#: File name endings that stand for a table.
SUFFIXES = frozenset([".csv", ".tsv"])

_ROWS = re.compile(r"(\d*):(\d*)|(\d+)", re.ASCII)


@dataclass(frozen=True)
class TableOptions:
    """Which part of a table is used.

    Attributes:
        rows: "3", "0:10" (the end left out), ":" for all; counted from 0, the header left out.
        drop: columns that are left out.
        columns: the columns to take, in this order; all when empty.
    """

    rows: str = "0:10"
    drop: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The chosen rows: cells as text by column, and each row's number in the file."""

    path: Path
    cells: Mapping[str, tuple[str, ...]]
    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def read_table(path: Path, options: TableOptions) -> Table:
    """Read a CSV file whose first line names the columns; comma, semicolon or tabulator between them.

    Raises UsageError for files, rows and columns that do not exist or do not fit.
    """
    lines = _lines(path)
    header = [name.strip() for name in lines[0]]
    double = sorted({name for name in header if header.count(name) > 1})
    if double or not all(header):
        what = f"{double[0]!r} stands there twice" if double else "a name is empty"
        raise UsageError(f"{path}: the first line has to name each column once, but {what}")
    for number, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise UsageError(f"{path}: row {number} has {len(line)} cells, but {len(header)} columns are named")
    chosen = _columns(path, header, options)
    total = len(lines) - 1
    numbers = _row_numbers(path, options.rows, total)
    cells = {name: tuple(lines[1 + n][header.index(name)].strip() for n in numbers) for name in chosen}
    first, last = numbers[0], numbers[-1]
    part = f"{f'row {first}' if first == last else f'rows {first} to {last}'} of {total}; --rows chooses others, : all"
    return Table(path, cells, numbers, () if len(numbers) == total else (part,))


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: the table cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the table is not text in UTF-8: {error}") from None
    first = text.partition("\n")[0]
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count)) if line]
    if len(lines) < 2:
        raise UsageError(f"{path}: the table needs a line with the names of the columns, and rows below it")
    return lines


def _columns(path: Path, header: Sequence[str], options: TableOptions) -> list[str]:
    for name in (*options.drop, *options.columns):
        if name not in header:
            raise UsageError(f"{path}: there is no column {name!r}; there are: {', '.join(header)}")
    return [name for name in options.columns or header if name not in options.drop]


def _row_numbers(path: Path, rows: str, total: int) -> tuple[int, ...]:
    match = _ROWS.fullmatch(rows.strip())
    if match is None:
        raise UsageError(f"--rows {rows!r} is not a row such as 3, nor rows such as 0:10")
    if match[3]:
        start, end = int(match[3]), int(match[3]) + 1
        if end > total:
            raise UsageError(f"{path}: there is no row {start}; the table has {total} (0 to {total - 1})")
    else:
        start, end = int(match[1] or 0), min(int(match[2] or total), total)
    if start >= end:
        raise UsageError(f"{path}: rows {rows} are none of the table's {total}")
    return tuple(range(start, end))


@dataclass(frozen=True)
class Filled:
    """A model's inputs filled with the rows, and where each column went: (input, its place in it)."""

    feeds: Mapping[str, np.ndarray]
    places: Mapping[str, tuple[str, int]]
    notes: tuple[str, ...] = ()


def fill_inputs(
    table: Table,
    names: Sequence[str],
    shapes: Mapping[str, Sequence[Dimension] | None],
    types: Mapping[str, Any],
) -> Filled:
    """Fill the inputs `names` with the table's columns, one sample for each row.

    One input [rows, features] takes all columns in their order; several inputs of one feature each take the column
    of their name (with other signs than letters and digits ignored, as exporters replace them).
    Raises UsageError when columns are missing, too many, or not numbers where numbers are needed.
    """
    by_name = {_plain(column): column for column in table.cells}
    single = len(names) == 1 and not (_width(shapes[names[0]]) == 1 and _plain(names[0]) in by_name)
    if single:
        return _one_input(table, names[0], shapes[names[0]], dtype_of(types[names[0]]))
    feeds: dict[str, np.ndarray] = {}
    places: dict[str, tuple[str, int]] = {}
    for name in names:
        shape = shapes[name]
        column = by_name.get(_plain(name))
        if column is None or _width(shape) != 1:
            wanted = ", ".join(names)
            raise UsageError(
                f"{table.path}: the model's inputs ({wanted}) take the columns of their names, but "
                f"{'there is no column' if column is None else 'more than one number goes into'} {name!r}; the columns "
                f"are {', '.join(table.cells)}. Other arrays go in by --data NAME=FILE, or all in an .npz"
            )
        values = _values(table, column, dtype_of(types[name]))
        feeds[name] = values if shape is not None and len(shape) == 1 else values[:, None]
        places[column] = (name, 0)
    unused = [column for column in table.cells if column not in places]
    notes = (f"columns without an input of their name are not used: {', '.join(unused)}",) if unused else ()
    return Filled(feeds, places, notes)


def _one_input(table: Table, name: str, shape: Sequence[Dimension] | None, dtype: np.dtype[Any]) -> Filled:
    width = _width(shape)
    if shape is not None and len(shape) != 2:
        raise UsageError(
            f"input {name!r} has {len(shape)} axes, but a table fills [rows, features]; give an .npz or .npy file"
        )
    if width is not None and width != len(table.cells):
        raise UsageError(
            f"{table.path}: input {name!r} takes {width} features, but {len(table.cells)} columns are left: "
            f"{', '.join(table.cells)}. --drop NAME leaves one out, --columns A,B,... chooses them"
        )
    feed = np.stack([_values(table, column, dtype) for column in table.cells], axis=1)
    return Filled({name: feed}, {column: (name, place) for place, column in enumerate(table.cells)})


def _width(shape: Sequence[Dimension] | None) -> int | None:
    """How many features an input takes; None where that is open."""
    if shape is None:
        return None
    if len(shape) == 1:
        return 1
    return shape[-1] if isinstance(shape[-1], int) else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _values(table: Table, column: str, dtype: np.dtype[Any]) -> np.ndarray:
    """A column in the input's type; an empty cell is a missing number."""
    cells = table.cells[column]
    if dtype.kind not in "fiub":
        return np.array(cells, dtype=object)
    numbers: list[float] = []
    for number, cell in zip(table.numbers, cells, strict=True):
        try:
            numbers.append(float(cell) if cell else float("nan"))
        except ValueError:
            raise UsageError(
                f"{table.path}: row {number} has {cell!r} in column {column!r}, which is no number; leave the column "
                f"out with --drop {column!r}"
            ) from None
    values = np.array(numbers)
    if dtype.kind != "f" and not np.isfinite(values).all():
        raise UsageError(f"{table.path}: column {column!r} has empty cells, and its input takes whole numbers")
    return values.astype(dtype)
