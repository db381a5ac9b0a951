"""The page docs/EVALUATION.md: tables of means with intervals, and in words what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxlrp.evaluation.statistics import difference
from onnxlrp.evaluation.store import Record
from onnxlrp.evaluation.summary import Cell, Line, short, values_of

#: Tables that are gradients rather than LRP; they count as baselines in what is said.
GRADIENTS = ("gradient-x-input", "guided-backprop", "deconvnet", "gradient")
CHANCE = "random"
DEFAULT = "default"


@dataclass(frozen=True)
class Measured:
    """What was measured on one model.

    Attributes:
        same: tables that make the same relevance pass for this model as an earlier one, and which.
    """

    title: str
    about: str
    samples: int
    lines: Sequence[Line]
    records: Sequence[Record]
    methods: Sequence[str]
    tables: Sequence[str]
    same: Mapping[str, str]
    notes: Sequence[str] = ()

    @property
    def lrp(self) -> list[str]:
        """The rule tables that are LRP."""
        return [name for name in self.tables if name not in GRADIENTS]

    @property
    def others(self) -> list[str]:
        """Baselines and gradients, chance left out."""
        return [name for name in self.methods if name not in self.lrp and name != CHANCE]


def page(measured: Sequence[Measured], version: str) -> str:
    """The whole page."""
    return "\n".join(_page(measured, version)) + "\n"


def _page(measured: Sequence[Measured], version: str) -> Iterator[str]:
    yield "# Evaluation"
    yield ""
    yield "<!-- Written by tools/evaluation.py from measurements; what is said of results is made from the numbers. -->"
    yield ""
    yield (
        f"How good are the explanations, and where does LRP lose? Measured with `onnxlrp evaluate` {version}; the "
        "metrics are described in [METRICS.md](METRICS.md). Every number is a mean over the samples with the 95 % "
        "bootstrap interval of that mean. **Bold** is the best mean of a column, *italic* what may be level with it: "
        "the interval of the difference, sample by sample, contains 0. Many pairs are compared here, so that one in "
        "twenty differences without meaning will look like one."
    )
    yield ""
    yield (
        "No metric is the truth. Deletion, insertion and pixel flipping ask the model about inputs that it was never "
        "trained on, and what takes the place of removed parts decides much; occlusion and RISE are made of just such "
        "inputs and have a home advantage there. Complexity is good for a map of one pixel, however wrong."
    )
    for one in measured:
        yield from _section(one)


def _section(one: Measured) -> Iterator[str]:
    yield ""
    yield f"## {one.title}"
    yield ""
    yield f"{one.about} {one.samples} samples."
    yield ""
    yield "| method | " + " | ".join(f"{line.title} {line.arrow}" for line in one.lines) + " |"
    yield "| --- |" + " ---: |" * len(one.lines)
    for place, name in enumerate(one.methods):
        yield f"| {name} | " + " | ".join(_cell(line.cells[place]) for line in one.lines) + " |"
    yield ""
    for name, first in one.same.items():
        yield f"`{name}` makes the same relevance pass as `{first}` for this model."
    for note in one.notes:
        yield f"{note[:1].upper()}{note[1:]}."
    yield ""
    yield from _list("Where LRP loses", losses(one))
    yield from _list("Where LRP wins", wins(one))
    yield from _list("Not better than chance", no_better_than_chance(one))
    yield from _list(f"Where another LRP table is better than `{DEFAULT}`", better_than_default(one))


def _list(title: str, sentences: Sequence[str]) -> Iterator[str]:
    yield f"**{title}.**"
    yield ""
    yield from (f"* {sentence}" for sentence in sentences or ["Nowhere in this table."])
    yield ""


def _cell(cell: Cell) -> str:
    if not cell.count:
        return "-"
    text = short(cell.mean) if cell.count < 2 else f"{short(cell.mean)} [{short(cell.low)}, {short(cell.high)}]"
    return f"**{text}**" if cell.best else f"*{text}*" if cell.level else text


def losses(one: Measured) -> list[str]:
    """Every line in which a method that is no LRP is better than the best LRP table, beyond chance."""
    found = []
    for line in one.lines:
        lrp, other = best(line, one.lrp), best(line, one.others)
        if lrp and other and _beyond_chance(one, line, other, lrp):
            beaten = [n for n in one.others if (cell := _of(line, n)).count and _beyond_chance(one, line, cell, lrp)]
            verb = "is" if len(beaten) == 1 else "are"
            found.append(
                f"{line.title} {line.arrow}: {_names(beaten)} {verb} better than the best LRP table, {lrp.method} "
                f"({other.method} {short(other.mean)}, {lrp.method} {short(lrp.mean)})."
            )
    return found


def wins(one: Measured) -> list[str]:
    """Every line in which an LRP table is better than all other methods, beyond chance."""
    found = []
    for line in one.lines:
        lrp, other = best(line, one.lrp), best(line, one.others)
        if lrp and other and _beyond_chance(one, line, lrp, other):
            found.append(
                f"{line.title} {line.arrow}: {lrp.method} ({short(lrp.mean)}) is better than the best other method, "
                f"{other.method} ({short(other.mean)})."
            )
    return found


def no_better_than_chance(one: Measured) -> list[str]:
    """LRP tables that are not better than random maps, by line."""
    found = []
    for line in one.lines:
        chance = next((cell for cell in line.cells if cell.method == CHANCE and cell.count), None)
        if chance is None:
            continue
        weak = [n for n in one.lrp if _of(line, n).count and not _beyond_chance(one, line, _of(line, n), chance)]
        if weak:
            found.append(f"{line.title} {line.arrow}: {_names(weak)} (random maps: {short(chance.mean)}).")
    return found


def better_than_default(one: Measured) -> list[str]:
    """Every line in which other LRP tables are better than the one that is used unless another is named."""
    found = []
    for line in one.lines:
        usual = next((cell for cell in line.cells if cell.method == DEFAULT and cell.count), None)
        others = [_of(line, name) for name in one.lrp if name != DEFAULT]
        better = [c for c in others if usual and c.count and _beyond_chance(one, line, c, usual)]
        if usual and better:
            said = _names([f"{cell.method} ({short(cell.mean)})" for cell in better])
            found.append(f"{line.title} {line.arrow}: {said}; {DEFAULT} {short(usual.mean)}.")
    return found


def best(line: Line, names: Sequence[str]) -> Cell | None:
    """The method with the best mean among some."""
    cells = [cell for cell in line.cells if cell.method in names and cell.count]
    sign = 1.0 if line.better == "higher" else -1.0
    return max(cells, key=lambda cell: sign * cell.mean) if cells else None


def _beyond_chance(one: Measured, line: Line, better: Cell, worse: Cell) -> bool:
    """Whether the interval of the difference, sample by sample, lies wholly on the better one's side."""
    values = [values_of(one.records, line.metric, line.part, cell.method) for cell in (better, worse)]
    shared = sorted(values[0].keys() & values[1].keys())
    pair = [np.array([v[place] for place in shared], np.float64) for v in values]
    pair = [np.where(np.isfinite(numbers), numbers, np.nan) for numbers in pair]
    found = difference(pair[0], pair[1]).of
    return bool(found.low > 0 if line.better == "higher" else found.high < 0)


def _of(line: Line, name: str) -> Cell:
    return next(cell for cell in line.cells if cell.method == name)


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
