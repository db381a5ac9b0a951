"""Attribution methods by name: every rule table, and the baselines that tell what it is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxlrp.emit.builder import PREFIX
from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, MakeMethod, Method, Subject
from onnxlrp.evaluation.sample import Layout
from onnxlrp.evaluation.subject import Engine, OnnxSubject
from onnxlrp.run.explainer import Explainer
from onnxlrp.tables import RuleTable, load_table, preset_names
from onnxlrp.tables.names import did_you_mean
from onnxlrp.version import VERSION

#: Parameters of a baseline by name.
Settings = Mapping[str, float]


@dataclass(frozen=True)
class Frame:
    """The batch that baselines work on: what they need to know of it besides the values.

    Attributes:
        baseline: what each sample's elements become, [n, ...].
        units: int64, the unit of each element, of one sample or of each.
        seeds: uint64 [n].
        layout: how the axes of one sample are to be read.
    """

    baseline: Array
    units: Array
    seeds: Array
    layout: Layout

    def units_of(self, row: int) -> Array:
        """The units of one sample's elements."""
        return self.units if self.units.ndim == self.baseline.ndim - 1 else self.units[row]

    def generator(self, row: int, name: str) -> np.random.Generator:
        """The random numbers that a baseline draws for one sample."""
        stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        return np.random.default_rng([int(self.seeds[row]), stream])


#: (subject, frame, values, targets, rows, settings) -> maps in the values' shape.
Compute = Callable[[Subject, Frame, Array, Array, Array, Settings], Array]


@dataclass(frozen=True)
class Baseline:
    """A method that needs no rule table.

    Attributes:
        name: as in `--baselines`.
        summary: what it does, in one sentence.
        source: the paper.
        tokens: whether it works where the explained input is made of token ids.
    """

    name: str
    summary: str
    source: str
    compute: Compute
    settings: Settings = field(default_factory=dict)
    tokens: bool = True


_BASELINES: dict[str, Baseline] = {}


def register(baseline: Baseline) -> Baseline:
    """Adds a baseline.

    Raises:
        ValueError: the name is taken.
    """
    if baseline.name in _BASELINES:
        raise ValueError(f"there is a baseline {baseline.name} already")
    _BASELINES[baseline.name] = baseline
    return baseline


def baselines() -> Mapping[str, Baseline]:
    """All baselines by name."""
    # They register themselves on import.
    from onnxlrp.evaluation import baselines as _  # noqa: F401

    return dict(sorted(_BASELINES.items()))


@dataclass(frozen=True)
class NamedMethod:
    """A method as a run holds it.

    Attributes:
        identity: changes with everything that its maps depend on, the model and the batch aside.
        bind: from a batch to what makes the method for a subject.
    """

    name: str
    identity: str
    bind: Callable[[Frame], MakeMethod]


@dataclass(frozen=True)
class _Table:
    """A rule table on a subject."""

    subject: OnnxSubject
    rules: RuleTable

    def maps(self, values: Array, targets: Array, rows: Array) -> Array:
        return self.subject.relevance(self.rules, values, targets, rows)


@dataclass(frozen=True)
class _Computed:
    """A baseline on a subject."""

    subject: Subject
    baseline: Baseline
    frame: Frame
    settings: Settings

    def maps(self, values: Array, targets: Array, rows: Array) -> Array:
        return self.baseline.compute(self.subject, self.frame, values, targets, rows, self.settings)


def table_method(rules: str | RuleTable, engine: Engine, name: str | None = None) -> NamedMethod:
    """A rule table as a method; the model is converted here, so that what stands in the way is said at once.

    Raises:
        UsageError, ConversionError: as `onnxlrp.convert`.
    """
    table = load_table(rules)

    def make(subject: Subject) -> Method:
        if not isinstance(subject, OnnxSubject):
            raise TypeError("a rule table works on an ONNX model only")
        return _Table(subject, table)

    return NamedMethod(name or table.name, _added(engine.explainer(table)), lambda _frame: make)


def baseline_method(name: str, settings: Settings, is_token: bool) -> NamedMethod:
    """A baseline as a method.

    Args:
        settings: those that differ from the defaults.

    Raises:
        UsageError: no such baseline or setting, or it does not work on tokens.
    """
    known = baselines()
    if name not in known:
        raise UsageError(f"unknown baseline {name!r}{did_you_mean(name, list(known))} There are: {', '.join(known)}.")
    found = known[name]
    if is_token and not found.tokens:
        possible = ", ".join(b.name for b in known.values() if b.tokens)
        raise UsageError(f"the baseline {name} needs numbers that can be changed a little, not tokens; use {possible}")
    chosen = with_settings(name, found.settings, settings)
    identity = f"{VERSION} {name} {json.dumps(dict(sorted(chosen.items())))}"

    def bind(frame: Frame) -> MakeMethod:
        return lambda subject: _Computed(subject, found, frame, chosen)

    return NamedMethod(name, identity, bind)


def with_settings(name: str, defaults: Settings, given: Settings) -> Settings:
    """The defaults with those that were given.

    Raises:
        UsageError: one that does not exist.
    """
    unknown = next((key for key in given if key not in defaults), None)
    if unknown is not None:
        possible = ", ".join(f"{key} = {value:g}" for key, value in defaults.items()) or "none"
        raise UsageError(f"{name} has no setting {unknown!r}; there are: {possible}")
    return {**defaults, **given}


def named_methods(
    rules: Sequence[str], chosen: Sequence[str], settings: Mapping[str, Settings], engine: Engine
) -> list[NamedMethod]:
    """The rule tables and baselines of a run, each under a name of its own.

    Raises:
        UsageError, ConversionError: as the two functions above, and where nothing is left.
    """
    found: list[NamedMethod] = []
    for text in dict.fromkeys(rules):
        table = load_table(text)
        taken = {method.name for method in found} | set(chosen) | set(preset_names())
        # The path of a file is its name where another table has the name that it gives itself.
        found.append(table_method(table, engine, text if table.name in taken else table.name))
    for name in dict.fromkeys(chosen):
        if name not in {method.name for method in found}:  # the preset gradient is one of both
            found.append(baseline_method(name, settings.get(name, {}), engine.is_token))
    if not found:
        raise UsageError("there is nothing to evaluate: name rule tables with --rules, or baselines with --baselines")
    return found


def _added(explainer: Explainer) -> str:
    """A digest of what the conversion added to the model: it changes with the table, and with onnxlrp."""
    graph = explainer.model.graph
    found = hashlib.sha256()
    for message in (*graph.node, *graph.initializer):
        if message.name.startswith(PREFIX):
            found.update(message.SerializeToString(deterministic=True))
    return found.hexdigest()
