"""Operators that onnxruntime's optimiser writes in place of several of the standard, taken apart into these again.

Inputs are named as in onnxruntime's documentation of its contrib operators (domain com.microsoft).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation
from onnxlrp.understand.codes import MICROSOFT

_APART = "taken apart into operators of the standard"
#: Activations that are fused, with the attributes that their parameters become.
_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid", "HardSwish", "Softplus", "Softsign"), ()),
    **dict.fromkeys(("LeakyRelu", "Elu", "ThresholdedRelu"), ("alpha",)),
    "HardSigmoid": ("alpha", "beta"),
}
_NO_RANK = Refusal("the rank of its input is not known", "run shape inference on the model first")


def _without(at: Situation, *names: str) -> dict[str, Any]:
    return {name: value for name, value in at.node.attributes.items() if name not in names}


# -- layers with what follows them -------------------------------------------------------------------------------


def _activated(b: Builder, x: str, kind: str, parameters: Sequence[float]) -> str | Refusal:
    """The activation that was fused behind a layer."""
    if not kind:
        return x
    if kind == "Clip" and len(parameters) == 2:
        return b.op("Clip", x, b.scalar(parameters[0], x), b.scalar(parameters[1], x))
    names = _ACTIVATIONS.get(kind)
    if names is None:
        return Refusal(f"its activation {kind} is not known", "turn off onnxruntime's optimisation when saving")
    given: dict[str, Any] = dict(zip(names, parameters, strict=False))
    return b.op(kind, x, **given)


@lowers("FusedConv", domain=MICROSOFT, treatment=f"{_APART}: Conv, Add, an activation")
def fused_conv(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    attributes = _without(at, "activation", "activation_params")
    y = b.op("Conv", node.inputs[0], node.inputs[1], node.input(2), **attributes)
    if node.input(3):
        y = b.add(y, node.input(3))
    found = _activated(b, y, node.attribute("activation", ""), node.attribute("activation_params") or ())
    return found if isinstance(found, Refusal) else (found,)


@lowers("FusedGemm", domain=MICROSOFT, treatment=f"{_APART}: Gemm, an activation")
def fused_gemm(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    extra = ("activation_alpha", "activation_beta", "activation_gamma")
    y = b.op("Gemm", *node.inputs, **_without(at, "activation", *extra))
    parameters = [node.attribute(name) for name in extra if node.attribute(name) is not None]
    found = _activated(b, y, node.attribute("activation", ""), parameters)
    return found if isinstance(found, Refusal) else (found,)


@lowers("FusedMatMul TransposeMatMul", domain=MICROSOFT, treatment=f"{_APART}: Gemm, or Transpose and MatMul")
def fused_matmul(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        return Refusal("it moves batch axes (transBatch)", "turn off onnxruntime's optimisation when saving the model")
    ranks = [at.graph.rank(i) for i in node.inputs]
    turned = [node.attribute(name, 0) for name in ("transA", "transB")]
    alpha = node.attribute("alpha", 1.0)
    if ranks == [2, 2]:
        return (b.op("Gemm", *node.inputs, transA=turned[0], transB=turned[1], alpha=alpha),)
    operands = []
    for tensor, rank, turn in zip(node.inputs, ranks, turned, strict=True):
        if turn and rank is None:
            return _NO_RANK
        # A vector has nothing to turn.
        swaps = turn and rank is not None and rank > 1
        perm = [*range((rank or 2) - 2), (rank or 2) - 1, (rank or 2) - 2]
        operands.append(b.op("Transpose", tensor, perm=perm) if swaps else tensor)
    return (b.scale(b.op("MatMul", *operands), alpha),)


@lowers(
    "Conv MaxPool AveragePool GlobalMaxPool GlobalAveragePool ReorderInput ReorderOutput Upsample",
    domain="com.microsoft.nchwc",
    treatment="refused: laid out for one kind of processor",
)
def in_blocks(at: Situation, b: Builder) -> Refusal:
    return Refusal(
        "onnxruntime's full optimisation laid it out for one kind of processor",
        "save the optimised model at level extended (ORT_ENABLE_EXTENDED)",
    )


# -- activations -------------------------------------------------------------------------------------------------


def _gelu(b: Builder, x: str) -> str:
    if b.graph.opset >= 20:
        return b.op("Gelu", x)
    gate = b.add(b.op("Erf", b.scale(x, math.sqrt(0.5))), b.scalar(1.0, x))
    return b.mul(x, b.scale(gate, 0.5))


@lowers("Gelu", domain=MICROSOFT, treatment="as Gelu of the standard")
def gelu(at: Situation, b: Builder) -> Sequence[str]:
    return (_gelu(b, at.node.inputs[0]),)


@lowers("BiasGelu", domain=MICROSOFT, treatment=f"{_APART}: Add, Gelu")
def bias_gelu(at: Situation, b: Builder) -> Sequence[str]:
    return (_gelu(b, b.add(*at.node.inputs)),)


@lowers("FastGelu", domain=MICROSOFT, treatment=f"{_APART}: Add, Gelu by Tanh")
def fast_gelu(at: Situation, b: Builder) -> Sequence[str]:
    x = b.add(*at.node.inputs) if at.node.input(1) else at.node.inputs[0]
    if b.graph.opset >= 20:
        return (b.op("Gelu", x, approximate="tanh"),)
    inner = b.scale(b.add(x, b.scale(b.mul(x, b.square(x)), 0.044715)), math.sqrt(2.0 / math.pi))
    return (b.mul(x, b.scale(b.add(b.op("Tanh", inner), b.scalar(1.0, x)), 0.5)),)


@lowers("QuickGelu", domain=MICROSOFT, treatment=f"{_APART}: x * Sigmoid(alpha x), the Sigmoid a gate")
def quick_gelu(at: Situation, b: Builder) -> Sequence[str]:
    (x,) = at.node.inputs
    return (b.mul(x, b.op("Sigmoid", b.scale(x, at.node.attribute("alpha", 1.702)))),)


# -- normalisations ----------------------------------------------------------------------------------------------


@lowers("SkipLayerNormalization", domain=MICROSOFT, treatment=f"{_APART}: Add, LayerNormalization")
def skip_layer_normalization(at: Situation, b: Builder) -> Sequence[str]:
    gamma, beta = at.node.inputs[2], at.node.input(3)
    total = _skipped(at, b, 4)
    y = b.op("LayerNormalization", total, gamma, beta, axis=-1, epsilon=at.node.attribute("epsilon", 1e-12))
    return y, "", "", total


@lowers("SkipSimplifiedLayerNormalization", domain=MICROSOFT, treatment=f"{_APART}: Add, division by the norm")
def skip_simplified_layer_normalization(at: Situation, b: Builder) -> Sequence[str]:
    total = _skipped(at, b, 3)
    return _by_root_mean_square(b, total, at.node.inputs[2], -1, at.node.attribute("epsilon", 1e-12)), "", "", total


def _skipped(at: Situation, b: Builder, bias: int) -> str:
    total = b.add(*at.node.inputs[:2])
    return b.add(total, at.node.input(bias)) if at.node.input(bias) else total


def _by_root_mean_square(b: Builder, x: str, scale: str, axes: int | Sequence[int], epsilon: float) -> str:
    """x / sqrt(mean of squares + epsilon) * scale: all relevance to the numerator."""
    over = b.integers([axes] if isinstance(axes, int) else axes)
    square = b.op("ReduceMean", b.square(x), over, keepdims=1)
    return b.mul(b.div(x, b.op("Sqrt", b.add(square, b.scalar(epsilon, square)))), scale)


@lowers("SimplifiedLayerNormalization", treatment=f"{_APART}: division by the norm")
def simplified_layer_normalization(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    x, scale = at.node.inputs[:2]
    axis, rank = at.node.attribute("axis", -1), at.graph.rank(at.node.inputs[0])
    if axis != -1 and rank is None:
        return _NO_RANK
    axes = -1 if axis == -1 or rank is None else range(axis % rank, rank)
    return (_by_root_mean_square(b, x, scale, axes, at.node.attribute("epsilon", 1e-5)),)


@lowers("EmbedLayerNormalization", domain=MICROSOFT, treatment=f"{_APART}: Gather, Add, LayerNormalization")
def embed_layer_normalization(at: Situation, b: Builder) -> Sequence[str]:
    ids, segments, words, places, kinds, gamma, beta = at.node.inputs[:7]
    if at.node.input(8):
        place = at.node.input(8)
    else:
        length = b.op("Gather", b.shape_of(ids), b.constant_int(1))
        place = b.op("Range", b.constant_int(0), length, b.constant_int(1))
    total = b.add(b.op("Gather", words, ids, axis=0), b.op("Gather", places, place, axis=0))
    if segments:
        total = b.add(total, b.op("Gather", kinds, segments, axis=0))
    y = b.op("LayerNormalization", total, gamma, beta, axis=-1, epsilon=at.node.attribute("epsilon", 1e-12))
    # How many tokens of each text count: what an attention behind it reads as the end of its keys.
    mask = at.node.input(7)
    count = b.op("ReduceSum", b.cast(mask, int(TensorProto.INT64)), b.integers([1]), keepdims=0) if mask else ""
    return y, b.op("Cast", count, to=int(TensorProto.INT32)) if mask else "", total


# -- positions and packed weights --------------------------------------------------------------------------------


@lowers("RotaryEmbedding", domain=MICROSOFT, treatment="as RotaryEmbedding of the standard")
def rotary_embedding(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    x, positions, cos, sin = node.inputs[:4]
    if node.attribute("is_packed_batching", 0) or node.attribute("scale", 1.0) != 1.0:
        return Refusal("it packs its batches or scales", "turn off onnxruntime's optimisation when saving the model")
    if at.graph.rank(positions) == 1:
        # One number: the position of the first token.
        axis = 1 if at.graph.rank(x) == 3 else 2
        length = b.op("Gather", b.shape_of(x), b.constant_int(axis))
        counted = b.add(b.op("Range", b.constant_int(0), length, b.constant_int(1)), positions)
        batch = b.op("Gather", b.shape_of(x), b.integers([0]))
        shape = b.op("Concat", batch, b.op("Shape", counted), axis=0)
        positions = b.op("Expand", b.op("Unsqueeze", counted, b.integers([0])), shape)
    heads, part = node.attribute("num_heads", 0), node.attribute("rotary_embedding_dim", 0)
    width = at.graph.shape(cos)
    half = width[-1] if width else None
    if at.graph.rank(x) == 3 and not heads and isinstance(half, int):
        size = (at.graph.shape(x) or (None,))[-1]
        heads = size // (2 * half) if isinstance(size, int) else 0
    interleaved = node.attribute("interleaved", 0)
    turned = b.op(
        "RotaryEmbedding",
        x,
        cos,
        sin,
        positions,
        interleaved=interleaved,
        num_heads=heads,
        rotary_embedding_dim=part,
    )
    return (turned,)


@lowers("MatMulNBits", domain=MICROSOFT, treatment=f"{_APART}: MatMul with the unpacked weight")
def matmul_n_bits(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """The weight [N, K] lies in blocks of `block_size` numbers along K, each with a scale and a zero point."""
    node = at.node
    bits, block = node.attribute("bits", 4), node.attribute("block_size")
    rows, columns = node.attribute("N"), node.attribute("K")
    if bits not in (4, 8) or node.input(4):
        return Refusal("its weight is not packed in 4 or 8 bits in order", "pack it in 4 or 8 bits without g_idx")
    x, blocks = node.inputs[0], -(-columns // block)
    steps = b.op("Reshape", _unpacked(b, node.inputs[1], bits), b.integers([rows, blocks, block]))
    zero = b.scalar(float(2 ** (bits - 1)), x)
    if node.input(3):
        packed = b.dtype(node.input(3)) == TensorProto.UINT8
        given = _unpacked(b, node.input(3), bits) if packed else node.input(3)
        zeros = b.op("Reshape", given, b.integers([rows, -1, 1]))
        zero = b.op("Slice", zeros, b.integers([0]), b.integers([blocks]), b.integers([1]))
    scales = b.op("Reshape", node.inputs[2], b.integers([rows, blocks, 1]))
    weight = b.op("Reshape", b.mul(b.sub(steps, zero), scales), b.integers([rows, -1]))
    if blocks * block != columns:
        weight = b.op("Slice", weight, b.integers([0]), b.integers([columns]), b.integers([1]))
    y = b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0]))
    return (b.add(y, node.input(5)) if node.input(5) else y,)


@lowers(
    "GatherBlockQuantized",
    domain=MICROSOFT,
    treatment=f"{_APART}: Gather from the unpacked table",
)
def gather_block_quantized(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """A table [rows, width] in blocks of `block_size` numbers along its last axis, from which ids pick rows."""
    node = at.node
    table, ids, scales, zeros = (node.input(i) for i in range(4))
    bits, block = node.attribute("bits", 4), node.attribute("block_size", 128)
    shape, parts = at.graph.static_shape(table), at.graph.static_shape(scales)
    kind = b.dtype(table)
    axes = (node.attribute("gather_axis", 0), node.attribute("quantize_axis", 1) % 2)
    packed = kind == TensorProto.UINT8
    known = kind in (TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4) and bits in (4, 8)
    if not known or axes != (0, 1) or shape is None or parts is None or len(shape) != 2:
        return Refusal(
            "its table is not one of rows in blocks of 4 or 8 bits along each row", "quantise it along its last axis"
        )
    rows, blocks = parts

    def numbers(t: str) -> str:
        return _unpacked(b, t, bits) if packed else b.op("Cast", t, to=int(TensorProto.FLOAT))

    steps = b.op("Reshape", numbers(table), b.integers([rows, blocks, block]))
    if zeros:
        zero = b.op("Reshape", numbers(zeros), b.integers([rows, -1, 1]))
        zero = b.op("Slice", zero, b.integers([0]), b.integers([blocks]), b.integers([1]))
    else:
        zero = b.scalar(float(2 ** (bits - 1)) if packed else 0.0, steps)
    scale = b.op("Reshape", b.op("Cast", scales, to=int(TensorProto.FLOAT)), b.integers([rows, blocks, 1]))
    real = b.op("Reshape", b.mul(b.sub(steps, zero), scale), b.integers([rows, blocks * block]))
    return (b.op("Gather", real, ids, axis=0),)


def _unpacked(b: Builder, packed: str, bits: int) -> str:
    """Bytes as floats, with 4 bits two for each byte, the lower half first."""
    whole = b.op("Cast", packed, to=int(TensorProto.FLOAT))
    if bits == 8:
        return whole
    high = b.op("Floor", b.scale(whole, 1.0 / 16.0))
    low = b.sub(whole, b.scale(high, 16.0))
    pair = [b.op("Unsqueeze", half, b.integers([-1])) for half in (low, high)]
    return b.op("Concat", *pair, axis=-1)
