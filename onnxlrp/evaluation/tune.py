"""`onnxlrp tune`: a search for the rule table that a metric likes best, and an honest comparison with `default`.

The data is split at random. Candidates are judged on one half by successive halving (Jamieson and Talwalkar 2016): many
on a few samples, the better third of them on three times as many, and so on. New candidates are drawn at random or from
the neighbourhood of the best so far. The winner is then compared with `default` on the other half, which the search has
never seen.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from onnxlrp.api import ModelLike
from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.evaluation.evaluate import Options, make_plan
from onnxlrp.evaluation.methods import NamedMethod, table_method
from onnxlrp.evaluation.run import Plan, run
from onnxlrp.evaluation.sample import Data, Subset, samples
from onnxlrp.evaluation.space import Candidate, Traits, draw, near, traits_of
from onnxlrp.evaluation.store import Store
from onnxlrp.evaluation.summary import Line, summarise, values_of
from onnxlrp.tables import RuleTable, load_table, preset_names

#: Samples on which a new candidate is judged first, and by how much their number grows.
_FIRST, _MORE = 8, 3
#: Candidates of one round of halving.
_ROUND = 9
#: The share of the time that is kept for the comparison on the other half.
_KEPT = 0.25
#: Samples from which the bounds of the input are taken.
_BOUNDS = 256

#: Called with the seconds that have passed, all seconds, and what is being done.
Progress = Callable[[float, float, str], None]


@dataclass
class Trial:
    """One rule table of the search.

    Attributes:
        name: of the table; that of the preset where it is one.
        candidate: its point in the space; None for a preset.
        values: the metric by the sample's place in the tuning half.
        failed: why it could not be judged.
    """

    name: str
    table: RuleTable
    candidate: Candidate | None = None
    values: dict[int, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def mean(self) -> float:
        finite = [value for value in self.values.values() if math.isfinite(value)]
        return float(np.mean(finite)) if finite else math.nan

    @property
    def said(self) -> str:
        return f"preset {self.name}" if self.candidate is None else str(self.candidate)


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        winner: the best table on the tuning half.
        toml: it as text, with how it was found.
        trials: all tables that were tried, the best first.
        comparison: the winner and `default` on the other half.
        tuning, held_out: how many samples each half had.
        seconds: how long it took.
    """

    winner: Trial
    toml: str
    trials: Sequence[Trial]
    comparison: Line
    tuning: int
    held_out: int
    seconds: float
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Search:
    """How long and by what to search.

    Attributes:
        metric: its name, or `NAME.PART` for one of its parts.
        seconds: for everything, the comparison included.
        trials: most tables that are tried; None for as many as there is time for.
        name: of the table that is found.
    """

    metric: str
    seconds: float = 300.0
    trials: int | None = None
    name: str = "tuned"


def tune(
    model: ModelLike, data: str | Path, search: Search, options: Options | None = None, progress: Progress | None = None
) -> Tuned:
    """Searches a rule table for a model on data.

    Args:
        options: as for `evaluate`; its rules are tried first, all presets when it has none but `default`.

    Raises:
        UsageError: data, metric and model do not fit each other, or there are too few samples.
        ModelReadError, ConversionError: as `onnxlrp.convert`.
    """
    begun = time.monotonic()
    metric, _, part = search.metric.partition(".")
    options = replace(options or Options(), metrics=(metric,), baselines=())
    plan, notes = make_plan(model, data, replace(options, rules=("default",)))
    chosen = plan.metrics[0].metric
    part = part or (metric if metric in chosen.better else next(iter(chosen.better)))
    if part not in chosen.better:
        raise UsageError(f"the metric {metric} has no part {part!r}; its parts are {', '.join(chosen.better)}")
    tuning, held_out = _halves(plan, chosen.group)
    traits = _traits(plan, tuning)
    first = options.rules if tuple(options.rules) != ("default",) else preset_names()
    state = _Search(plan, tuning, metric, part, traits, search, begun, progress or (lambda done, total, what: None))
    state.run(first)
    winner = state.best()
    comparison = _compare(plan, held_out, winner, metric, part, state)
    trials = sorted(state.trials, key=lambda t: (bool(t.failed), -len(t.values), -state.sign * t.mean))
    seconds = time.monotonic() - begun
    used = min(len(held_out), comparison.cells[0].count)
    text = _toml(search, winner, trials, comparison, len(tuning), used, traits, seconds)
    return Tuned(winner, text, trials, comparison, len(tuning), used, seconds, notes)


def _halves(plan: Plan, group: int) -> tuple[Subset, Subset]:
    """The data in two halves at random, each of whole groups."""
    order = np.random.default_rng([plan.setting.seed, 1]).permutation(len(plan))
    half = len(order) // 2 // group * group
    if half < max(2, group):
        raise UsageError(f"{len(order)} samples are too few to search on one half and to compare on the other")
    return Subset(plan.data, order[:half].tolist()), Subset(plan.data, order[half : 2 * half].tolist())


def _traits(plan: Plan, tuning: Data) -> Traits:
    steps = plan.engine.steps()
    if plan.setting.layout.is_token:
        return traits_of(steps)
    low, high = _bounds(plan, tuning)
    return traits_of(steps, low, high)


def _bounds(plan: Plan, tuning: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The smallest and largest value of each channel of a picture, of the whole input otherwise."""
    layout = plan.setting.layout
    lows, highs = [], []
    for sample in samples(tuning, _BOUNDS):
        values = sample.inputs[tuning.input_name]
        if layout.is_picture:
            values = layout.to_channels_first(values[None])[0]
            axes = tuple(range(1, values.ndim))
            lows.append(values.min(axis=axes))
            highs.append(values.max(axis=axes))
        else:
            lows.append(values.min(keepdims=True).reshape(1))
            highs.append(values.max(keepdims=True).reshape(1))
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    high = np.where(high > low, high, low + 1.0)
    # The box must hold zero between its bounds, as the rule assumes.
    return tuple(np.minimum(low, 0.0).tolist()), tuple(np.maximum(high, 0.0).tolist())


class _Search:
    """The trials so far, and the clock."""

    def __init__(
        self,
        plan: Plan,
        tuning: Data,
        metric: str,
        part: str,
        traits: Traits,
        search: Search,
        begun: float,
        progress: Progress,
    ) -> None:
        self._plan, self._data, self._metric, self._part = plan, tuning, metric, part
        self._traits, self._search, self._begun, self._progress = traits, search, begun, progress
        self._generator = np.random.default_rng([plan.setting.seed, 2])
        self.sign = 1.0 if plan.metrics[0].metric.better[part] == "higher" else -1.0
        self.trials: list[Trial] = []

    @property
    def seconds(self) -> float:
        return self._search.seconds

    @property
    def passed(self) -> float:
        return time.monotonic() - self._begun

    @property
    def over(self) -> bool:
        return self.passed > self._search.seconds * (1 - _KEPT)

    def run(self, first: Sequence[str]) -> None:
        """Halving rounds, the first of them with the given tables, until the time is over."""
        self._halve([Trial(load_table(name).name, load_table(name)) for name in first[: self._search.trials]])
        while not self.over and not self._enough():
            room = _ROUND if self._search.trials is None else min(_ROUND, self._search.trials - len(self.trials))
            self._halve([self._new(len(self.trials) + k + 1) for k in range(room)])

    def best(self) -> Trial:
        """The best of those that were judged on most samples.

        Raises:
            UsageError: no table could be judged.
        """
        judged = [t for t in self.trials if not t.failed and math.isfinite(t.mean)]
        if not judged:
            why = next((t.failed for t in self.trials if t.failed), "the metric gave no number")
            raise UsageError(f"no rule table could be judged: {why}")
        most = max(len(t.values) for t in judged)
        return max((t for t in judged if len(t.values) == most), key=lambda t: self.sign * t.mean)

    def _enough(self) -> bool:
        return self._search.trials is not None and len(self.trials) >= self._search.trials

    def _new(self, number: int, tries: int = 20) -> Trial:
        """Half of the new tables are drawn anew, half are neighbours of the best that have a point in the space.

        What was tried already is drawn again, up to `tries` times: a small space may be exhausted.
        """
        known = [t for t in self.trials if t.candidate is not None and math.isfinite(t.mean)]
        known.sort(key=lambda t: (-len(t.values), -self.sign * t.mean))
        parent = known[int(self._generator.integers(min(3, len(known))))].candidate if known else None
        if parent is not None and self._generator.random() < 0.5:
            candidate = near(parent, self._traits, self._generator)
        else:
            candidate = draw(self._traits, self._generator)
        if any(t.candidate == candidate for t in self.trials) and tries > 0:
            return self._new(number, tries - 1)
        name = f"tried-{number}"
        return Trial(name, candidate.table(name, self._traits), candidate)

    def _halve(self, trials: Sequence[Trial]) -> None:
        self.trials += trials
        left, count = list(trials), _FIRST
        while left:
            for trial in left:
                if self.over and any(len(t.values) for t in self.trials):
                    return
                self._judge(trial, min(count, len(self._data)))
            left = [t for t in left if not t.failed and math.isfinite(t.mean)]
            left.sort(key=lambda t: -self.sign * t.mean)
            if count >= len(self._data):
                return
            left, count = left[: max(1, len(left) // _MORE)], count * _MORE

    def _judge(self, trial: Trial, count: int) -> None:
        self._progress(self.passed, self._search.seconds, f"{trial.name} on {count} samples")
        places = [place for place in range(count) if place not in trial.values]
        group = self._plan.metrics[0].metric.group
        start = (min(places, default=count)) // group * group
        try:
            method = table_method(trial.table, self._plan.engine, trial.name)
            found = judged(self._plan, Subset(self._data, range(start, count)), method, self._metric, self._part)
        except OnnxLrpError as error:
            trial.failed = str(error)
            return
        finally:
            self._plan.engine.forget(trial.table)
        trial.values.update({start + place: value for place, value in found.items()})


def judged(plan: Plan, data: Data, method: NamedMethod, metric: str, part: str) -> Mapping[int, float]:
    """One part of a metric for one method on data, by place."""
    outcome = run(replace(plan, data=data, methods=[method], limit=None), Store(None))
    return values_of(outcome.records, metric, part, method.name)


def _compare(plan: Plan, held_out: Data, winner: Trial, metric: str, part: str, state: _Search) -> Line:
    """The winner and `default` on as many samples of the other half as there is time for."""
    methods = [table_method(winner.table, plan.engine, winner.name)]
    if winner.name != "default":
        methods.append(table_method("default", plan.engine, "default"))
    # One batch after the other through both, so that they have seen the same samples when the time is over.
    both = replace(plan, data=held_out, methods=methods, limit=None, at_once=1)
    # One batch at least, however little time is left.
    outcome = run(both, Store(None), stop=_deadline(len(methods), lambda: state.passed > state.seconds))
    shared = set.intersection(*({r.place for r in outcome.records if r.method == m.name} for m in methods))
    records = [r for r in outcome.records if r.place in shared]
    lines = summarise(records, [plan.metrics[0].metric], [m.name for m in methods], plan.setting.seed)
    return next(line for line in lines if line.part == part)


def _deadline(steps: int, over: Callable[[], bool]) -> Callable[[], bool]:
    """Says stop when the time is over, but not before so many steps."""
    asked = itertools.count()
    return lambda: next(asked) >= steps and over()


def _toml(
    search: Search,
    winner: Trial,
    trials: Sequence[Trial],
    comparison: Line,
    tuning: int,
    held_out: int,
    traits: Traits,
    seconds: float,
) -> str:
    better = "higher" if comparison.better == "higher" else "lower"
    judged_trials = [t for t in trials if not t.failed and t.values]
    head = [
        f"Found by onnxlrp tune: {comparison.title}, {better} is better.",
        f"{len(trials)} rule tables were tried in {seconds:.0f} s on {tuning} samples. On {held_out} other samples:",
        *(
            f"  {'this table' if cell.method == winner.name else cell.method}: {cell.mean:.4g}, "
            f"95 % interval {cell.low:.4g} to {cell.high:.4g}"
            for cell in comparison.cells
        ),
        verdict(comparison, winner.name),
        "The best that were tried (mean, samples, rules):",
        *(f"  {t.mean:.4g}  {len(t.values)}  {t.said}" for t in judged_trials[:10]),
        "",
    ]
    description = f"found by onnxlrp tune for {comparison.title}"
    if winner.candidate is not None:
        return winner.candidate.toml(search.name, description, traits, head)
    comments = "\n".join(f"# {line}".rstrip() for line in head)
    return f"{comments}\n# The preset {winner.name}, unchanged.\n{winner.table.text}"


def verdict(comparison: Line, winner: str) -> str:
    """In words, whether the winner is better than `default` on samples that the search has not seen."""
    if winner == "default":
        return "No table that was tried is better than default."
    own, default = comparison.cells
    ahead = own.best
    if own.best and default.best:
        return "There it is level with default."
    if (default if ahead else own).level:
        return f"There it is {'better' if ahead else 'worse'} than default, but the difference may be chance."
    return f"There it is {'better' if ahead else 'WORSE'} than default, and the difference is not chance."
