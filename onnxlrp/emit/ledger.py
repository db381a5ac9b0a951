"""The ledger: what arrived at each step, what it sent on, and what it kept, as one small output tensor."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.emit.backward import Walked
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Ledger, summed
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Stop
from onnxlrp.planning.program import Program

#: Columns of the ledger: sums over all elements and samples; `mass` is the sum of absolute relevance that arrived.
COLUMNS = ("arrived", "sent", "bias", "stabiliser", "other", "stopped", "mass")


def _maps(b: Builder, given: Sequence[Relevance]) -> list[str]:
    return [r.as_finite_map(b) for r in given]


def ledger_table(b: Builder, parts: Sequence[tuple[Program, Walked, Ledger]]) -> str:
    """[steps, 7] in float64: one row per step of each program, columns as in `COLUMNS`."""
    cells: list[str] = []
    for program, walked, ledger in parts:
        for number, step in enumerate(program.steps):
            with b.scope(f"ledger/{number}"):
                came = _maps(b, walked.arrived.get(number, ()))
                stops = isinstance(step.behaviour, Stop)
                accounts = ledger.accounts.get(number, {})
                cells.append(summed(b, came))
                cells.append(summed(b, _maps(b, walked.sent.get(number, ()))))
                cells += [summed(b, accounts.get(name, [])) for name in ("bias", "stabiliser", "other")]
                cells.append(summed(b, came if stops else []))
                cells.append(summed(b, [b.op("Abs", r) for r in came]))
    with b.scope("ledger"):
        row = [b.op("Reshape", c, b.integers([1])) for c in cells]
        flat = b.op("Concat", *row, axis=0)
        return b.op("Reshape", flat, b.integers([-1, len(COLUMNS)]))
