"""Results on disk, one JSON line for each sample, method and metric, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array

#: A number, or a curve; NaN where a sample could not be judged.
Value = float | list[float]


@dataclass(frozen=True)
class Record:
    """What one metric says of one method on one sample.

    Attributes:
        key: a digest of everything that the numbers depend on.
        place: of the sample in the data.
        method, metric: their names.
        parts: the numbers by part.
    """

    key: str
    place: int
    sample: str
    method: str
    metric: str
    parts: Mapping[str, Value]


class Store:
    """The records of earlier runs and of this one; a file, or nothing but memory.

    Args:
        path: the file; it is made when the first record comes. None keeps records in memory.
        fresh: whether what is in the file is thrown away.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path | None, *, fresh: bool = False) -> None:
        self.path = path
        self._records: dict[str, Record] = {}
        self._file: IO[str] | None = None
        self._whole = True
        self._earlier: frozenset[str] = frozenset()
        if path is not None and fresh:
            path.unlink(missing_ok=True)
        if path is not None and path.exists():
            self._read(path)
        self._earlier = frozenset(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> Record | None:
        return self._records.get(key)

    def is_earlier(self, key: str) -> bool:
        """Whether a record comes from an earlier run."""
        return key in self._earlier

    def add(self, record: Record) -> None:
        """Keeps a record, on disk at once."""
        self._records[record.key] = record
        if self.path is None:
            return
        if self._file is None:
            self._file = self._open(self.path)
        self._file.write(json.dumps(_as_json(record), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> IO[str]:
        try:
            file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: results cannot be written: {error.strerror or error}") from None
        if not self._whole:  # a run that was stopped in the middle of a line
            file.write("\n")
        return file

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: earlier results cannot be read: {error}") from None
        lines = text.split("\n")
        self._whole = lines[-1] == ""
        readable = 0
        for number, line in enumerate(lines, 1):
            record = _from_json(line)
            if record is not None:
                self._records[record.key] = record
                readable += 1
            elif line.strip() and number == 1 and len(lines) > 1:
                raise UsageError(f"{path}: not a file of results of `onnxlrp evaluate`; name another with --results")


def _as_json(record: Record) -> dict[str, Any]:
    parts = {name: _no_nan(value) for name, value in record.parts.items()}
    return {
        "key": record.key,
        "place": record.place,
        "sample": record.sample,
        "method": record.method,
        "metric": record.metric,
        "parts": parts,
    }


def _no_nan(value: Value) -> Any:
    if isinstance(value, list):
        return [_no_nan(one) for one in value]
    return value if math.isfinite(value) else repr(value)  # JSON has no infinity


def _from_json(line: str) -> Record | None:
    """A line as a record; None for one that is cut off or of another kind."""
    try:
        entry = json.loads(line)
        parts = {name: _number(value) for name, value in entry["parts"].items()}
        return Record(entry["key"], int(entry["place"]), entry["sample"], entry["method"], entry["metric"], parts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _number(value: Any) -> Value:
    return [float(one) for one in value] if isinstance(value, list) else float(value)


def value_of(array: Array, place: int) -> Value:
    """What a metric returned for one sample: a number, or a curve."""
    found = np.asarray(array[place], np.float64)
    return float(found) if found.ndim == 0 else [float(one) for one in found]
