"""Where relevance starts: the multiplier on the explained output that picks the target out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import TensorProto, helper

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.inputs import SEED_INPUT, TARGET_INPUT
from onnxlrp.graph.view import Dim
from onnxlrp.planning.target import Span, Target

LOOP_INDEX = "lrp/index"


@dataclass(frozen=True)
class Seed:
    """The multiplier of the explained tensor, and the graph inputs that it needs.

    `ranking` holds the flat indices [batch, K] of the elements to explain one after the other ("top"), in which
    case `multiplier` depends on the loop counter `LOOP_INDEX`.
    """

    multiplier: str
    inputs: tuple[onnx.ValueInfoProto, ...] = ()
    ranking: str | None = None


def start(b: Builder, tensor: str, target: Target, suffix: str = "") -> Seed:
    """The seed for one explained tensor; names of added inputs end in `suffix`."""
    seed = _chosen(b, tensor, target, suffix)
    if not target.rather_than:
        return seed
    return replace(seed, multiplier=b.sub(seed.multiplier, _region(b, tensor, target.rather_than)))


def _chosen(b: Builder, tensor: str, target: Target, suffix: str) -> Seed:
    shape = b.graph.shape(tensor)
    if target.mode == "seed":
        name = SEED_INPUT + suffix
        b.declare(name, b.dtype(tensor))
        return Seed(name, (_input(name, b.dtype(tensor), None if shape is None else list(shape)),))
    if target.mode == "input":
        dims = shape or ()
        name = TARGET_INPUT + suffix
        b.declare(name, TensorProto.INT64)
        given = [_batch(dims), len(dims) - 1]
        parts = [b.op("Gather", name, b.constant_int(k), axis=1) for k in range(len(dims) - 1)]
        return Seed(_one_hot(b, tensor, parts, len(dims)), (_input(name, TensorProto.INT64, given),))
    if target.mode == "index":
        return Seed(_region(b, tensor, target.index))
    if target.mode == "top":
        flat, _ = _flattened(b, tensor)
        _, ranking = b.ops("TopK", flat, b.integers([target.k]), outputs=2, axis=1, largest=1, sorted=1)
        b.declare(ranking, TensorProto.INT64)
        b.declare(LOOP_INDEX, TensorProto.INT64)
        chosen = b.op("Gather", ranking, LOOP_INDEX, axis=1)
        return Seed(_flat_one_hot(b, tensor, chosen), ranking=ranking)
    if target.axis is not None:
        return Seed(_largest_along(b, tensor, target.axis % len(shape or ())))
    if shape is None or len(shape) > 1:
        flat, _ = _flattened(b, tensor)
        return Seed(_flat_one_hot(b, tensor, b.op("ArgMax", flat, axis=1, keepdims=0)))
    # One number per sample: that number is the target.
    return Seed(b.expand_like(b.scalar(1.0, tensor), tensor))


def _batch(shape: tuple[Dim, ...]) -> Dim:
    return shape[0] if shape and shape[0] is not None else "batch"


def _input(name: str, dtype: int, shape: list[Dim] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _flattened(b: Builder, tensor: str) -> tuple[str, bool]:
    """[batch, everything else], and whether that took a reshape."""
    if b.graph.rank(tensor) == 2:
        return tensor, False
    return b.op("Flatten", tensor, axis=1), True


def _counter(b: Builder, tensor: str, axis: int) -> str:
    """0, 1, 2, ... along one axis of a forward tensor, as a 1-d tensor."""
    shape = b.graph.shape(tensor)
    size = shape[axis] if shape is not None else None
    count = b.constant_int(size) if isinstance(size, int) else _size_of(b, tensor, axis)
    return b.op("Range", b.constant_int(0), count, b.constant_int(1))


def _size_of(b: Builder, tensor: str, axis: int) -> str:
    return b.op("Gather", b.op("Shape", tensor), b.constant_int(axis))


def _along(b: Builder, vector: str, axis: int, rank: int) -> str:
    return b.op("Reshape", vector, b.integers([-1 if i == axis else 1 for i in range(rank)]))


def _one_hot(b: Builder, tensor: str, indices: list[str], rank: int) -> str:
    """1 at one element per sample. An index below -size or from size on picks nothing, a negative one counts back."""
    hits: list[str] = []
    for axis, index in enumerate(indices, 1):
        size = b.op("Squeeze", b.op("Gather", b.shape_of(tensor), b.integers([axis])), b.integers([0]))
        wrapped = b.where(b.op("Less", index, b.constant_int(0)), b.add(index, size), index)
        hits.append(b.op("Equal", _along(b, _counter(b, tensor, axis), axis, rank), _along(b, wrapped, 0, rank)))
    return b.op("Cast", _all_of(b, hits), to=b.dtype(tensor))


def _region(b: Builder, tensor: str, index: Sequence[int | Span]) -> str:
    """1 at the same elements of every sample: one position, or a span of them, along each axis."""
    hits: list[str] = []
    rank = len(index) + 1
    for axis, place in enumerate(index, 1):
        counter = _along(b, _counter(b, tensor, axis), axis, rank)
        if isinstance(place, int):
            hits.append(b.op("Equal", counter, _counted(b, tensor, axis, place)))
            continue
        if place.start is not None:
            hits.append(b.op("GreaterOrEqual", counter, _counted(b, tensor, axis, place.start)))
        if place.stop is not None:
            hits.append(b.op("Less", counter, _counted(b, tensor, axis, place.stop)))
    chosen = b.op("Cast", _all_of(b, hits), to=b.dtype(tensor)) if hits else b.scalar(1.0, tensor)
    return b.expand_like(chosen, tensor)


def _counted(b: Builder, tensor: str, axis: int, place: int) -> str:
    """A place along an axis as a scalar; a negative one counts from the end."""
    return b.constant_int(place) if place >= 0 else b.add(_size_of(b, tensor, axis), b.constant_int(place))


def _all_of(b: Builder, hits: Sequence[str]) -> str:
    together = hits[0]
    for hit in hits[1:]:
        together = b.op("And", together, hit)
    return together


def _flat_one_hot(b: Builder, tensor: str, chosen: str) -> str:
    """1 at one element per sample, given by its position in the flattened sample."""
    flat, reshaped = _flattened(b, tensor)
    if reshaped:
        count = b.op("Squeeze", b.op("Gather", b.op("Shape", flat), b.integers([1])), b.integers([0]))
        counter = b.op("Range", b.constant_int(0), count, b.constant_int(1))
    else:
        counter = _counter(b, tensor, 1)
    equal = b.op("Equal", b.op("Unsqueeze", chosen, b.integers([1])), counter)
    hot = b.op("Cast", equal, to=b.dtype(tensor))
    return b.reshape_like(hot, tensor) if reshaped else hot


def _largest_along(b: Builder, tensor: str, axis: int) -> str:
    rank = b.graph.rank(tensor) or 1
    winner = b.op("ArgMax", tensor, axis=axis, keepdims=1)
    equal = b.op("Equal", _along(b, _counter(b, tensor, axis), axis, rank), winner)
    return b.op("Cast", equal, to=b.dtype(tensor))
