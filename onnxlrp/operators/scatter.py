"""Scatter: updates written over, added to, multiplied into or compared with the data, each at its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Scaling, Selection, Term
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register

_NONE_YET = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Places:
    """The places of a scatter: what it does with any data and updates, and the way back.

    Attributes:
        distinct: no two updates share a place; known only where the indices are.
    """

    at: Situation
    distinct: bool

    @property
    def data(self) -> str:
        return self.at.node.inputs[0]

    @property
    def updates(self) -> str:
        return self.at.node.inputs[2]

    def put(self, b: Builder, onto: str, updates: str, reduction: str = "none") -> str:
        """`onto`, which has the shape of the data, after the updates."""
        node = self.at.node
        axis = node.attribute("axis", 0) if node.op == "ScatterElements" else None
        return b.op(node.op, onto, node.inputs[1], updates, axis=axis, reduction=reduction)

    def read(self, b: Builder, tensor: str) -> str:
        """What `tensor`, which has the shape of the data, holds at the place of each update."""
        node = self.at.node
        if node.op == "ScatterND":
            return b.op("GatherND", tensor, node.inputs[1])
        return b.op("GatherElements", tensor, node.inputs[1], axis=node.attribute("axis", 0))

    def numbers(self, b: Builder) -> str:
        """The updates, numbered in their order."""
        count = b.op("Squeeze", b.element_count(self.updates))
        counted = b.op("Range", b.constant_int(0), count, b.constant_int(1))
        return b.op("Reshape", counted, b.shape_of(self.updates))

    def counts(self, b: Builder) -> str:
        """How many updates each place gets, in the data's type."""
        one = np.ones((1,), b.numpy_type(self.data))
        return self.put(b, b.zeros_like(self.data), _filled(b, self.updates, one), "add")

    def selection(
        self,
        kind: str,
        to_data: Callable[[Builder, str], str],
        to_updates: Callable[[Builder, str], str],
    ) -> Selection:
        """A selection, given what either operand receives of the relevance of the output."""
        at = self.at
        operands = ((self.data, to_data), (self.updates, to_updates))

        def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
            shares: dict[str, list[str]] = {}
            for x, share in operands:
                if x in at.active:
                    shares.setdefault(x, []).append(share(b, given[at.y]))
            return {x: b.sum(parts) for x, parts in shares.items()}

        active = tuple(dict.fromkeys(x for x, _ in operands if x in at.active))
        return Selection(kind, active, (at.y,), adjoint, absorbs=any(x not in at.active for x, _ in operands))


def _filled(b: Builder, like: str, value: np.ndarray[Any, Any]) -> str:
    return b.op("ConstantOfShape", b.shape_of(like), value=onnx.numpy_helper.from_array(value))


def _are_distinct(at: Situation) -> bool:
    node, shape = at.node, at.graph.static_shape(at.node.inputs[0])
    indices = at.facts.value(node.inputs[1])
    if shape is None or indices is None:
        return False
    if node.op == "ScatterND":
        depth = indices.shape[-1]
        places = indices.reshape(-1, depth) % np.asarray(shape[:depth], np.int64)
    else:
        axis = node.attribute("axis", 0) % len(shape)
        positions = list(np.indices(indices.shape))
        positions[axis] = indices % shape[axis]
        places = np.stack([p.ravel() for p in positions], axis=-1)
    return len(np.unique(places, axis=0)) == len(places)


@register(
    "ScatterElements ScatterND",
    "movement",
    "exact: what was written over receives nothing; added ones in proportion, factors equal shares, the larger one all",
    "read back; for factors the product of the others",
    data=(0, 2),
)
def scatter(at: Situation) -> Selection | Linear | Scaling:
    places = _Places(at, _are_distinct(at))
    reduction = at.node.attribute("reduction", "none")
    if reduction == "add":
        return _sum(places)
    if reduction == "mul":
        return _product(places)
    return _extreme(places) if reduction in ("max", "min") else _written(places)


def _written(places: _Places) -> Selection:
    def to_updates(b: Builder, r: str) -> str:
        back = places.read(b, r)
        if places.distinct:
            return back
        # Of several updates of one place the last one stays; numbers in their stead tell which one that is.
        numbers = places.numbers(b)
        stayed = places.put(b, _filled(b, places.data, np.full((1,), -1, np.int64)), numbers)
        return b.where(b.op("Equal", places.read(b, stayed), numbers), back, b.scalar(0.0, r))

    return places.selection("movement", lambda b, r: places.put(b, r, b.zeros_like(places.updates)), to_updates)


def _extreme(places: _Places) -> Selection:
    """Max or min: to the data where it wins, otherwise to the first of the updates that win."""
    node = places.at.node

    def stays(b: Builder) -> str:
        return b.op("Equal", places.data, b.rerun(node))

    def to_updates(b: Builder, r: str) -> str:
        zero = b.scalar(0.0, r)
        back = places.read(b, b.where(stays(b), zero, r))
        wins = b.op("Equal", places.updates, places.read(b, b.rerun(node)))
        if not places.distinct:
            numbers = places.numbers(b)
            none_yet = np.full((1,), _NONE_YET, np.int64)
            candidates = b.where(wins, numbers, b.constant_int(_NONE_YET))
            first = places.put(b, _filled(b, places.data, none_yet), candidates, "min")
            wins = b.op("Equal", places.read(b, first), numbers)
        return b.where(wins, back, zero)

    return places.selection("max", lambda b, r: b.where(stays(b), r, b.scalar(0.0, r)), to_updates)


def _biased(b: Builder, value: str, bias: str | None) -> str:
    return b.add(value, bias) if bias else value


def _sum(places: _Places) -> Linear:
    """y = data + the updates at their places."""
    at, data, updates = places.at, places.data, places.updates

    def spread(b: Builder, value: str) -> str:
        return places.put(b, b.zeros_like(data), value, "add")

    terms = []
    if at.is_active(0):
        terms.append(Term(data, Fixed(Map(lambda b, x, bias: _biased(b, x, bias), lambda b, s: s))))
    if at.is_active(2):
        terms.append(Term(updates, Fixed(Map(lambda b, x, bias: _biased(b, spread(b, x), bias), places.read))))

    def bias(b: Builder) -> str:
        return spread(b, updates) if at.is_active(0) else data

    return Linear("sum", tuple(terms), at.y, bias=bias if len(terms) < 2 else None)


def _product(places: _Places) -> Linear | Scaling:
    """y = data * the product of the updates of a place.

    Every factor that depends on the explained input gets an equal share: with n of them y is the sum of n terms
    x * (what it is multiplied by) / n. The derivative leaves out the 1 / n.
    """
    at, data, updates = places.at, places.data, places.updates

    def factor(b: Builder) -> str:
        one = np.ones((1,), b.numpy_type(data))
        return places.put(b, _filled(b, data, one), updates, "mul")

    if not at.is_active(2):
        return Scaling(data, at.y, lambda b, m: b.mul(m, factor(b)))

    def others(b: Builder) -> str:
        return _other_factors(b, places)

    def share(b: Builder) -> str:
        """1 / n for each place; without updates the data takes all, and there is no n where it is free of x."""
        counts = places.counts(b)
        n = b.add(counts, b.scalar(1.0, counts)) if at.is_active(0) else b.at_least(counts, b.scalar(1.0, counts))
        return b.op("Reciprocal", n)

    def spread(b: Builder, x: str, bias: str | None) -> str:
        total = places.put(b, b.zeros_like(data), b.mul(x, others(b)), "add")
        return _biased(b, b.mul(total, share(b)), bias)

    def kept(b: Builder, x: str, bias: str | None) -> str:
        return _biased(b, b.mul(x, b.mul(factor(b), share(b))), bias)

    of_updates = Map(spread, lambda b, s: b.mul(places.read(b, b.mul(s, share(b))), others(b)))
    of_data = Map(kept, lambda b, s: b.mul(b.mul(s, share(b)), factor(b)))
    terms = [Term(updates, Fixed(of_updates, sign=0))]
    if at.is_active(0):
        terms.insert(0, Term(data, Fixed(of_data, sign=0)))

    def vjp(b: Builder, s: str) -> Mapping[str, str]:
        back = b.mul(places.read(b, s), others(b))
        if not at.is_active(0):
            return {updates: back}
        own = b.mul(s, factor(b))
        return {data: b.add(own, back)} if data == updates else {data: own, updates: back}

    def untouched(b: Builder) -> str:
        counts = places.counts(b)
        return b.where(b.is_positive(counts), b.scalar(0.0, data), data)

    return Linear(
        "sum",
        tuple(terms),
        at.y,
        bias=None if at.is_active(0) else untouched,
        vjp=vjp,
        note="equal shares to the factors of a product",
    )


def _other_factors(b: Builder, places: _Places) -> str:
    """What each update is multiplied by: the data and the other updates of its place. Zeros are not divided by."""
    data, updates = places.data, places.updates
    if places.distinct:
        return places.read(b, data)
    zero, one = b.scalar(0.0, updates), b.scalar(1.0, updates)
    is_zero = b.op("Equal", updates, zero)
    nonzero = b.where(is_zero, one, updates)
    product = places.read(b, places.put(b, data, nonzero, "mul"))
    flags = b.op("Cast", is_zero, to=b.dtype(updates))
    zeros = places.read(b, places.put(b, b.zeros_like(data), flags, "add"))
    # All zeros but its own must be none.
    free = b.op("Equal", b.sub(zeros, flags), zero)
    return b.where(free, b.div(product, nonzero), zero)


@lowers("TensorScatter", treatment="taken apart: ScatterElements along the sequence")
def tensor_scatter(at: Situation, b: Builder) -> tuple[str] | Refusal:
    node = at.node
    past, update = node.inputs[:2]
    rank = at.graph.rank(past)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    axis = node.attribute("axis", -2) % rank

    def size(tensor: str) -> str:
        return b.op("Squeeze", b.op("Shape", tensor, start=axis, end=axis + 1))

    steps = b.op("Range", b.constant_int(0), size(update), b.constant_int(1))
    rows = b.op("Reshape", steps, b.integers([-1, *[1] * (rank - axis - 1)]))
    if node.input(2):
        first = b.op("Reshape", node.input(2), b.integers([-1, *[1] * (rank - 1)]))
        rows = b.add(first, rows)
    if node.attribute("mode", "linear") == "circular":
        rows = b.op("Mod", rows, size(past))
    indices = b.op("Expand", rows, b.op("Shape", update))
    return (b.op("ScatterElements", past, indices, update, axis=axis),)
