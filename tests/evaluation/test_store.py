"""Results on disk outlive a run that is stopped."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.store import Record, Store


def record(key: str, value: float = 0.5) -> Record:
    return Record(key, 3, "cat.jpg", "epsilon", "deletion", {"area": value, "curve": [1.0, 0.25]})


def test_what_was_added_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    store = Store(path)
    store.add(record("a"))
    store.add(record("b", math.nan))
    store.close()
    again = Store(path)
    assert len(again) == 2 and again.get("a") == record("a") and again.get("c") is None
    found = again.get("b")
    assert found is not None and math.isnan(float(found.parts["area"]))  # type: ignore[arg-type]


def test_a_line_that_was_cut_off_is_passed_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    store = Store(path)
    store.add(record("a"))
    store.add(record("b"))
    store.close()
    path.write_text(path.read_text()[:-20])
    again = Store(path)
    assert again.get("a") is not None and again.get("b") is None
    again.add(record("b"))
    again.close()
    assert len(Store(path)) == 2


def test_fresh_throws_away_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    store = Store(path)
    store.add(record("a"))
    store.close()
    assert len(Store(path, fresh=True)) == 0 and not path.exists()


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    store = Store(None)
    store.add(record("a"))
    assert store.get("a") == record("a") and not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\nare here\n")
    with pytest.raises(UsageError, match="not a file of results"):
        Store(path)
    assert path.read_text() == "my notes\nare here\n"
