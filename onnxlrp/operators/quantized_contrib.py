"""Quantised operators of onnxruntime (domain com.microsoft), as its quantiser writes them.

Each is taken apart into DequantizeLinear, the operator on real numbers, and QuantizeLinear. Inputs are named as in
onnxruntime's documentation of its contrib operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.quantization import at_inputs, dequantised, layer_bias, output_code, quantised
from onnxlrp.operators.registry import Situation
from onnxlrp.understand.codes import MICROSOFT, Code, code_of

_TAKEN_APART = "taken apart: the operator on real numbers between DequantizeLinear and QuantizeLinear"
_SIXTEEN_BITS = frozenset({int(TensorProto.UINT16), int(TensorProto.INT16)})

#: (builder, situation, real inputs) -> the real output
OnReals = Callable[[Builder, Situation, Sequence[str]], str | Refusal]


def _quantised(ops: str, *places: int) -> Callable[[OnReals], OnReals]:
    """Registers an operator whose data inputs stand at `places`, each with scale and zero point behind it."""

    def add(on_reals: OnReals) -> OnReals:
        @lowers(ops, domain=MICROSOFT, treatment=_TAKEN_APART)
        def lower(at: Situation, b: Builder) -> Sequence[str] | Refusal:
            reals = [dequantised(b, *at_inputs(at, p, p + 1, p + 2)) for p in places]
            found = on_reals(b, at, reals)
            return found if isinstance(found, Refusal) else (quantised(b, found, output_code(at)),)

        return on_reals

    return add


# -- the coders themselves ---------------------------------------------------------------------------------------


def _too_wide(at: Situation, tensor: str) -> Refusal | None:
    """DequantizeLinear of the standard takes 16 bits from opset 21 on."""
    if at.graph.opset >= 21 or at.graph.dtype(tensor) not in _SIXTEEN_BITS:
        return None
    return Refusal("integers of 16 bits need opset 21", "bring the model to opset 21 with onnx.version_converter")


@lowers("QuantizeLinear", domain=MICROSOFT, treatment="as QuantizeLinear of the standard")
def quantize_linear(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    wide = _too_wide(at, at.node.input(2))
    return wide or (quantised(b, at.node.inputs[0], output_code(at)),)


@lowers("DequantizeLinear", domain=MICROSOFT, treatment="as DequantizeLinear of the standard")
def dequantize_linear(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    integers, code = at_inputs(at, 0, 1, 2)
    wide = _too_wide(at, integers) or _too_wide(at, code.zero)
    return wide or (dequantised(b, integers, Code(code.scale, code.zero, at.node.attribute("axis", 1))),)


# -- element by element ------------------------------------------------------------------------------------------


@_quantised("QLinearAdd", 0, 3)
def qlinear_add(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    return b.add(*reals)


@_quantised("QLinearMul", 0, 3)
def qlinear_mul(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    return b.mul(*reals)


@_quantised("QLinearWhere", 1, 4)
def qlinear_where(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    return b.where(at.node.inputs[0], *reals)


@_quantised("QLinearSigmoid", 0)
def qlinear_sigmoid(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    return b.op("Sigmoid", *reals)


@_quantised("QLinearLeakyRelu", 0)
def qlinear_leaky_relu(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    return b.op("LeakyRelu", *reals, alpha=at.node.attribute("alpha", 0.01))


@_quantised("QLinearSoftmax", 0)
def qlinear_softmax(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    axis = at.node.attribute("axis", -1)
    if at.node.attribute("opset", 13) >= 13:
        return b.op("Softmax", *reals, axis=axis)
    # Softmax of old flattened its input around the axis.
    flat = b.op("Softmax", b.op("Flatten", *reals, axis=axis), axis=1)
    return b.op("Reshape", flat, b.op("Shape", *reals))


# -- averages and concatenation ----------------------------------------------------------------------------------


def channels_first(b: Builder, tensor: str, rank: int) -> str:
    """A tensor with its channels at the end, with them behind the batch."""
    return b.op("Transpose", tensor, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last(b: Builder, tensor: str, rank: int) -> str:
    """A tensor with its channels behind the batch, with them at the end."""
    return b.op("Transpose", tensor, perm=[0, *range(2, rank), 1])


@_quantised("QLinearAveragePool", 0)
def qlinear_average_pool(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    attributes = {k: v for k, v in at.node.attributes.items() if k != "channels_last"}
    rank = len(attributes["kernel_shape"]) + 2
    if not at.node.attribute("channels_last", 0):
        return b.op("AveragePool", *reals, **attributes)
    return channels_last(b, b.op("AveragePool", channels_first(b, reals[0], rank), **attributes), rank)


@_quantised("QLinearGlobalAveragePool", 0)
def qlinear_global_average_pool(b: Builder, at: Situation, reals: Sequence[str]) -> str | Refusal:
    if not at.node.attribute("channels_last", 0):
        return b.op("GlobalAveragePool", *reals)
    rank = at.graph.rank(at.node.inputs[0])
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    return channels_last(b, b.op("GlobalAveragePool", channels_first(b, reals[0], rank)), rank)


@_quantised("QLinearReduceMean", 0)
def qlinear_reduce_mean(b: Builder, at: Situation, reals: Sequence[str]) -> str:
    axes, keep = at.node.attribute("axes"), at.node.attribute("keepdims", 1)
    return b.op("ReduceMean", *reals, b.integers(axes) if axes else "", keepdims=keep)


@lowers("QLinearConcat", domain=MICROSOFT, treatment=_TAKEN_APART)
def qlinear_concat(at: Situation, b: Builder) -> Sequence[str]:
    places = range(2, len(at.node.inputs), 3)
    reals = [dequantised(b, *at_inputs(at, p, p + 1, p + 2)) for p in places]
    return (quantised(b, b.op("Concat", *reals, axis=at.node.attribute("axis")), output_code(at)),)


@lowers("NhwcMaxPool", domain=MICROSOFT, treatment=_TAKEN_APART)
def nhwc_max_pool(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    code, rank = code_of(at.graph, at.y), len(at.node.attribute("kernel_shape")) + 2
    if code is None:
        return Refusal("its integers do not come from a quantised operator that is known", "explain a tensor behind it")
    reals = channels_first(b, dequantised(b, at.node.inputs[0], code), rank)
    return (quantised(b, channels_last(b, b.op("MaxPool", reals, **at.node.attributes), rank), code),)


# -- layers ------------------------------------------------------------------------------------------------------


@lowers("QLinearConv", domain=MICROSOFT, treatment=_TAKEN_APART)
def qlinear_conv(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    x, x_code = at_inputs(at, 0, 1, 2)
    w, w_code = at_inputs(at, 3, 4, 5)
    rank, last = at.graph.rank(w), bool(at.node.attribute("channels_last", 0))
    if rank is None:
        return Refusal("the shape of its kernel is not known", "give the weight a static shape")
    bias = layer_bias(b, at.node.input(8), x_code, w_code) if at.node.input(8) else ""
    attributes = {k: v for k, v in at.node.attributes.items() if k != "channels_last"}
    real = dequantised(b, x, x_code)
    y = b.op("Conv", channels_first(b, real, rank) if last else real, dequantised(b, w, w_code), bias, **attributes)
    return (quantised(b, channels_last(b, y, rank) if last else y, output_code(at)),)


@lowers("QGemm", domain=MICROSOFT, treatment=_TAKEN_APART)
def qgemm(at: Situation, b: Builder) -> Sequence[str]:
    a, a_code = at_inputs(at, 0, 1, 2)
    w, w_code = at_inputs(at, 3, 4, 5)
    turned, alpha = at.node.attribute("transB", 0), at.node.attribute("alpha", 1.0)
    bias = ""
    if at.node.input(6):
        bias = b.scale(layer_bias(b, at.node.input(6), a_code, w_code), alpha)
    w_code = Code(w_code.scale, w_code.zero, 0 if turned else 1)
    y = b.op("Gemm", dequantised(b, a, a_code), dequantised(b, w, w_code), bias, **at.node.attributes)
    return (quantised(b, y, output_code(at)) if at.node.input(7) else y,)


@lowers("MatMulIntegerToFloat", domain=MICROSOFT, treatment="taken apart: MatMul of real numbers")
def matmul_integer_to_float(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    a, a_code = at_inputs(at, 0, 2, 4)
    return _matmul(at, b, dequantised(b, a, a_code), (1, 3, 5), 6)


@lowers("DynamicQuantizeMatMul", domain=MICROSOFT, treatment="taken apart: DynamicQuantizeLinear and MatMul")
def dynamic_quantize_matmul(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    integers, scale, zero = b.ops("DynamicQuantizeLinear", at.node.inputs[0], outputs=3, dtype=int(TensorProto.UINT8))
    b.declare(scale, TensorProto.FLOAT)
    return _matmul(at, b, dequantised(b, integers, Code(scale, zero)), (1, 2, 3), 4)


def _matmul(at: Situation, b: Builder, a: str, places: tuple[int, int, int], bias: int) -> Sequence[str] | Refusal:
    w, code = at_inputs(at, *places)
    rank = at.graph.rank(w)
    if rank is None:
        return Refusal("the rank of its weight is not known", "give the weight a static shape")
    y = b.op("MatMul", a, dequantised(b, w, Code(code.scale, code.zero, rank - 1)))
    return (b.add(y, at.node.input(bias)) if at.node.input(bias) else y,)
