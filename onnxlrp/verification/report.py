"""What `verify` finds, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One promise: what was measured, and the limit it has to keep. `value` None: not applicable, see `detail`."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True)
class WorstNode:
    """A line of the ledger. `gap` is what is unaccounted for, relative to the absolute relevance that arrived."""

    node: str
    operator: str
    rule: str
    relevance_in: float
    relevance_out: float
    bias: float
    stabiliser: float
    other: float
    stopped: float
    gap: float


@dataclass(frozen=True)
class Report:
    """The result of `verify`: the checks, and the ledger's lines with the widest gaps."""

    checks: tuple[Check, ...]
    worst: tuple[WorstNode, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)
