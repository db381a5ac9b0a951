"""Quantised operators of the standard: read on the real numbers that their integers stand for.

QuantizeLinear and DequantizeLinear pass relevance straight through. Everything that works on the integers in between
is taken apart into DequantizeLinear, the operator on real numbers, and QuantizeLinear, so that integers only ever lie
between these two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.packed import weight
from onnxlrp.graph.view import FLOAT_TYPES, Graph, Node
from onnxlrp.operators.behaviour import Coded, Refusal
from onnxlrp.operators.lowering import lowers, lowers_whatever
from onnxlrp.operators.registry import Situation, find, register
from onnxlrp.understand.codes import Code, bounds, code_of, per_tensor
from onnxlrp.understand.facts import Facts

_STRAIGHT = "straight through: passes unchanged; rounding and saturation are passed over"
_REAL_LAYER = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_CODERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "CastLike")


# -- real numbers and their integers -----------------------------------------------------------------------------


def dequantised(b: Builder, integers: str, code: Code) -> str:
    """The real numbers that integers stand for."""
    stored = weight(b, integers, code.scale, code.zero, code.axis)
    if stored is not None:
        return stored
    kind = b.dtype(code.scale)
    return b.op("DequantizeLinear", integers, code.scale, code.zero, axis=_axis(b.graph, code), dtype=kind)


def quantised(b: Builder, real: str, code: Code) -> str:
    """The integers that stand for real numbers."""
    kind = b.dtype(code.zero) if code.zero else int(TensorProto.UINT8)
    return b.op("QuantizeLinear", real, code.scale, code.zero, axis=_axis(b.graph, code), dtype=kind)


def _axis(graph: Graph, code: Code) -> int | None:
    return None if per_tensor(graph, code) else code.axis


def same_code(facts: Facts, a: Code, b: Code) -> bool:
    """Whether two codes are provably the same."""
    return _same(facts, a.scale, b.scale) and _same(facts, a.zero, b.zero)


def _same(facts: Facts, a: str, b: str) -> bool:
    if a == b:
        return True
    left, right = (facts.value(name) if name else np.zeros(()) for name in (a, b))
    return left is not None and right is not None and bool(np.array_equal(left.reshape(-1), right.reshape(-1)))


def _own_code(node: Node) -> Code:
    return Code(node.inputs[1], node.input(2), node.attribute("axis", 1))


def _real_numbers(graph: Graph, integers: str) -> str | None:
    """A float tensor with the numbers that integers stand for, the model's own one where there is one."""
    readers = [n for n in graph.consumers.get(integers, ()) if n.op == "DequantizeLinear" and not n.domain]
    readers.sort(key=lambda n: n.origin is not None)
    return readers[0].outputs[0] if readers else None


# -- the two ends of a quantised stretch -------------------------------------------------------------------------


@register("DequantizeLinear", "movement", _STRAIGHT, "1")
def dequantize_linear(at: Situation) -> Coded | Refusal:
    integers, y = at.node.inputs[0], at.y
    code = code_of(at.graph, integers)
    if code is None:
        return Refusal(
            f"its integers ({integers}) do not come from a quantised operator that is known",
            "explain a tensor behind it",
        )
    if not same_code(at.facts, code, _own_code(at.node)):
        return Refusal(
            "it reads integers with another scale or zero point than they were written with",
            "quantise the model with one scale and zero point per tensor",
        )
    return Coded(integers, y, _real_numbers(at.graph, integers) or y)


@register(
    "QuantizeLinear",
    "movement",
    _STRAIGHT,
    "1; 0 where saturation cuts off as a Relu does, that is at a smallest number 0",
    codes=(0,),
)
def quantize_linear(at: Situation) -> Coded | Refusal:
    x, code = at.node.inputs[0], _own_code(at.node)
    real = _real_numbers(at.graph, at.y)
    return _read_as_they_are(at) if real is None else Coded(x, at.y, real, _cut(at, code, real))


@register("DynamicQuantizeLinear", "movement", _STRAIGHT, "1; the scale is held constant", codes=(0,))
def dynamic_quantize_linear(at: Situation) -> Coded | Refusal:
    real = _real_numbers(at.graph, at.y)
    # The range is that of the data, so that nothing saturates; the scale is held constant.
    return Coded(at.node.inputs[0], at.y, real, lambda b, g: g) if real else _read_as_they_are(at)


def _read_as_they_are(at: Situation) -> Refusal:
    readers = ", ".join(dict.fromkeys(n.op for n in at.graph.consumers.get(at.y, ()))) or "nothing"
    return Refusal(
        f"its integers are read as they are by {readers}", "explain an output that does not pass through this node"
    )


def _cut(at: Situation, code: Code, real: str) -> Callable[[Builder, str], str]:
    """The derivative of saturation, as far as it is one: where 0 is the smallest number of the code (or the largest),
    cutting off is how a quantised network writes a Relu. Elsewhere saturation is passed over.

    The integers say where it is cut off, so that what was rounded need not be computed again.
    """
    limits = bounds(at.graph, code, at.node)
    zero = at.facts.scalar(code.zero) if code.zero else 0.0
    if limits is None or zero not in limits or at.facts.nonnegative(at.node.inputs[0]):
        return lambda b, g: g
    side = "Greater" if zero == limits[0] else "Less"
    return lambda b, g: b.mask(b.op(side, real, b.scalar(0.0, real)), g)


# -- integers in between -----------------------------------------------------------------------------------------


@lowers_whatever
def moved_integers(at: Situation, b: Builder) -> Sequence[str] | None:
    """Movement and selection of quantised integers as the same on real numbers: both keep the order of values."""
    node, graph = at.node, at.graph
    if node.domain or node.op in _CODERS or graph.is_float(at.y):
        return None
    entry, code = find(node), code_of(graph, at.y)
    if entry is None or entry.kind not in ("movement", "max") or code is None:
        return None
    data = range(len(node.inputs)) if entry.data is None else entry.data
    given = [node.inputs[p] for p in data if node.input(p) in at.active]
    codes = [code_of(graph, q) for q in given]
    if not given or not per_tensor(graph, code) or not all(c and same_code(at.facts, c, code) for c in codes):
        return None
    inputs = [dequantised(b, q, code) if p in data and q else q for p, q in enumerate(node.inputs)]
    if node.op == "Pad":
        # What is filled in where the node names nothing is the integer 0.
        inputs += [""] * (3 - len(inputs))
        kind = np.dtype(b.numpy_type(node.inputs[0]))
        inputs[2] = dequantised(b, node.input(2) or b.constant(np.zeros((), kind)), code)
    made = b.ops(node.op, *inputs, outputs=len(node.outputs), **node.attributes)
    return [quantised(b, real, code) for real in (made if node.op == "Split" else made[:1])]


@lowers_whatever
def scaled_sums(at: Situation, b: Builder) -> Sequence[str] | None:
    """Cast(ConvInteger(x, w)) * (scale of x * scale of w), as dynamic quantisation writes it: a layer with weights."""
    node = at.node
    if node.op != "Mul" or node.domain:
        return None
    for sums, scales in (node.inputs, node.inputs[::-1]):
        maker, product = _accumulator(at, sums), at.graph.producer.get(scales)
        if maker is None or product is None or product.op != "Mul":
            continue
        x, w = maker.inputs[:2]
        code = code_of(at.graph, x)
        if code is None or code.scale not in product.inputs or not _same(at.facts, code.zero, maker.input(2)):
            continue
        scale = next((s for s in product.inputs if s != code.scale), "")
        rank = at.graph.rank(w)
        one_scale = at.graph.static_shape(scale) in ((), (1,))
        known = at.facts.is_constant(w) and at.facts.is_constant(scale) and rank is not None
        if known and rank is not None and (one_scale or maker.op == "MatMulInteger"):
            real = dequantised(b, w, Code(scale, maker.input(3), rank - 1))
            return (b.op(_REAL_LAYER[maker.op], dequantised(b, x, code), real, **maker.attributes),)
    return None


def _accumulator(at: Situation, floats: str) -> Node | None:
    """The ConvInteger or MatMulInteger whose sums a Cast turned into these floats."""
    cast = at.graph.producer.get(floats)
    if cast is None or cast.op != "Cast" or cast.domain or cast.attribute("to") not in FLOAT_TYPES:
        return None
    maker = at.graph.producer.get(cast.inputs[0])
    return maker if maker is not None and not maker.domain and maker.op in _REAL_LAYER else None


@lowers_whatever
def accumulated_integers(at: Situation, b: Builder) -> Sequence[str] | None:
    """The Cast behind a ConvInteger or MatMulInteger, as a Conv or MatMul of real numbers counted in steps."""
    maker = _accumulator(at, at.y)
    if maker is None:
        return None
    operands = [o for o in (_steps(at, b, maker, position) for position in (0, 1)) if o]
    if len(operands) < 2:
        return None
    sums = b.op(_REAL_LAYER[maker.op], *operands, **maker.attributes)
    kind = int(at.node.attribute("to"))
    return (sums if b.dtype(sums) == kind else b.op("Cast", sums, to=kind),)


def _steps(at: Situation, b: Builder, maker: Node, position: int) -> str | None:
    """An operand less its zero point, as floats."""
    integers, zero = maker.inputs[position], maker.input(2 + position)
    if at.facts.is_constant(integers):
        steps = b.op("Cast", integers, to=int(TensorProto.FLOAT))
        if not zero:
            return steps
        shift, rank = b.op("Cast", zero, to=int(TensorProto.FLOAT)), at.graph.rank(integers) or 2
        several = at.graph.static_shape(zero) not in ((), (1,))
        if maker.op == "ConvInteger" and several:
            shift = b.op("Reshape", shift, b.integers([-1, *[1] * (rank - 1)]))
        return b.sub(steps, shift)
    code = code_of(at.graph, integers)
    if code is None or not _same(at.facts, code.zero, zero):
        return None
    return b.div(dequantised(b, integers, code), code.scale)


@lowers(
    "ConvInteger MatMulInteger", treatment="with the Cast to floats behind it taken as Conv or MatMul of real numbers"
)
def integer_sums(at: Situation, b: Builder) -> Refusal:
    return Refusal(
        "its integers are not turned into floats by a Cast right behind it, or are not made by a quantised operator",
        "quantise the model with onnxruntime's tools, or explain an output that does not pass through this node",
    )


# -- layers ------------------------------------------------------------------------------------------------------

_LAYER = "taken apart: the layer on real numbers between DequantizeLinear and QuantizeLinear"


def at_inputs(at: Situation, *positions: int) -> tuple[str, Code]:
    """Integers with the code that the inputs at (integers, scale, zero point) give them."""
    integers, scale, zero = (at.node.input(p) for p in positions)
    return integers, Code(scale, zero, 0)


def output_code(at: Situation) -> Code:
    """The code of a quantised operator's output."""
    code = code_of(at.graph, at.y)
    if code is None:
        raise LookupError(at.node.op)
    return code


def layer_bias(b: Builder, bias: str, x: Code, w: Code) -> str:
    """An int32 bias, which counts in products of the two scales."""
    return b.mul(b.op("Cast", bias, to=b.dtype(x.scale)), b.mul(x.scale, w.scale))


@lowers("QLinearConv", treatment=_LAYER)
def qlinear_conv(at: Situation, b: Builder) -> Sequence[str]:
    x, x_code = at_inputs(at, 0, 1, 2)
    w, w_code = at_inputs(at, 3, 4, 5)
    bias = layer_bias(b, at.node.input(8), x_code, w_code) if at.node.input(8) else ""
    y = b.op("Conv", dequantised(b, x, x_code), dequantised(b, w, w_code), bias, **at.node.attributes)
    return (quantised(b, y, output_code(at)),)


@lowers("QLinearMatMul", treatment=_LAYER)
def qlinear_matmul(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    a, a_code = at_inputs(at, 0, 1, 2)
    w, w_code = at_inputs(at, 3, 4, 5)
    rank = at.graph.rank(w)
    if not per_tensor(at.graph, a_code) or rank is None:
        return Refusal("its first operand has a scale for each row", "quantise activations with one scale per tensor")
    # A scale with several elements is one for each column.
    w_code = Code(w_code.scale, w_code.zero, rank - 1)
    return (quantised(b, b.op("MatMul", dequantised(b, a, a_code), dequantised(b, w, w_code)), output_code(at)),)
