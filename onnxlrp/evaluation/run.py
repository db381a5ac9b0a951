"""The runner: every metric on every method on every sample, batch by batch; what is known already is not done again."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.batches import Batch, Prepared, Setting, in_batches, prepare
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.methods import NamedMethod
from onnxlrp.evaluation.registry import Metric, metrics
from onnxlrp.evaluation.sample import Data, Sample, samples
from onnxlrp.evaluation.settings import check
from onnxlrp.evaluation.store import Record, Store, value_of
from onnxlrp.evaluation.subject import Engine
from onnxlrp.tables.names import did_you_mean
from onnxlrp.version import VERSION

#: Called with the cost of what is done and of everything, and what is being done.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Chosen:
    """A metric with its settings, the defaults filled in."""

    metric: Metric
    settings: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Changes with its settings, and with the file that it is written in."""
        return f"{self.metric.name} {json.dumps(dict(sorted(self.settings.items())))} {_source(self.metric.measure)}"


@dataclass(frozen=True)
class Plan:
    """A run, before it begins.

    Attributes:
        data: the samples; `limit` is how many of them, all when None.
        batch: how many samples go through together.
        at_once: how many samples are held while one method after the other goes through them. Randomised copies of a
            model are converted for each method and each such lot.
    """

    engine: Engine
    data: Data
    setting: Setting
    methods: Sequence[NamedMethod]
    metrics: Sequence[Chosen]
    batch: int = 8
    limit: int | None = None
    at_once: int = 64

    def __len__(self) -> int:
        return len(self.data) if self.limit is None else min(self.limit, len(self.data))


@dataclass(frozen=True)
class Outcome:
    """The records of a run, and how many samples it had; `reused` of the records were known before."""

    records: Sequence[Record]
    samples: int
    reused: int = 0


def chosen_metrics(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> list[Chosen]:
    """Metrics by name, with settings by metric.

    Raises:
        UsageError: no such metric or setting, or a setting that makes no sense.
    """
    known = metrics()
    found = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise UsageError(f"unknown metric {name!r}{did_you_mean(name, list(known))} See onnxlrp evaluate --list.")
        given, defaults = settings.get(name, {}), known[name].settings
        unknown = next((key for key in given if key not in defaults), None)
        if unknown is not None:
            possible = ", ".join(f"{key} = {value}" for key, value in defaults.items()) or "none"
            raise UsageError(f"the metric {name} has no setting {unknown!r}; there are: {possible}")
        check(name, given)
        found.append(Chosen(known[name], {**defaults, **given}))
    return found


def lacks(data: Data, engine: Engine, metric: Metric) -> str | None:
    """Why a metric cannot be had on this data; None where it can."""
    layout = data.layout
    missing = {
        "marked": (not data.has_marks, "needs what a person has marked (boxes or masks)"),
        "labels": (not data.has_labels, "needs the true classes"),
        "gradients": (layout.is_token, "needs gradients, which token ids do not have"),
        "continuous": (layout.is_token, "needs numbers that can be changed a little, not token ids"),
        "image": (not layout.is_picture, "needs pictures"),
        "layers": ("layers" in metric.needs and engine.layers < 1, "needs layers with weights"),
    }
    return next((why for need in metric.needs for absent, why in [missing[need]] if absent), None)


def run(plan: Plan, store: Store, progress: Progress | None = None, stop: Callable[[], bool] | None = None) -> Outcome:
    """Runs what the store does not have yet.

    Args:
        stop: asked before each metric; where it says so, the run ends with what there is.

    Raises:
        UsageError: as data readers and metrics do.
    """
    runner = _Runner(plan, store, progress or (lambda done, total, what: None))
    for step in runner.steps():
        if stop is not None and stop():
            break
        runner.do(step)
    return Outcome(runner.records, len(plan), runner.reused)


@dataclass(frozen=True)
class _Step:
    """One metric on one method on one batch; a group is samples that are judged together, by place in the batch."""

    batch: Batch
    method: NamedMethod
    chosen: Chosen
    groups: Sequence[tuple[int, ...]]
    keys: Mapping[int, str]


class _Runner:
    """The state of a run: the records so far, and the current batch in front of the model."""

    def __init__(self, plan: Plan, store: Store, progress: Progress) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self._total = len(plan) * len(plan.methods) * sum(chosen.metric.cost for chosen in plan.metrics)
        self._done = 0
        #: By the place of the first sample of the batch, and the places in it.
        self._prepared: dict[tuple[int, ...], Prepared] = {}
        self._cases: dict[tuple[int, ...], Case] = {}
        self._identity = _identity(plan)
        self.records: list[Record] = []
        self.reused = 0

    def steps(self) -> Iterator[_Step]:
        plan = self._plan
        self._progress(0, self._total, "")
        for lot in _lots(in_batches(samples(plan.data, plan.limit), _batch_size(plan)), plan.at_once):
            self._prepared = {}
            digests = [[sample.digest for sample in batch.samples] for batch in lot]
            for method in plan.methods:
                for batch, own in zip(lot, digests, strict=True):
                    self._cases = {}
                    for chosen in plan.metrics:
                        self._progress(self._done, self._total, f"{method.name}: {chosen.metric.name}")
                        yield self._step(batch, method, chosen, own)
                        self._done += len(batch) * chosen.metric.cost
        self._progress(self._total, self._total, "")

    def _step(self, batch: Batch, method: NamedMethod, chosen: Chosen, digests: Sequence[bytes]) -> _Step:
        groups = list(_groups(batch, chosen.metric))
        common = f"{self._identity} {method.identity} {chosen.identity}"
        keys = {p: key for group in groups for p, key in _keys(common, batch, group, digests)}
        return _Step(batch, method, chosen, groups, keys)

    def do(self, step: _Step) -> None:
        """Computes what is missing, and collects the records of the step."""
        missing = [group for group in step.groups if any(self._store.get(step.keys[p]) is None for p in group)]
        todo = tuple(p for group in missing for p in group)
        if todo:
            parts = step.chosen.metric.measure(self._case(step, todo), step.chosen.settings)
            _check(parts, step.chosen.metric, len(todo))
            for index, p in enumerate(todo):
                values = {name: value_of(array, index) for name, array in parts.items()}
                sample = step.batch.samples[p].name
                metric = step.chosen.metric.name
                place = step.batch.start + p
                self._store.add(Record(step.keys[p], place, sample, step.method.name, metric, values))
        for p in (p for group in step.groups for p in group):
            record = self._store.get(step.keys[p])
            assert record is not None
            # The name is that of this run: a table may have been renamed since.
            self.records.append(replace(record, method=step.method.name))
        self.reused += sum(self._store.is_earlier(key) for p, key in step.keys.items() if p not in todo)

    def _case(self, step: _Step, places: tuple[int, ...]) -> Case:
        plan, start = self._plan, step.batch.start
        key = (start, *places)
        if key not in self._prepared:
            chosen = step.batch.part(places)
            ranks = [start + p for p in places]
            self._prepared[key] = prepare(chosen, ranks, plan.engine, plan.setting, plan.data.shared)
        if key not in self._cases:
            self._cases[key] = self._prepared[key].case(step.method)
        return self._cases[key]


def _lots(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches with about `size` samples together, one batch at least."""
    lot: list[Batch] = []
    for batch in batches:
        if lot and sum(map(len, lot)) + len(batch) > size:
            yield lot
            lot = []
        lot.append(batch)
    if lot:
        yield lot


def _batch_size(plan: Plan) -> int:
    """The batch, made to hold whole groups of every metric."""
    whole = math.lcm(*(chosen.metric.group for chosen in plan.metrics))
    return -(-plan.batch // whole) * whole


def _groups(batch: Batch, metric: Metric) -> Iterator[tuple[int, ...]]:
    """The samples that are judged together, by their place in the batch; groups begin at multiples of their size.

    Samples without what the metric needs are left out, and so are groups that are not whole.
    """
    for first in range(-batch.start % metric.group, len(batch) - metric.group + 1, metric.group):
        group = tuple(range(first, first + metric.group))
        if all(_has(batch.samples[p], metric) for p in group):
            yield group


def _has(sample: Sample, metric: Metric) -> bool:
    unmarked = sample.marked is None or not sample.marked.any()
    return not ("marked" in metric.needs and unmarked) and not ("labels" in metric.needs and sample.label < 0)


def _keys(common: str, batch: Batch, group: tuple[int, ...], digests: Sequence[bytes]) -> Iterator[tuple[int, str]]:
    found = hashlib.sha256(common.encode())
    for p in group:
        found.update(digests[p])
    for p in group:
        own = found.copy()
        own.update(str(batch.start + p).encode())
        yield p, own.hexdigest()[:32]


def _identity(plan: Plan) -> str:
    """Changes with the model and with all settings that every method and metric depends on."""
    setting = plan.setting
    means = setting.layout.means
    over_data = "" if means is None or setting.fill != "mean" else hashlib.sha256(means.tobytes()).hexdigest()
    layout = replace(setting.layout, means=None)
    stated = f"{setting.target} {setting.fill} {setting.unit} {setting.seed} {layout} {over_data}"
    return f"{VERSION} {plan.engine.digest} {stated}"


def _source(measure: Callable[..., Any]) -> str:
    """A digest of the file that a metric is written in."""
    try:
        text = inspect.getsource(inspect.getmodule(measure) or measure)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _check(parts: Mapping[str, Array], metric: Metric, count: int) -> None:
    wrong = next((name for name, array in parts.items() if len(array) != count), None)
    if wrong is not None:
        raise AssertionError(f"{metric.name} gave {len(parts[wrong])} numbers of {wrong} for {count} samples")
