"""The search finds the table that a metric likes, and says honestly what it is worth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation import registry
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.data.open import DataOptions
from onnxlrp.evaluation.evaluate import Options
from onnxlrp.evaluation.registry import Metric, Settings
from onnxlrp.evaluation.summary import Cell, Line
from onnxlrp.evaluation.tune import Search, tune, verdict
from onnxlrp.explain.table import TableOptions
from onnxlrp.tables import load_table

MODELS = Path(__file__).parents[2] / "models"
IRIS, FLOWERS = str(MODELS / "iris.onnx"), MODELS / "iris.csv"
OPTIONS = Options(data=DataOptions(table=TableOptions(rows=":", drop=("species",))))
SEEN: list[bytes] = []


def share_below(case: Case, settings: Settings) -> dict[str, np.ndarray]:
    """How much relevance is below zero: z-plus has none of it, so that its tables win."""
    SEEN.extend(row.tobytes() for row in case.values)
    maps = case.method.maps(case.values, case.targets, case.rows)
    return {"share": np.minimum(maps, 0).sum(axis=1) / np.abs(maps).sum(axis=1), "other": np.zeros(len(maps))}


@pytest.fixture(autouse=True)
def metric(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    monkeypatch.setattr(registry, "_METRICS", dict(registry.metrics()))
    registry.register(Metric("below", "", "", {"share": "higher", "other": "lower"}, share_below))


def test_the_table_that_is_found_is_the_best_and_can_be_used(tmp_path: Path) -> None:
    search = Search("below", seconds=60, trials=20, name="mine")
    found = tune(IRIS, FLOWERS, search, replace(OPTIONS, rules=("epsilon", "gradient-x-input")))
    assert (found.tuning, found.held_out) == (7, 7) and len(found.trials) == 20
    assert found.winner.mean == max(t.mean for t in found.trials) > found.trials[-1].mean
    (tmp_path / "mine.toml").write_text(found.toml)
    table = load_table(str(tmp_path / "mine.toml"))
    assert table.name == "mine" and [e.rule for e in table.entries] == [e.rule for e in found.winner.table.entries]
    assert "# 20 rule tables were tried" in found.toml and "On 7 other samples" in found.toml
    assert [cell.method for cell in found.comparison.cells] == [found.winner.name, "default"]


def test_the_halves_have_no_sample_in_common() -> None:
    tune(IRIS, FLOWERS, Search("below", trials=1), replace(OPTIONS, rules=("epsilon",)))
    tuning, held_out = set(SEEN[:7]), set(SEEN[7:])
    assert len(tuning) == len(held_out) == 7 and not tuning & held_out


def test_the_same_seed_finds_the_same_table() -> None:
    first, again = (tune(IRIS, FLOWERS, Search("below.share", trials=12), OPTIONS) for _ in range(2))
    assert [(t.name, t.said, t.values) for t in first.trials] == [(t.name, t.said, t.values) for t in again.trials]


def test_a_preset_that_wins_is_written_unchanged() -> None:
    options = replace(OPTIONS, rules=("epsilon-plus",))
    found = tune(IRIS, FLOWERS, Search("below", trials=1), options)
    assert found.winner.name == "epsilon-plus" and "# The preset epsilon-plus, unchanged." in found.toml


@pytest.mark.parametrize(
    ("winner", "default", "said"),
    [
        (Cell("t", 2, 1, 3, 9, best=True), Cell("default", 1, 0, 2, 9), "better than default, and the difference is"),
        (Cell("t", 2, 1, 3, 9, best=True), Cell("default", 1, 0, 2, 9, level=True), "better .* may be chance"),
        (Cell("t", 1, 0, 2, 9, level=True), Cell("default", 2, 1, 3, 9, best=True), "worse .* may be chance"),
        (Cell("t", 1, 0, 2, 9), Cell("default", 2, 1, 3, 9, best=True), "WORSE than default"),
        (Cell("t", 1, 0, 2, 9, best=True), Cell("default", 1, 0, 2, 9, best=True), "level with default"),
    ],
)
def test_the_verdict_says_what_the_held_out_half_says(winner: Cell, default: Cell, said: str) -> None:
    assert re.search(said, verdict(Line("below", "share", "higher", (winner, default)), "t"))


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UsageError, match="below has no part 'sum'; its parts are share, other"):
        tune(IRIS, FLOWERS, Search("below.sum"), OPTIONS)
    few = replace(OPTIONS, samples=3)
    with pytest.raises(UsageError, match="3 samples are too few"):
        tune(IRIS, FLOWERS, Search("below"), few)
