"""The ledger: what arrived at each step, what it sent on, and what it kept, as one small output tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.backward import Walked
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Ledger
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Stop
from onnxlrp.planning.program import Program

#: Columns of the ledger: sums over all elements and samples; `mass` is the sum of absolute relevance that arrived.
COLUMNS = ("arrived", "sent", "bias", "stabiliser", "other", "stopped", "mass")


def _sum(b: Builder, tensor: str) -> str:
    """The sum of all elements in float64, so that adding up loses nothing."""
    wide = b.op("Cast", tensor, to=int(TensorProto.DOUBLE))
    return b.op("ReduceSum", wide, keepdims=0)


def _add_up(b: Builder, tensors: Sequence[str]) -> str:
    zero = b.constant(np.asarray(0.0))
    return b.sum([_sum(b, t) for t in tensors]) if tensors else zero


def _maps(b: Builder, given: Sequence[Relevance]) -> list[str]:
    return [r.as_map(b) for r in given]


def ledger_table(b: Builder, parts: Sequence[tuple[Program, Walked, Ledger]]) -> str:
    """[steps, 7] in float64: one row per step of each program, columns as in `COLUMNS`."""
    cells: list[str] = []
    for program, walked, ledger in parts:
        for number, step in enumerate(program.steps):
            with b.scope(f"ledger/{number}"):
                came = _maps(b, walked.arrived.get(number, ()))
                stops = isinstance(step.behaviour, Stop)
                accounts = ledger.accounts.get(number, {})
                cells.append(_add_up(b, came))
                cells.append(_add_up(b, _maps(b, walked.sent.get(number, ()))))
                cells += [_add_up(b, accounts.get(name, [])) for name in ("bias", "stabiliser", "other")]
                cells.append(_add_up(b, came if stops else []))
                cells.append(_add_up(b, [b.op("Abs", r) for r in came]))
    with b.scope("ledger"):
        row = [b.op("Reshape", c, b.integers([1])) for c in cells]
        flat = b.op("Concat", *row, axis=0)
        return b.op("Reshape", flat, b.integers([-1, len(COLUMNS)]))
