"""Normalisations taken apart: where scale or shift come from the data, or the statistics are wanted as outputs.

The division by the standard deviation is a quotient, of which the numerator receives everything: that is what holding
the statistics constant means.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.normalization import channel_shape
from onnxlrp.operators.registry import Situation

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_NO_RANK = Refusal("the rank of its input is not known", "run shape inference on the model first")


def _moments(b: Builder, x: str, axes: Sequence[int]) -> tuple[str, str, str]:
    """(mean, x - mean, variance) over axes that are kept as 1."""
    mean = b.op("ReduceMean", x, b.integers(axes), keepdims=1)
    centred = b.sub(x, mean)
    return mean, centred, b.op("ReduceMean", b.square(centred), b.integers(axes), keepdims=1)


def _deviation(b: Builder, variance: str, epsilon: float) -> str:
    return b.op("Sqrt", b.add(variance, b.scalar(epsilon, variance)))


def _affine(b: Builder, x: str, scale: str, shift: str) -> str:
    """scale * x + shift, of which either may be missing."""
    scaled = b.mul(x, scale) if scale else x
    return b.add(scaled, shift) if shift else scaled


def _wide(at: Situation, b: Builder) -> str:
    """x in the type that statistics are computed in."""
    x = at.node.inputs[0]
    stash = at.node.attribute("stash_type", 1)
    return b.op("Cast", x, to=int(TensorProto.FLOAT)) if stash == 1 and at.graph.dtype(x) in _NARROW else x


def _narrowed(at: Situation, b: Builder, tensor: str) -> str:
    kind = at.graph.dtype(at.node.inputs[0])
    return b.op("Cast", tensor, to=kind) if kind in _NARROW else tensor


def _is_used(at: Situation, position: int) -> bool:
    outputs = at.node.outputs
    if position >= len(outputs) or not outputs[position]:
        return False
    return outputs[position] in at.graph.consumers or outputs[position] in at.graph.outputs


@lowers("LayerNormalization")
def layer_normalization(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """(x - mean) / sd * scale + shift, with mean and 1/sd as further outputs."""
    if not (at.is_active(1) or at.is_active(2) or _is_used(at, 1) or _is_used(at, 2)):
        return None
    node, rank = at.node, at.graph.rank(at.node.inputs[0])
    if rank is None:
        return _NO_RANK
    axes = range(node.attribute("axis", -1) % rank, rank)
    mean, centred, variance = _moments(b, _wide(at, b), axes)
    deviation = _deviation(b, variance, node.attribute("epsilon", 1e-5))
    unit = _narrowed(at, b, b.div(centred, deviation))
    y = _affine(b, unit, node.inputs[1], node.input(2))
    return y, mean, b.op("Reciprocal", deviation) if _is_used(at, 2) else ""


@lowers("RMSNormalization")
def rms_normalization(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """x / sqrt(mean of squares) * scale."""
    if not at.is_active(1):
        return None
    node, rank = at.node, at.graph.rank(at.node.inputs[0])
    if rank is None:
        return _NO_RANK
    axes = range(node.attribute("axis", -1) % rank, rank)
    x = _wide(at, b)
    square = b.op("ReduceMean", b.square(x), b.integers(axes), keepdims=1)
    unit = b.div(x, _deviation(b, square, node.attribute("epsilon", 1e-5)))
    return (b.mul(_narrowed(at, b, unit), node.inputs[1]),)


@lowers("InstanceNormalization")
def instance_normalization(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """Over everything but batch and channel."""
    if not (at.is_active(1) or at.is_active(2)):
        return None
    (x, scale, shift), rank = at.node.inputs, at.graph.rank(at.node.inputs[0])
    if rank is None:
        return _NO_RANK
    _, centred, variance = _moments(b, x, range(2, rank))
    unit = b.div(centred, _deviation(b, variance, at.node.attribute("epsilon", 1e-5)))
    return (_affine(b, unit, channel_shape(b, scale, rank), channel_shape(b, shift, rank)),)


@lowers("GroupNormalization")
def group_normalization(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """Over the channels of a group and everything behind them."""
    if not (at.is_active(1) or at.is_active(2)):
        return None
    (x, scale, shift), rank = at.node.inputs, at.graph.rank(at.node.inputs[0])
    if rank is None:
        return _NO_RANK
    grouped = b.op("Reshape", _wide(at, b), b.integers([0, at.node.attribute("num_groups"), -1]))
    _, centred, variance = _moments(b, grouped, [2])
    unit = b.div(centred, _deviation(b, variance, at.node.attribute("epsilon", 1e-5)))
    if at.graph.opset < 21:  # one scale per group
        each = _affine(b, _narrowed(at, b, unit), channel_shape(b, scale, 3), channel_shape(b, shift, 3))
        return (b.op("Reshape", each, b.op("Shape", x)),)
    whole = _narrowed(at, b, b.op("Reshape", unit, b.op("Shape", x)))
    return (_affine(b, whole, channel_shape(b, scale, rank), channel_shape(b, shift, rank)),)


@lowers("BatchNormalization")
def batch_normalization(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """With the statistics of the batch in training mode, and then with the running ones as further outputs."""
    node, training = at.node, bool(at.node.attribute("training_mode", 0))
    if not training and not any(at.is_active(i) for i in (1, 2, 3, 4)):
        return None
    x, *vectors = node.inputs[:5]
    rank = at.graph.rank(x)
    if rank is None:
        return _NO_RANK
    scale, shift, mean, variance = (channel_shape(b, v, rank) for v in vectors)
    epsilon = node.attribute("epsilon", 1e-5)
    if not training:
        unit = b.div(b.sub(x, mean), _deviation(b, variance, epsilon))
        return (_affine(b, unit, scale, shift),)
    axes = [a for a in range(rank) if a != 1]
    current, centred, spread = _moments(b, x, axes)
    unit = b.div(centred, _deviation(b, spread, epsilon))
    running = []
    for given, found in zip(vectors[2:], (current, spread), strict=True):
        momentum = node.attribute("momentum", 0.9)
        flat = b.op("Reshape", found, b.integers([-1]))
        running.append(b.add(b.scale(given, momentum), b.scale(flat, 1.0 - momentum)))
    return (_affine(b, unit, scale, shift), *running)
