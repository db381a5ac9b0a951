"""`onnxlrp evaluate` in Python: a model, data, methods and metrics in; numbers with intervals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxlrp.api import ModelLike
from onnxlrp.errors import UsageError
from onnxlrp.evaluation.batches import Setting, Target, check_target, prepare
from onnxlrp.evaluation.data.open import DataOptions, open_data
from onnxlrp.evaluation.methods import named_methods
from onnxlrp.evaluation.registry import metrics
from onnxlrp.evaluation.run import Chosen, Outcome, Plan, Progress, chosen_metrics, lacks, run
from onnxlrp.evaluation.sample import Data
from onnxlrp.evaluation.store import Store
from onnxlrp.evaluation.subject import Engine
from onnxlrp.evaluation.summary import Curve, Line, curves, summarise
from onnxlrp.evaluation.units import check_fill, unit_side

#: The metrics that are taken where none is named and the data allows.
USUAL = ("deletion", "insertion", "pixel-flipping", "relevance-mass", "complexity")


@dataclass(frozen=True)
class Options:
    """What an evaluation is made of, besides the model and the data.

    Attributes:
        rules: rule tables, by preset or file.
        baselines: methods that need no table.
        metrics: their names; `USUAL` when empty.
        settings: parameters of metrics and baselines by name.
        target: "predicted", "label" or a class.
        fill: what elements become when they are taken away; None by the kind of data.
        unit: the side of the squares that pictures are taken apart into; None by the size of the pictures.
        samples: how many of the data's samples are used; None for all.
        batch: how many go through the model together.
        seed: of all random numbers.
        input_name, output: what is explained, where the model has several.
        results: the file that results are kept in; None for nowhere.
        fresh: whether earlier results in it are thrown away.
    """

    rules: Sequence[str] = ("default",)
    baselines: Sequence[str] = ("random",)
    metrics: Sequence[str] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: Target = "predicted"
    fill: str | None = None
    unit: int | None = None
    samples: int | None = None
    batch: int = 8
    seed: int = 0
    input_name: str | None = None
    output: str | None = None
    providers: Sequence[str] | None = None
    results: Path | None = None
    fresh: bool = False
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class Evaluation:
    """What was found: the table, the curves, every number behind them, and what a reader should know."""

    model: str
    data: str
    lines: Sequence[Line]
    curves: Sequence[Curve]
    outcome: Outcome
    plan: Plan
    notes: Sequence[str]

    @property
    def methods(self) -> list[str]:
        return [method.name for method in self.plan.methods]


def evaluate(
    model: ModelLike, data: str | Path, options: Options | None = None, progress: Progress | None = None
) -> Evaluation:
    """Judges rule tables and baselines by metrics on the samples at `data`.

    Args:
        model: an original model.
        data: a folder of photos, or a .csv, .npz or .jsonl file; see `onnxlrp.evaluation.data.open.open_data`.

    Raises:
        UsageError: data, options and model do not fit each other.
        ModelReadError, ConversionError: as `onnxlrp.convert`.
    """
    options = options or Options()
    plan, notes = make_plan(model, data, options)
    store = Store(options.results, fresh=options.fresh)
    try:
        outcome = run(plan, store, progress)
    finally:
        store.close()
    chosen = [one.metric for one in plan.metrics]
    names = [method.name for method in plan.methods]
    lines = summarise(outcome.records, chosen, names, options.seed)
    found = curves(outcome.records, chosen, names)
    if outcome.reused:
        notes.append(f"{outcome.reused} of {len(outcome.records)} results were known from {options.results}")
    notes += _incomplete(lines, {one.name: outcome.samples // one.group for one in chosen})
    name = Path(model).name if isinstance(model, str | Path) else "model"
    return Evaluation(name, str(data), lines, found, outcome, plan, notes)


def _incomplete(lines: Sequence[Line], wanted: Mapping[str, int]) -> list[str]:
    """Metrics that could not be had on every sample, or every group of samples."""
    counts = {line.metric: max(cell.count for cell in line.cells) for line in lines}
    short = {name: count for name, count in counts.items() if count < wanted[name]}
    return [f"{name} could be had {count} times of {wanted[name]}" for name, count in short.items()]


def make_plan(model: ModelLike, path: str | Path, options: Options) -> tuple[Plan, list[str]]:
    """The run that the options mean, and what a reader should know of it.

    Raises:
        UsageError: data, options and model do not fit each other.
    """
    engine = Engine(model, input_name=options.input_name, output=options.output, providers=options.providers)
    data = open_data(engine, path, options.data, options.input_name)
    first = data.sample(0)
    shape = first.inputs[data.input_name].shape
    layout = data.layout
    setting = Setting(
        layout, options.target, check_fill(options.fill, layout), unit_side(layout, shape, options.unit), options.seed
    )
    _try_out(engine, data, setting)
    chosen, notes = _metrics(options, data, engine)
    methods = named_methods(options.rules, options.baselines, options.settings, engine)
    unused = set(options.settings) - {m.metric.name for m in chosen} - set(options.baselines)
    if unused:
        raise UsageError(f"--set {min(unused)}: no such metric or baseline is used here")
    return Plan(engine, data, setting, methods, chosen, options.batch, options.samples), notes


def _try_out(engine: Engine, data: Data, setting: Setting) -> None:
    """One sample through the model, so that what does not fit is said before anything is computed."""
    prepared = prepare([data.sample(0)], [0], engine, setting, data.shared)
    check_target(setting.target, prepared.subject.scores(prepared.values, np.zeros(1, np.int64)))


def _metrics(options: Options, data: Data, engine: Engine) -> tuple[list[Chosen], list[str]]:
    known = metrics()
    asked = options.metrics or [name for name in USUAL if name in known]
    chosen, notes = [], []
    for one in chosen_metrics(asked, options.settings):
        why = lacks(data, engine, one.metric)
        if why is None:
            chosen.append(one)
        elif options.metrics:
            raise UsageError(f"the metric {one.metric.name} {why}; leave it out")
        else:
            notes.append(f"{one.metric.name} is left out: it {why}")
    if not chosen:
        raise UsageError("no metric is left; name some with --metrics, see onnxlrp evaluate --list")
    return chosen, notes
