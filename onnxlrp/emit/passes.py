"""The passes of one target on one forward pass: the target's own, and for a contrast that of all others."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.relevance import Relevance
from onnxlrp.emit.samples import Samples
from onnxlrp.planning.target import Target
from onnxlrp.tables.model import RuleTable

#: Added to a sum that is divided by (absLRP, released code).
_MARGIN = 1e-9


def starts(
    b: Builder, tensor: str, multiplier: str, target: Target, table: RuleTable, samples: Samples
) -> tuple[Relevance, ...]:
    """The relevance that each pass starts with on the explained tensor, all of its shape.

    With `start = "one"` the chosen elements share a relevance of 1 instead of keeping their values. With
    `contrast = "others"` the second pass starts from all elements that were not chosen, in equal shares; where what is
    explained has a negative part of its own (a seed, a target rather than another) from that part.
    """
    if table.start == "output" and table.contrast == "none":
        return (Relevance(multiplier, tensor, guarded=True),)
    signed = target.mode == "seed" or bool(target.rather_than)
    if table.contrast == "none":
        return (_shared(b, tensor, multiplier, table, samples, not signed),)
    if signed:
        chosen = (b.positive(multiplier), b.positive(b.op("Neg", multiplier)))
    else:
        chosen = (multiplier, b.sub(b.scalar(1.0, multiplier), multiplier))
    return tuple(_shared(b, tensor, mask, table, samples, True) for mask in chosen)


def _shared(b: Builder, tensor: str, mask: str, table: RuleTable, samples: Samples, nonnegative: bool) -> Relevance:
    """The mask with an absolute sum of 1 in each sample, as relevance or as multiplier of the output."""
    total = samples.mass(b, mask, tensor, nonnegative)
    share = samples.divide(b, mask, b.add(total, b.scalar(_MARGIN, total)), tensor)
    if table.start == "output":
        return Relevance(share, tensor, guarded=True)
    return Relevance(share, nonnegative=nonnegative)


def difference(b: Builder, found: Sequence[Relevance | None]) -> Relevance | None:
    """What the passes say of a tensor together: what the first found, less what the second did."""
    if len(found) == 1:
        return found[0]
    first, second = found
    if second is None:
        return first
    if first is None:
        return Relevance(b.op("Neg", second.as_map(b)))
    if first.base == second.base:
        return Relevance(b.sub(first.value, second.value), first.base, first.guarded or second.guarded)
    return Relevance(b.sub(first.as_map(b), second.as_map(b)))


def settled(b: Builder, found: Sequence[Relevance | None], x: str, samples: Samples) -> list[Relevance | None]:
    """What each of several passes found for an explained tensor, with an absolute sum of 1: they weigh the same.

    What went to constants on the way (a class token, padding) is missing there.
    """
    return [r if r is None or r.normalised or len(found) == 1 else _of_one(b, r, x, samples) for r in found]


def _of_one(b: Builder, r: Relevance, x: str, samples: Samples) -> Relevance:
    total = samples.mass(b, r.as_map(b), x, r.nonnegative)
    return Relevance(samples.divide(b, r.value, b.add(total, b.scalar(_MARGIN, total)), x), r.base, r.guarded)


def scaled(b: Builder, values: str, like: str, table: RuleTable) -> str:
    """A finished map divided by the largest absolute value in each sample, where the table asks for that."""
    if table.scale == "none":
        return values
    rank = b.graph.rank(like)
    axes = () if rank is None else (b.integers(range(1, rank)),)
    largest = b.op("ReduceMax", b.op("Abs", values), *axes, keepdims=1) if rank != 1 else b.op("Abs", values)
    return b.div(values, b.add(largest, b.scalar(_MARGIN, values)))
