"""Relevance of a tensor in one of two forms, and the conversions between them.

A map R, or a multiplier m with R = base * m. The base is mostly the tensor itself; behind an element-wise function it
may still be that function's output, so that R is only written out where a rule needs it (DESIGN: "Relevance in two
forms"). With base = Relu(z), `stands_in` says that base and z agree wherever R is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxlrp.emit.builder import Builder
from onnxlrp.understand.facts import Facts


@dataclass(frozen=True)
class Relevance:
    """R = base * value, or R = value where `base` is None. Both are tensors of the relevant tensor's shape.

    `guarded`: the base may be infinite (a masked score), and nothing is relevant there. `nonnegative`: R is known to be
    nowhere negative. `normalised`: its absolute sum is 1 in each sample. `quotient`: (x, builder -> base / x) of the x
    that the base was made of, where that can be had without dividing.
    """

    value: str
    base: str | None = None
    guarded: bool = False
    nonnegative: bool = False
    normalised: bool = False
    quotient: tuple[str, Callable[[Builder], str]] | None = None

    def as_map(self, b: Builder) -> str:
        """The tensor R."""
        if self.base is None:
            return self.value
        product = b.mul(self.base, self.value)
        if not self.guarded:
            return product
        finite = b.op("Less", b.op("Abs", self.base), b.scalar(math.inf, self.base))
        return b.where(finite, product, b.scalar(0.0, product))

    def as_finite_map(self, b: Builder) -> str:
        """The tensor R for adding up: nothing where the multiplier is 0, even of an infinite base (a mask)."""
        if self.base is None:
            return self.value
        zero = b.scalar(0.0, self.value)
        return b.where(b.op("Equal", self.value, zero), zero, self.as_map(b))

    def is_multiplier_of(self, tensor: str) -> bool:
        return self.base == tensor

    def is_quotient_of(self, tensor: str) -> bool:
        """Whether m with R = tensor * m can be had without dividing by `tensor`."""
        return self.quotient is not None and self.quotient[0] == tensor

    def as_multiplier(self, b: Builder, facts: Facts, tensor: str) -> str:
        """The tensor m with R = tensor * m; zero where `tensor` is zero."""
        if self.base == tensor:
            return self.value
        if self.base is not None and facts.stands_in(self.base, tensor):
            return b.mul(self.value, b.above(self.base))
        if self.quotient is not None and self.is_quotient_of(tensor):
            return b.mul(self.value, self.quotient[1](b))
        return b.quotient(self.as_map(b), tensor)


def total(b: Builder, contributions: Sequence[Relevance]) -> Relevance:
    """The sum of what several consumers say of one tensor; multipliers of one base are added as they are."""
    if len(contributions) == 1:
        return contributions[0]
    bases, nonnegative = {c.base for c in contributions}, all(c.nonnegative for c in contributions)
    if len(bases) == 1:
        return Relevance(b.sum([c.value for c in contributions]), contributions[0].base, nonnegative=nonnegative)
    return Relevance(b.sum([c.as_map(b) for c in contributions]), nonnegative=nonnegative)
