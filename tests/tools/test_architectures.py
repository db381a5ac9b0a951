"""tools/architectures.py: what is stored is read back; the page says what was converted and why the rest was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from zoo import report, store
from zoo.families import TIMM
from zoo.row import Row

GOOD = Row("resnet10t", "dynamo", 60, 0.4, 0.0, 2e-8, "n (Conv, z-plus)", 0.0, group="timm", family="resnet", size=96)
BAD = replace(GOOD, name="odd", ledger=None, reason="one node stands in the way", stage="convert")
UNKNOWN = replace(GOOD, name="new", reason="no such operator", stage="export")


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "rows.jsonl"
    assert store.read(path) == []
    store.append(path, [GOOD, BAD])
    store.append(path, [replace(BAD, reason="", stage=""), UNKNOWN])
    assert store.read(path) == [GOOD, replace(BAD, reason="", stage=""), UNKNOWN]


def test_the_page_counts_and_gives_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "version", lambda package: "2.0")
    page = report.markdown([GOOD, replace(GOOD, exporter="torchscript", apart=1e-5), BAD, UNKNOWN], ["later"])
    assert "Not measured yet: 1 networks (`later`)." in page
    assert "| timm | 3 | 4 | 2 | 1 | 0 | 1 |" in page
    assert "| `odd` | dynamo | convert | one node stands in the way |" in page
    assert "| `new` | dynamo | export | no such operator |" in page
    assert "| `resnet10t` | 96 | torchscript | 60 | 0.4 | 0e+00 | 2e-08 | 0e+00 | 1e-05 |  |" in page


def test_there_are_eighty_families_of_timm() -> None:
    assert len(TIMM) >= 80
    assert len({name for name, _ in TIMM.values()}) == len(TIMM)
