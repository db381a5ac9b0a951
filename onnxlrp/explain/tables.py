"""Explain a model on the rows of a table: bars for each row, and one table of all numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.answer import DOT, Reading, Subject, TopClass, read_answer
from onnxlrp.explain.bars import Bar, bars_picture
from onnxlrp.explain.feeds import Value, arrays_for
from onnxlrp.explain.files import npz, png, write
from onnxlrp.explain.job import Job, beside
from onnxlrp.explain.naming import refuse_overwriting, unique_stems
from onnxlrp.explain.page import Caption
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.session import Asked, Explainer, Model, answer_of, open_model, run
from onnxlrp.explain.table import Filled, Table, TableOptions, fill_inputs, read_table


@dataclass(frozen=True)
class Feature:
    """One feature of a row: its value as the table has it, and its relevance."""

    name: str
    value: str
    relevance: float


@dataclass(frozen=True)
class RowResult:
    """What was found for one row and one map.

    row         number of the row in the file, from 0
    target      what was explained, in words
    top         most likely classes, best first; empty when the explained output is not [batch, classes]
    score_kind  what their scores are, as for images
    features    the explained features in the order of the columns
    """

    row: int
    target: str
    top: tuple[TopClass, ...]
    score_kind: str
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class TableResult:
    """What was found and written for one table; several maps of a row (top:K) are several entries of `rows`."""

    table: Path
    rows: tuple[RowResult, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def explain_tables(
    model: Model,
    paths: Sequence[str | Path],
    *,
    options: TableOptions | None = None,
    data: Mapping[str, Value] | None = None,
    out_dir: str | Path = ".",
    labels: str | Path | Sequence[str] | None = None,
    top: int = 5,
    **asked: Unpack[Asked],
) -> list[TableResult]:
    """Explain `model` on rows of CSV files. `data` fills inputs that no column does, by name.

    For `rows.csv` and the rule table `default` there will be `rows.default.csv` (a line for each row, a column for each
    feature), `rows.default.npz`, and for row 3 the picture `rows.default.row-3.png`.

    Raises UsageError for files, rows and columns that do not fit, before anything is written.
    """
    files = [Path(path) for path in paths]
    tables = [read_table(file, options or TableOptions()) for file in files]
    explainer, job = open_model(model, asked, labels, top)
    others = arrays_for(explainer, data or {}, ImageOptions())
    free = [name for name in explainer.input_names if name not in others]
    filled = [fill_inputs(table, free, explainer.input_shapes, explainer.input_types) for table in tables]
    prefixes = [Path(out_dir) / f"{stem}.{job.tag}" for stem in unique_stems(files)]
    planned = (file for prefix, table in zip(prefixes, tables, strict=True) for file in _planned(prefix, table, job))
    refuse_overwriting(planned, files)
    return [
        _explain(explainer, table, inputs, others, job, prefix)
        for table, inputs, prefix in zip(tables, filled, prefixes, strict=True)
    ]


def _row_prefix(prefix: Path, number: int) -> Path:
    return beside(prefix, f".row-{number}")


def _planned(prefix: Path, table: Table, job: Job) -> Iterator[Path]:
    for number in table.numbers:
        yield from job.planned(_row_prefix(prefix, number), (".png",), ())
    yield beside(prefix, ".csv")
    yield beside(prefix, ".npz")


@dataclass(frozen=True)
class _Found:
    """Relevance [rows, maps, features] of the explained columns, and what the model said about each row."""

    relevance: np.ndarray
    columns: tuple[str, ...]
    readings: tuple[Reading, ...]
    outputs: Mapping[str, np.ndarray]


def _explain(
    explainer: Explainer, table: Table, filled: Filled, others: Mapping[str, np.ndarray], job: Job, prefix: Path
) -> TableResult:
    found = _through(explainer, table, filled, others, job)
    if not np.isfinite(found.relevance).all():
        row, _, column = (int(i) for i in np.argwhere(~np.isfinite(found.relevance))[0])
        raise OnnxLrpError(
            f"{table.path}: the relevance of column {found.columns[column]!r} in row {table.numbers[row]} is not "
            "finite; an empty cell may be the cause, where the model does not fill it in"
        )
    rows = list(_rows(table, found, job))
    files: list[tuple[Path, bytes]] = []
    for place, number in enumerate(table.numbers):
        for k, stem in enumerate(job.map_stems(_row_prefix(prefix, number))):
            result = rows[place * (job.maps or 1) + k]
            subject = found.readings[place].subjects[k]
            files.append((beside(stem, ".png"), _picture(result, subject, table, job)))
    files.append((beside(prefix, ".csv"), _numbers(rows, found.columns)))
    files.append((beside(prefix, ".npz"), _arrays(table, filled, found, job)))
    for path, content in files:
        write(path, content)
    notes = [*table.notes, *filled.notes]
    silent = [column for column in filled.places if column not in found.columns]
    if silent:
        notes.append(f"columns whose inputs are not explained have no relevance: {', '.join(silent)}")
    if not found.relevance.any():
        notes.append("all relevance is zero")
    return TableResult(table.path, tuple(rows), tuple(path for path, _ in files), tuple(notes))


def _through(explainer: Explainer, table: Table, filled: Filled, others: Mapping[str, np.ndarray], job: Job) -> _Found:
    """Run the rows, as many at once as the model's batch takes; the last run is filled up with its last row."""
    shapes = [explainer.input_shapes[name] for name in filled.feeds]
    fixed = next((shape[0] for shape in shapes if shape and isinstance(shape[0], int)), None)
    total = len(table.numbers)
    size = fixed or (1 if others else total)
    explained = {column: place for column, place in filled.places.items() if place[0] in explainer.explained}
    if not explained:
        raise UsageError(f"no column fills an explained input; these are: {', '.join(explainer.explained)}")
    relevance: list[np.ndarray] = []
    readings: list[Reading] = []
    outputs: list[Mapping[str, np.ndarray]] = []
    for start in range(0, total, size):
        places = np.minimum(np.arange(start, start + size), total - 1)
        found = run(explainer, job, {**{name: feed[places] for name, feed in filled.feeds.items()}, **others})
        count = min(size, total - start)
        maps = {name: _with_maps(found.relevance[name], job)[:count] for name, _ in explained.values()}
        relevance.append(np.stack([maps[name][:, :, place] for name, place in explained.values()], axis=2))
        answers = [answer_of(found, index, size) for index in range(count)]
        readings += [read_answer(answer, job) for answer in answers]
        outputs += [answer.outputs for answer in answers]
    stacked = {name: np.stack([output[name] for output in outputs]) for name in outputs[0]}
    return _Found(np.concatenate(relevance), tuple(explained), tuple(readings), stacked)


def _with_maps(relevance: np.ndarray, job: Job) -> np.ndarray:
    """[rows, maps, features], float64, whether or not there are several maps, or a features axis."""
    several = relevance if job.maps is not None else relevance[:, None]
    return several.reshape(several.shape[0], several.shape[1], -1).astype(np.float64)


def _rows(table: Table, found: _Found, job: Job) -> Iterator[RowResult]:
    for place, number in enumerate(table.numbers):
        reading = found.readings[place]
        for k in range(job.maps or 1):
            features = tuple(
                Feature(column, table.cells[column][place], float(found.relevance[place, k, at]))
                for at, column in enumerate(found.columns)
            )
            yield RowResult(number, reading.subjects[k].heading, reading.top, reading.score_kind, features)


def _picture(row: RowResult, subject: Subject, table: Table, job: Job) -> bytes:
    origin = DOT.join((f"model {job.model}", f"rules {job.rules}", f"table {table.path.name}", f"row {row.row}"))
    caption = Caption(subject.heading, subject.detail, (origin,))
    bars = [Bar(feature.name, _short(feature.value), feature.relevance) for feature in row.features]
    return png(bars_picture(bars, caption))


def _short(value: str) -> str:
    """A cell for reading: numbers with four digits."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value or "(empty)"


def _numbers(rows: Sequence[RowResult], columns: Sequence[str]) -> bytes:
    """The relevance of all rows as CSV, full precision."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "explained", *columns])
    for row in rows:
        lines.writerow([row.row, row.target, *(repr(feature.relevance) for feature in row.features)])
    return text.getvalue().encode()


def _arrays(table: Table, filled: Filled, found: _Found, job: Job) -> bytes:
    """`relevance` [rows, features] (with top:K [rows, K, features]), `columns`, `rows`, inputs and outputs."""
    settings = {
        "table": str(table.path),
        "model": job.model,
        "rules": job.rules,
        "target": list(job.target) if isinstance(job.target, tuple) else job.target,
        "explained": [[subject.heading for subject in reading.subjects] for reading in found.readings],
    }
    relevance = found.relevance if job.maps is not None else found.relevance[:, 0]
    return npz(
        {
            "relevance": relevance,
            "columns": np.array(found.columns),
            "rows": np.array(table.numbers),
            **{f"input/{name}": feed for name, feed in filled.feeds.items()},
            **{f"output/{name}": value for name, value in found.outputs.items()},
            "settings": np.asarray(json.dumps(settings)),
        }
    )
