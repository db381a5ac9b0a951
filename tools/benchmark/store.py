"""Results in a JSON file, rewritten after every measurement, so that a run that was cut off can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.results import Contest, Conversion, case_of

FORMAT = 1


class StoreError(Exception):
    """The file cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Results:
    """All that one machine measured with one provider.

    Attributes:
        machine: what the numbers depend on; see `benchmark.machine`.
        settings: how was measured: rounds, command, date.
        conversions, contests: by the names of `benchmark.results`.
        skipped: what could not be measured, and why.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    conversions: Mapping[str, Conversion] = field(default_factory=dict)
    contests: Mapping[str, Contest] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def with_conversion(self, name: str, value: Conversion) -> Results:
        return replace(self, conversions={**self.conversions, name: value})

    def with_contest(self, name: str, value: Contest) -> Results:
        return replace(self, contests={**self.contests, name: value})

    def with_skipped(self, name: str, reason: str) -> Results:
        return replace(self, skipped={**self.skipped, name: reason})

    def current(self) -> Results:
        """Without what belongs to another source of the package than the last run's; how much that is, is noted."""
        source = self.settings.get("source")
        conversions = {name: c for name, c in self.conversions.items() if c.source == source}
        digests = {name: c.digest for name, c in conversions.items()}
        contests = {name: c for name, c in self.contests.items() if digests.get(case_of(name)) == c.digest}
        old = len(self.contests) - len(contests)
        note = {"left out": f"{old} contests from before the last change of the package"} if old else {}
        return replace(self, conversions=conversions, contests=contests, skipped={**self.skipped, **note})


def read(path: Path) -> Results:
    """Raises StoreError where the file is not a file of results."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise StoreError(f"{path} was written by another version of this tool; use --fresh")
        return Results(
            data["machine"],
            data["settings"],
            {name: Conversion(**value) for name, value in data["conversions"].items()},
            {name: Contest(**value) for name, value in data["contests"].items()},
            data["skipped"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a file of results: {error}") from error


def resume(path: Path, machine: Mapping[str, str], fresh: bool) -> Results:
    """What an earlier run left, without what it had to skip; empty where there is none or `fresh` is wanted.

    Raises:
        StoreError: the file comes from another machine or another runtime, whose times do not compare.
    """
    if fresh or not path.exists():
        return Results(machine)
    earlier = read(path)
    other = sorted(key for key in {*machine, *earlier.machine} if machine.get(key) != earlier.machine.get(key))
    if other:
        raise StoreError(f"{path} was measured elsewhere (other {', '.join(other)}); use --fresh or another --results")
    return replace(earlier, skipped={})


def write(path: Path, results: Results) -> None:
    """Replaces the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"format": FORMAT, **asdict(results)}, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
