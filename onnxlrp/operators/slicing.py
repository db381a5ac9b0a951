"""Slice. Its transpose fills up with zeros: in front, behind and, where it steps, between what was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Selection
from onnxlrp.operators.movement import EXACT, Adjoint, by_index, one_to_one
from onnxlrp.operators.padding import padded
from onnxlrp.operators.registry import Situation, register


@dataclass(frozen=True)
class _Cut:
    """What is taken along one axis of known size: `count` elements from `begin` on, `step` apart."""

    axis: int
    begin: int
    step: int
    count: int
    size: int

    @property
    def behind(self) -> int:
        """How much is missing at the end, once each element was given its step; may be negative."""
        return self.size - self.begin - self.count * self.step


def _cuts(at: Situation) -> tuple[_Cut, ...] | None:
    """The cuts of a Slice forward, along axes of known size by known bounds; otherwise None."""
    node, facts, shape = at.node, at.facts, at.graph.shape(at.node.inputs[0])
    given = [facts.integers(name) if name else None for name in (node.input(i) for i in range(1, 5))]
    if shape is None or any(name and value is None for name, value in zip(node.inputs[1:], given, strict=False)):
        return None
    starts, ends, axes, steps = given
    if starts is None or ends is None:
        return None
    cuts = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (axes[i] if axes else i) % len(shape), steps[i] if steps else 1
        size = shape[axis]
        if not isinstance(size, int) or step < 1:
            return None
        begin, stop = (min(max(v + size if v < 0 else v, 0), size) for v in (start, end))
        cuts.append(_Cut(axis, begin, step, max(-(-(stop - begin) // step), 0), size))
    return tuple(cuts)


def _filled(b: Builder, r: str, x: str, cuts: Sequence[_Cut]) -> str | None:
    """The transpose of known cuts; None where it would take more than one unknown size."""
    shape = list(b.graph.shape(x) or ())
    stepping = sorted((c for c in cuts if c.step > 1), key=lambda c: c.axis)
    if stepping:
        sizes = [next((c.count * c.step for c in cuts if c.axis == i), d) for i, d in enumerate(shape)]
        if sum(not isinstance(d, int) for d in sizes) > 1 or any(c.count == 0 for c in stepping):
            return None
        # Each element gets an axis of its own, on which zeros follow it.
        own = [c.axis + 1 + i for i, c in enumerate(stepping)]
        apart = b.op("Unsqueeze", r, b.integers(own))
        after = [0] * (len(shape) + len(own))
        for axis, cut in zip(own, stepping, strict=True):
            after[axis] = cut.step - 1
        spread = b.op("Pad", apart, b.integers([0] * len(after) + after))
        r = b.op("Reshape", spread, b.integers([d if isinstance(d, int) else -1 for d in sizes]))
    front, back = [0] * len(shape), [0] * len(shape)
    for cut in cuts:
        front[cut.axis], back[cut.axis] = cut.begin, cut.behind
    return b.op("Pad", r, b.integers([*front, *back])) if any((*front, *back)) else r


def _at_run_time(at: Situation, count: int) -> Adjoint:
    """The transpose of `count` cuts without steps, by bounds or sizes that are known only at run time."""
    node, x = at.node, at.node.inputs[0]

    def adjoint(b: Builder, r: str) -> str:
        axes = b.cast(node.input(3), TensorProto.INT64) if node.input(3) else b.integers(range(count))
        size, zero = b.op("Gather", b.op("Shape", x), axes), b.integers([0])

        def position(bound: str) -> str:
            bound = b.cast(bound, TensorProto.INT64)
            counted = b.where(b.op("Less", bound, zero), b.add(bound, size), bound)
            return b.op("Min", b.op("Max", counted, zero), size)

        begin = position(node.input(1))
        behind = b.sub(size, b.op("Max", position(node.input(2)), begin))
        return padded(b, r, at.graph.rank(x), b.op("Concat", begin, behind, axis=0), axes)

    return adjoint


@register("Slice", "movement", EXACT, "padded with zeros")
def slice_(at: Situation) -> Selection:
    node, x = at.node, at.node.inputs[0]
    fallback = by_index(at)
    cuts = _cuts(at)
    if cuts is not None:
        return one_to_one(at, lambda b, r: _filled(b, r, x, cuts) or fallback(b, r))
    steps = at.facts.integers(node.input(4)) if node.input(4) else (1,)
    bounds = at.graph.static_shape(node.input(1))
    if steps is not None and set(steps) == {1} and bounds is not None:
        return one_to_one(at, _at_run_time(at, bounds[0]))
    return one_to_one(at, fallback)
