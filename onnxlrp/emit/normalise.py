"""Relevance normalised after every step, where a rule table asks for that.

`operand`: what each input of a step receives is divided by its absolute sum, so that every branch carries 1 (absLRP).
`sign`: positive and negative relevance go through a step apart from each other and keep their sums (the earlier form).
Movement is left as it is: it changes no sum, or is one of several parts of a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.emit.samples import ANYWHERE, Samples

Contributions = list[tuple[str, Relevance]]
Given = Mapping[str, Relevance]
#: Carries out the rule of a step: relevance of its outputs in, contributions out.
Carry = Callable[[Given], Contributions]


@dataclass(frozen=True)
class Normalisation:
    """What a walk does after each step. `mode` is "none", "operand" or "sign"."""

    mode: str = "none"
    samples: Samples = ANYWHERE


#: Added to each sum. Published is 1e-9 for twice the relevance that the rule `absolute-magnitude` gives.
_MARGIN = 0.5e-9
#: Where no more than this could be passed on the margin is not negligible, and less is passed on than should be.
_COUNTED = 1e-6


def normalised(ctx: Context, mode: str, given: Given, carry: Carry) -> Contributions:
    """The contributions of one step, normalised in the way that `mode` says ("operand" or "sign")."""
    return {"operand": _each_operand, "sign": _each_sign}[mode](ctx, given, carry)


def _each_operand(ctx: Context, given: Given, carry: Carry) -> Contributions:
    came = {id(r) for r in given.values() if r.normalised}
    return [(x, r if id(r) in came else _of_mass_one(ctx, x, r)) for x, r in carry(given)]


def _of_mass_one(ctx: Context, x: str, r: Relevance) -> Relevance:
    b, samples = ctx.b, ctx.samples
    total = samples.mass(b, r.as_map(b), x, r.nonnegative)
    value = samples.divide(b, r.value, b.add(total, b.scalar(_MARGIN, total)), x)
    found = replace(r, value=value, normalised=True)
    ctx.book("deviation", lambda: b.mul(_from_one(b, samples, x, found), b.above(total, _COUNTED)))
    return found


def _from_one(b: Builder, samples: Samples, x: str, r: Relevance) -> str:
    """How far the mass of each sample is from 1."""
    mass = samples.mass(b, r.as_finite_map(b), x)
    return b.op("Abs", b.sub(mass, b.scalar(1.0, mass)))


def _each_sign(ctx: Context, given: Given, carry: Carry) -> Contributions:
    b = ctx.b
    if all(r.nonnegative for r in given.values()):
        return _keeping(ctx, given, carry, given)
    maps = {y: r.as_map(b) for y, r in given.items()}
    positive = {y: Relevance(b.positive(m), nonnegative=True) for y, m in maps.items()}
    negative = {y: Relevance(b.positive(b.op("Neg", m)), nonnegative=True) for y, m in maps.items()}
    found = _keeping(ctx, positive, carry, given)
    return [*found, *((x, _negated(b, r)) for x, r in _keeping(ctx, negative, carry, given))]


def _negated(b: Builder, r: Relevance) -> Relevance:
    return replace(r, value=b.op("Neg", r.value), nonnegative=False)


def _keeping(ctx: Context, given: Given, carry: Carry, whole: Given) -> Contributions:
    """Contributions that together have the mass of what came, which is not negative; `whole` is that of both signs."""
    b, samples = ctx.b, ctx.samples
    found = carry(given)
    if not found or (len(found) == 1 and any(found[0][1] is r for r in given.values())):
        return found
    came, sent = _mass_of(b, samples, given.items()), _mass_of(b, samples, found)
    factor = b.div(came, b.add(sent, b.scalar(_MARGIN, sent)))
    kept = [(x, replace(r, value=samples.times(b, r.value, factor, x))) for x, r in found]
    ctx.book("deviation", lambda: b.mul(_from_what_came(b, samples, came, kept, whole), b.above(sent, _COUNTED)))
    return kept


def _mass_of(b: Builder, samples: Samples, parts: Iterable[tuple[str, Relevance]]) -> str:
    """The absolute sum over several tensors, as a vector over the samples."""
    return b.sum([samples.vector(b, samples.mass(b, r.as_map(b), x, r.nonnegative)) for x, r in parts])


def _from_what_came(b: Builder, samples: Samples, came: str, kept: Contributions, whole: Given) -> str:
    sent = _mass_of(b, samples, ((x, replace(r, nonnegative=False)) for x, r in kept))
    return b.quotient(b.op("Abs", b.sub(sent, came)), _mass_of(b, samples, whole.items()))
