"""Relevance normalised after every step, where a rule table asks for that.

`operand`: what each input of a step receives is divided by its absolute sum, so that every branch carries 1 (absLRP).
`sign`: positive and negative relevance go through a step apart from each other and keep their sums (the earlier form).
Movement is left as it is: it changes no sum, or is one of several parts of a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.emit.samples import Samples

Contributions = list[tuple[str, Relevance]]
Given = Mapping[str, Relevance]
#: Carries out the rule of a step: relevance of its outputs in, contributions out.
Carry = Callable[[Given], Contributions]

#: Added to each sum. Published is 1e-9 for twice the relevance that the rule `absolute` gives.
_MARGIN = 0.5e-9


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
    ctx.book("deviation", lambda: _from_one(b, samples, x, found))
    return found


def _from_one(b: Builder, samples: Samples, x: str, r: Relevance) -> str:
    """How far the mass of each sample is from 1; nothing where there is no relevance at all."""
    mass = samples.mass(b, r.as_finite_map(b), x)
    one = b.scalar(1.0, mass)
    return b.mul(b.op("Abs", b.sub(mass, one)), b.above(mass))


def _each_sign(ctx: Context, given: Given, carry: Carry) -> Contributions:
    b = ctx.b
    if all(r.nonnegative for r in given.values()):
        return _keeping(ctx, given, carry)
    maps = {y: r.as_map(b) for y, r in given.items()}
    positive = {y: Relevance(b.positive(m), nonnegative=True) for y, m in maps.items()}
    negative = {y: Relevance(b.positive(b.op("Neg", m)), nonnegative=True) for y, m in maps.items()}
    found = _keeping(ctx, positive, carry)
    return [*found, *((x, _negated(b, r)) for x, r in _keeping(ctx, negative, carry))]


def _negated(b: Builder, r: Relevance) -> Relevance:
    return replace(r, value=b.op("Neg", r.value), nonnegative=False)


def _keeping(ctx: Context, given: Given, carry: Carry) -> Contributions:
    """Contributions that together have the mass of what came, which is not negative."""
    b, samples = ctx.b, ctx.samples
    found = carry(given)
    if len(found) == 1 and any(found[0][1] is r for r in given.values()):
        return found
    came = _together(b, [_flat(b, samples, samples.mass(b, r.as_map(b), y, r.nonnegative)) for y, r in given.items()])
    sent = [_flat(b, samples, samples.mass(b, r.as_map(b), x, r.nonnegative)) for x, r in found]
    if not sent:
        return []
    total = _together(b, sent)
    factor = b.div(came, b.add(total, b.scalar(_MARGIN, total)))
    kept = [(x, replace(r, value=_times(b, samples, r.value, factor, x))) for x, r in found]
    ctx.book("deviation", lambda: _from_what_came(b, samples, came, kept))
    return kept


def _flat(b: Builder, samples: Samples, mass: str) -> str:
    """One number per sample as a vector, so that those of tensors of different rank can be added."""
    return b.op("Reshape", mass, b.integers([-1]))


def _together(b: Builder, masses: Sequence[str]) -> str:
    return b.sum(masses)


def _times(b: Builder, samples: Samples, values: str, factor: str, like: str) -> str:
    view = samples.view(b, like)
    return view.back(b.mul(view.to(values), _broadcast(b, samples, factor, like)))


def _broadcast(b: Builder, samples: Samples, factor: str, like: str) -> str:
    """A vector over the samples in a shape that broadcasts against the view of `like`."""
    view = samples.view(b, like)
    if view.axes is None:
        return factor
    rank = len(view.axes) + 1
    axis = next(i for i in range(rank) if i not in view.axes)
    return b.op("Reshape", factor, b.integers([-1 if i == axis else 1 for i in range(rank)]))


def _from_what_came(b: Builder, samples: Samples, came: str, kept: Sequence[tuple[str, Relevance]]) -> str:
    masses = [_flat(b, samples, samples.mass(b, r.as_finite_map(b), x)) for x, r in kept]
    sent = _together(b, masses)
    gap = b.op("Abs", b.sub(sent, came))
    return b.mul(b.quotient(gap, came), b.above(sent))
