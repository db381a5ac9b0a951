"""The benchmark itself: for each model the conversions, then the contests; every result is kept at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark.contest import Participant, Rounds, hold
from benchmark.machine import file_digest, source_digest
from benchmark.models import TRANSFORMERS, Model, ModelError, obtain, usual_on_demand, usual_rules
from benchmark.process import WorkerError, in_own_process
from benchmark.results import (
    CONVERTED,
    LEAN,
    LXT,
    OFF,
    ON,
    ORIGINAL,
    TORCH,
    ZENNIT,
    Conversion,
    contest_name,
    conversion_name,
)
from benchmark.store import Results, write

#: Who else has a rule table; `default` is the same as epsilon-plus there and not measured twice.
PEERS: Mapping[str, str] = {
    "gradient-x-input": TORCH,
    **dict.fromkeys(
        (
            "epsilon",
            "epsilon-plus",
            "epsilon-plus-flat",
            "epsilon-alpha2-beta1",
            "epsilon-alpha2-beta1-flat",
            "epsilon-gamma-box",
        ),
        ZENNIT,
    ),
}
#: On transformers PyTorch's own forward pass and gradient are what an explanation costs there at least.
TRANSFORMER_PEERS: Mapping[str, str] = {"attnlrp": TORCH, "gradient-x-input": TORCH}
#: The rule table that LXT has too.
LXT_RULES = "attnlrp"


@dataclass(frozen=True)
class Choice:
    """What is to be measured, and how.

    Attributes:
        models: names of `benchmark.models`, or paths.
        rules: rule tables; None for those that are usual for each model.
        on_demand: the rule table with which on-demand conversions are measured; "" for not at all, None for the usual.
        peer: whether zennit and PyTorch are measured beside, where they are installed.
        lxt: an interpreter that has LXT and the transformers it asks for; "" where it is not measured.
        lean: whether converted models are also measured in a session that keeps weights once.
        cache: folder of exported models; converted ones are made there and removed again.
    """

    models: Sequence[str]
    rules: Sequence[str] | None
    batches: Sequence[int]
    on_demand: str | None
    peer: bool
    lxt: str
    lean: bool
    provider: str
    threads: int
    exporter: str
    cache: Path
    rounds: Rounds = field(default_factory=Rounds)

    def rules_for(self, name: str) -> Sequence[str]:
        """The rule tables that are measured on a model."""
        return usual_rules(name) if self.rules is None else self.rules

    def on_demand_for(self, name: str) -> str:
        """The rule table that is measured on demand on a model; "" for none."""
        return usual_on_demand(name) if self.on_demand is None else self.on_demand

    def steps(self, name: str) -> int:
        """How many rounds and conversions a model takes."""
        cases = len(self.rules_for(name)) + bool(self.on_demand_for(name))
        return cases * (1 + len(self.batches) * self.rounds.number)


@dataclass(frozen=True)
class Case:
    """One converted model and the contests that it takes part in."""

    model: Model
    rules: str
    on_demand: bool

    @property
    def name(self) -> str:
        return conversion_name(self.model.name, self.rules, self.on_demand)


class Watcher:
    """Is told what happens; this one does not care."""

    def begin(self, steps: int) -> None:
        """So many rounds and conversions are ahead."""

    def now(self, what: str) -> None:
        """This begins."""

    def step(self, count: int = 1) -> None:
        """So many of them are done."""


def peers_installed() -> bool:
    """Whether zennit and torchvision can be measured."""
    return all(find_spec(package) is not None for package in ("torch", "torchvision", "zennit"))


def run(choice: Choice, results: Results, path: Path, watcher: Watcher) -> Results:
    """Measures what `results` lacks; rewrites the file `path` after each measurement."""
    watcher.begin(sum(choice.steps(name) for name in choice.models))
    for name in choice.models:
        watcher.now(f"{name}: getting the model")
        try:
            model = obtain(name, choice.cache, choice.exporter)
        except ModelError as error:
            results = results.with_skipped(name, str(error))
            watcher.step(choice.steps(name))
        else:
            for newer in _model(choice, name, model, results, watcher):
                results = newer
                write(path, results)
    write(path, results)
    return results


def _model(choice: Choice, name: str, model: Model, results: Results, watcher: Watcher) -> Iterator[Results]:
    """The results after each measurement on one model."""
    digest = file_digest(model.path)
    cases = [Case(model, rules, False) for rules in choice.rules_for(name)]
    if choice.on_demand_for(name):
        cases.append(Case(model, choice.on_demand_for(name), True))
    for case in cases:
        out = choice.cache / f"{case.name.replace(' ', '-').replace('/', '-')}.lrp.onnx"
        try:
            for newer in _case(choice, case, digest, out, results, watcher):
                results = newer
                yield results
        finally:
            out.unlink(missing_ok=True)


def _case(choice: Choice, case: Case, digest: str, out: Path, results: Results, watcher: Watcher) -> Iterator[Results]:
    watcher.now(f"{case.name}: converting")
    source = source_digest()
    key = _key(digest, source)
    rounds = choice.rounds.number
    conversion = results.conversions.get(case.name)
    if conversion is None or conversion.key != key:
        try:
            conversion = _convert(case, key, source, out)
        except WorkerError as error:
            watcher.step(1 + len(choice.batches) * rounds)
            yield results.with_skipped(case.name, str(error))
            return
        results = results.with_conversion(case.name, conversion)
        yield results
    watcher.step()
    for batch in choice.batches:
        name = contest_name(case.model.name, case.rules, batch, case.on_demand)
        participants = _participants(choice, case, out, batch)
        key = _key(conversion.digest, *(f"{p.name} {sorted(p.opening.items())}" for p in participants), choice.rounds)
        known = results.contests.get(name)
        if case.model.batch not in (None, batch) or (known is not None and known.key == key):
            watcher.step(rounds)
            continue
        watcher.now(name)
        if not out.exists():
            _convert(case, key, source, out)
        held = hold(key, conversion.digest, participants, choice.rounds, watcher.step)
        results = results.with_contest(name, held)
        yield results


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _convert(case: Case, key: str, source: str, out: Path) -> Conversion:
    out.parent.mkdir(parents=True, exist_ok=True)
    asked = {"path": str(case.model.path), "out": str(out), "rules": case.rules, "position": case.model.position}
    done = in_own_process("convert", **asked, on_demand=case.on_demand)
    return Conversion(
        key,
        source,
        file_digest(out),
        done["seconds"],
        done["peak"],
        done["original_bytes"],
        done["grown_bytes"],
        done["nodes"],
        done["cost"],
    )


def _participants(choice: Choice, case: Case, out: Path, batch: int) -> list[Participant]:
    common: dict[str, Any] = {
        "kind": "onnx",
        "provider": choice.provider,
        "threads": choice.threads,
        "batch": batch,
        "lean": False,
    }
    original = Participant(ORIGINAL, {**common, "path": str(case.model.path)})
    if case.on_demand:
        switched = [
            Participant(name, {**common, "path": str(out), "explain": flag})
            for name, flag in ((OFF, False), (ON, True))
        ]
        return [original, *switched]
    converted = {**common, "path": str(out)}
    found = [original, Participant(CONVERTED, converted)]
    if choice.lean:
        found.append(Participant(LEAN, {**converted, "lean": True}))
    if case.model.network:
        opening = {**common, "kind": "torch", "network": case.model.network, "rules": case.rules}
        found += _peers(choice, case.model.network in TRANSFORMERS, case.rules, opening)
    return found


def _peers(choice: Choice, transformer: bool, rules: str, opening: Mapping[str, Any]) -> list[Participant]:
    """The other implementations of a rule table that are measured beside; `opening` is PyTorch's."""
    peer = (TRANSFORMER_PEERS if transformer else PEERS).get(rules) if choice.peer else None
    found = [Participant(peer, opening, slow=True)] if peer else []
    if choice.lxt and transformer and rules == LXT_RULES:
        found.append(Participant(LXT, {**opening, "kind": "lxt"}, slow=True, python=choice.lxt))
    return found
