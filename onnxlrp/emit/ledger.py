"""The ledger: what arrived at each step, what it sent on, and what it kept, as one small output tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.backward import Walked
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import ABSORBED, Ledger, summed
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Stop
from onnxlrp.planning.program import Program

#: Columns of the ledger: sums over all elements and samples; `mass` is the sum of absolute relevance that arrived.
#: Where relevance is normalised nothing is conserved, and `arrived`, `sent` and `stopped` are absolute sums too;
#: `other` is how far the sum of any sample is from what the normalisation makes of it (relative), and the rest is 0.
COLUMNS = ("arrived", "sent", "bias", "stabiliser", "other", "stopped", "mass")


@dataclass(frozen=True)
class Kept:
    """The passes of one program with their ledgers."""

    program: Program
    passes: Sequence[tuple[Walked, Ledger]]
    normalised: bool = False


def ledger_table(b: Builder, parts: Sequence[Kept]) -> str:
    """[steps, 7] in float64: one row per step of each program, all its passes together, columns as in `COLUMNS`."""
    cells: list[str] = []
    for part in parts:
        for number, step in enumerate(part.program.steps):
            with b.scope(f"ledger/{number}"):
                cells += _row(b, part, number, isinstance(step.behaviour, Stop))
    if not cells:
        # The explained output is the explained tensor itself: embeddings that were looked up, say.
        return b.constant(np.zeros((0, len(COLUMNS))))
    with b.scope("ledger"):
        row = [b.op("Reshape", c, b.integers([1])) for c in cells]
        flat = b.op("Concat", *row, axis=0)
        return b.op("Reshape", flat, b.integers([-1, len(COLUMNS)]))


def _row(b: Builder, part: Kept, number: int, stops: bool) -> list[str]:
    came = [m for walked, _ in part.passes for m in _maps(b, walked.arrived.get(number, ()))]
    sent = [m for walked, _ in part.passes for m in _maps(b, walked.sent.get(number, ()))]
    accounts = [ledger.accounts.get(number, {}) for _, ledger in part.passes]
    mass = summed(b, [b.op("Abs", r) for r in came])
    if part.normalised:
        gone = summed(b, [b.op("Abs", r) for r in sent])
        deviations = [d for account in accounts for d in account.get("deviation", ())]
        nothing = summed(b, [])
        return [mass, gone, nothing, nothing, _largest(b, deviations), mass if stops else nothing, mass]
    kept = [summed(b, [t for account in accounts for t in account.get(name, ())]) for name in ABSORBED]
    return [summed(b, came), summed(b, sent), *kept, summed(b, came if stops else []), mass]


def _largest(b: Builder, tensors: Sequence[str]) -> str:
    found = [b.cast(b.op("ReduceMax", t, keepdims=0), int(TensorProto.DOUBLE)) for t in tensors]
    return (b.op("Max", *found) if len(found) > 1 else found[0]) if found else summed(b, [])


def _maps(b: Builder, given: Sequence[Relevance]) -> list[str]:
    return [r.as_finite_map(b) for r in given]
