"""tools/architectures.py: what is stored is read back; the page says what was converted and why the rest was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from zoo import report, store
from zoo.families import TIMM
from zoo.network import Network
from zoo.row import Row

GOOD = Row("resnet10t", "dynamo", 60, 0.4, 0.0, 2e-8, "n (Conv, z-plus)", 0.0, group="timm", family="resnet", size=96)
BAD = replace(GOOD, name="odd", ledger=None, reason="one node stands in the way", stage="convert")
UNKNOWN = replace(GOOD, name="new", reason="no such operator", stage="export")
SLOW = replace(GOOD, name="large", reason="not done in 9 s, cut off at verify", stage="limits")


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "rows.jsonl"
    assert store.read(path) == []
    store.append(path, [GOOD, BAD])
    store.append(path, [replace(BAD, reason="", stage=""), UNKNOWN])
    assert store.read(path) == [GOOD, replace(BAD, reason="", stage=""), UNKNOWN]


def test_the_page_counts_and_gives_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "version", lambda package: "2.0")
    rows = [
        GOOD,
        replace(GOOD, exporter="torchscript", apart=1e-5, apart_median=2e-6, parameters=11_200_000),
        BAD,
        UNKNOWN,
        SLOW,
    ]
    page = report.markdown(rows, [Network("timm", "late", "later", 64)])
    assert "Not measured yet: `later` (timm)." in page
    # Five networks, of which one is verified and one is not; of the others nothing is known.
    assert "| timm | 5 | 4 | 1 | 0 | 50.0 % | 1 | 0 | 1 | 0 | 1 |" in page
    assert "| `odd` | dynamo | refused | one node stands in the way |" in page
    assert "| `new` | dynamo | not exported | no such operator |" in page
    assert "| `large` | dynamo | cut off | not done in 9 s, cut off at verify |" in page
    good = "| `resnet10t` | resnet | 11.2 | 96 | torchscript | 60 | 0.4 |"
    good += " 0e+00 | 2e-08 | n (Conv, z-plus) | 0e+00 | 1e-05 | 2e-06 |  |\n"
    assert good in page


def test_there_are_eighty_families_of_timm() -> None:
    assert len(TIMM) >= 80
    assert len({name for name, _ in TIMM.values()}) == len(TIMM)
