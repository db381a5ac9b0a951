"""What a rule has at hand while it emits: the builder, the facts, and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.samples import ANYWHERE, Samples
from onnxlrp.understand.facts import Facts

ABSORBED = ("bias", "stabiliser", "other")


@dataclass
class Ledger:
    """What steps kept for themselves: step -> account -> tensors whose sum was absorbed. Off unless asked for."""

    enabled: bool = False
    accounts: dict[int, dict[str, list[str]]] = field(default_factory=dict)

    def book(self, step: int, account: str, amount: Callable[[], str]) -> None:
        """Books an amount; `amount` emits the tensor and is called only when the ledger is kept."""
        if self.enabled:
            self.accounts.setdefault(step, {}).setdefault(account, []).append(amount())


@dataclass(frozen=True)
class Context:
    """The surroundings of one step while its rule emits nodes."""

    b: Builder
    facts: Facts
    ledger: Ledger
    step: int
    samples: Samples = ANYWHERE

    def book(self, account: str, amount: Callable[[], str]) -> None:
        """Books what this step absorbs: account "bias", "stabiliser" or "other".

        Where relevance is normalised account "deviation" takes how far the sums are from what they should be.
        """
        self.ledger.book(self.step, account, amount)


def summed(b: Builder, tensors: Sequence[str]) -> str:
    """The sum of all elements of several tensors, in float64 so that adding up loses nothing."""
    wide = [b.op("Cast", t, to=int(TensorProto.DOUBLE)) for t in tensors]
    totals = [b.op("ReduceSum", t, keepdims=0) for t in wide]
    return b.sum(totals) if totals else b.constant(np.asarray(0.0))
