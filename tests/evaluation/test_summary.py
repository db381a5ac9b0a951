"""Means, intervals, and which differences may be chance."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.evaluation.registry import Metric
from onnxlrp.evaluation.store import Record, Value
from onnxlrp.evaluation.summary import curves, summarise

METRIC = Metric("fall", "", "", {"fall": "lower", "rise": "higher"}, lambda case, settings: {})
RNG = np.random.default_rng(0)


def records(method: str, **parts: list[Value]) -> list[Record]:
    count = len(next(iter(parts.values())))
    return [
        Record(f"{method}{i}", i, str(i), method, "fall", {name: values[i] for name, values in parts.items()})
        for i in range(count)
    ]


def test_the_best_mean_is_marked_by_the_direction_of_the_metric() -> None:
    low, high = [0.1, 0.2, 0.3], [0.9, 0.8, 0.7]
    found = [*records("a", fall=list(low), rise=list(low)), *records("b", fall=list(high), rise=list(high))]
    fall, rise = summarise(found, [METRIC], ["a", "b"])
    assert [cell.best for cell in fall.cells] == [True, False] and fall.arrow == "↓"
    assert [cell.best for cell in rise.cells] == [False, True] and rise.arrow == "↑"
    assert fall.cells[0].mean == pytest.approx(0.2) and fall.cells[0].low <= 0.2 <= fall.cells[0].high


def test_a_small_difference_counts_where_it_is_the_same_in_every_sample() -> None:
    base = RNG.normal(size=40)
    level = base + RNG.normal(size=40)
    found = [
        *records("best", fall=base.tolist()),
        *records("worse", fall=(base + 0.01).tolist()),
        *records("level", fall=(level - level.mean() + base.mean() + 0.001).tolist()),
    ]
    (line,) = summarise(found, [METRIC], ["best", "worse", "level"])
    assert [(cell.best, cell.level) for cell in line.cells] == [(True, False), (False, False), (False, True)]


def test_samples_that_cannot_be_judged_do_not_count() -> None:
    (line,) = summarise(records("a", fall=[1.0, float("nan"), 3.0]), [METRIC], ["a"])
    assert (line.cells[0].mean, line.cells[0].count) == (2.0, 2)


def test_curves_are_averaged_and_are_no_line_of_the_table() -> None:
    found = records("a", fall=[1.0, 1.0], curve=[[1.0, 0.0], [0.5, 0.5]])
    (curve,) = curves(found, [METRIC], ["a", "b"])
    assert curve.means["a"].tolist() == [0.75, 0.25] and curve.count == 2 and "b" not in curve.means
    assert [line.part for line in summarise(found, [METRIC], ["a"])] == ["fall"]
