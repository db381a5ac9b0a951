"""What the records of a run say: mean and interval of every part of every metric for each method, and who is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.registry import Metric
from onnxlrp.evaluation.statistics import difference, summary
from onnxlrp.evaluation.store import Record

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Cell:
    """One method in one line of the table.

    Attributes:
        mean, low, high: the mean over the samples, and the ends of its 95 % interval.
        count: how many samples could be judged.
        best: whether no other method has a better mean.
        level: whether its difference to the best one, sample by sample, may be chance (its interval contains 0).
    """

    method: str
    mean: float
    low: float
    high: float
    count: int
    best: bool = False
    level: bool = False


@dataclass(frozen=True)
class Line:
    """One part of one metric over all methods."""

    metric: str
    part: str
    better: Better
    cells: Sequence[Cell]

    @property
    def title(self) -> str:
        return self.metric if self.part in ("", self.metric) else f"{self.metric}: {self.part}"

    @property
    def arrow(self) -> str:
        return "↑" if self.better == "higher" else "↓"


def short(value: float) -> str:
    """A number for reading: three digits, large ones whole."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


@dataclass(frozen=True)
class Curve:
    """The mean of a curve for each method, and how many samples it is of."""

    metric: str
    part: str
    means: Mapping[str, Array]
    count: int


def values_of(records: Sequence[Record], metric: str, part: str, method: str) -> dict[int, float]:
    """The numbers of one part of a metric for one method, by the place of the sample."""
    found = (r for r in records if r.metric == metric and r.method == method)
    return {r.place: v for r in found if isinstance(v := r.parts.get(part), float)}


def summarise(
    records: Sequence[Record], metrics: Sequence[Metric], methods: Sequence[str], seed: int = 0
) -> list[Line]:
    """The lines of the table, in the order of the metrics and their parts."""
    lines = []
    for metric in metrics:
        for part, better in metric.better.items():
            by_method = {name: values_of(records, metric.name, part, name) for name in methods}
            if any(by_method.values()):
                lines.append(Line(metric.name, part, better, _cells(by_method, better, seed)))
    return lines


def curves(records: Sequence[Record], metrics: Sequence[Metric], methods: Sequence[str]) -> list[Curve]:
    """The mean curves of the metrics that have some."""
    found = []
    for metric in metrics:
        own = [r for r in records if r.metric == metric.name]
        names = dict.fromkeys(part for r in own for part, value in r.parts.items() if isinstance(value, list))
        for part in names:
            stacked = {
                method: np.array([r.parts[part] for r in own if r.method == method and part in r.parts], np.float64)
                for method in methods
            }
            means = {method: np.nanmean(array, axis=0) for method, array in stacked.items() if array.size}
            count = max((len(array) for array in stacked.values()), default=0)
            found.append(Curve(metric.name, part, means, count))
    return found


def _cells(by_method: Mapping[str, Mapping[int, float]], better: Better, seed: int) -> list[Cell]:
    cells = []
    for name, values in by_method.items():
        found = summary(_numbers(values), seed)
        # A single number has no spread that one could speak of.
        low, high = (found.low, found.high) if found.count > 1 else (math.nan, math.nan)
        cells.append(Cell(name, found.mean, low, high, found.count))
    ranked = [cell for cell in cells if math.isfinite(cell.mean)]
    if not ranked:
        return cells
    sign = 1.0 if better == "higher" else -1.0
    top = max(ranked, key=lambda cell: sign * cell.mean)
    return [_against(cell, top, by_method, seed) for cell in cells]


def _against(cell: Cell, top: Cell, values: Mapping[str, Mapping[int, float]], seed: int) -> Cell:
    """The cell with what it is beside the best one."""
    if not math.isfinite(cell.mean) or cell.mean == top.mean:
        return replace(cell, best=cell.mean == top.mean)
    shared = sorted(values[cell.method].keys() & values[top.method].keys())
    pair = [np.array([values[name][place] for place in shared], np.float64) for name in (cell.method, top.method)]
    found = difference(pair[0], pair[1], seed).of
    return replace(cell, level=bool(found.low <= 0 <= found.high))


def _numbers(values: Mapping[int, float]) -> Array:
    """In the order of the samples; what is infinite cannot be averaged."""
    numbers = np.array([values[place] for place in sorted(values)], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
