"""What was measured, and the arithmetic on it. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

ORIGINAL, CONVERTED, LEAN, OFF, ON = "original", "converted", "lean", "off", "on"
ZENNIT, TORCH, LXT = "zennit", "PyTorch", "LXT"
#: The participants that are other implementations.
PEERS = (TORCH, ZENNIT, LXT)


@dataclass(frozen=True)
class Conversion:
    """One conversion, made in a process of its own.

    Attributes:
        key: what it depends on; a later run with the same key need not repeat it.
        source: what digest the package's source had.
        digest: sha256 of the converted file.
        cost: multiply-adds of the converted model as multiples of the original's, None where not countable.
        nodes: how many nodes were added.
        peak: memory of the process above that after imports.
    """

    key: str
    source: str
    digest: str
    seconds: float
    peak: int
    original_bytes: int
    grown_bytes: int
    nodes: int
    cost: float | None


@dataclass(frozen=True)
class Contest:
    """Several programs timed in turn on the same input, each in a process of its own.

    Attributes:
        key: what it depends on; a later run with the same key need not repeat it.
        digest: sha256 of the converted file.
        turns: per participant the median time of one run in each of its turns.
        peaks: per participant the peak memory of its process above that after imports.
        failed: per participant that could not run, why.
    """

    key: str
    digest: str
    turns: Mapping[str, Sequence[float]]
    peaks: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """One participant's time divided by another's: the median over rounds, the smallest and the largest."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def seconds(contest: Contest, name: str) -> float | None:
    """Median time of one run of a participant, None where it did not run."""
    turns = contest.turns.get(name)
    return median(turns) if turns else None


def ratio(contest: Contest, name: str, to: str = ORIGINAL) -> Ratio | None:
    """Time of `name` divided by that of `to`, round by round; None where one of them did not run.

    Rounds are compared with themselves because whatever else the machine does changes over the minutes.
    """
    pairs = list(zip(contest.turns.get(name, ()), contest.turns.get(to, ()), strict=False))
    if not pairs:
        return None
    quotients = [a / b for a, b in pairs]
    return Ratio(median(quotients), min(quotients), max(quotients))


def peak_ratio(contest: Contest, name: str, to: str = ORIGINAL) -> float | None:
    """Peak memory of `name` divided by that of `to`; None where one of them was not measured."""
    a, b = contest.peaks.get(name), contest.peaks.get(to)
    return a / b if a and b else None


def met(value: float | None, limit: float | None) -> bool | None:
    """Whether a measured value keeps its limit; None where one of them is missing."""
    return None if value is None or limit is None else value <= limit


def conversion_name(model: str, rules: str, on_demand: bool) -> str:
    """The name under which a conversion is kept."""
    return f"{model} {rules}{' on-demand' if on_demand else ''}"


def contest_name(model: str, rules: str, batch: int, on_demand: bool = False) -> str:
    """The name under which a contest is kept."""
    return f"{conversion_name(model, rules, on_demand)} batch {batch}"


def case_of(contest: str) -> str:
    """The name of the conversion that a contest is about."""
    return contest.partition(" batch ")[0]
