"""Quantised operators of onnxruntime between QuantizeLinear and DequantizeLinear.

R = x times the derivative of the operator on real numbers, taken where the integers put x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.contrib import MICROSOFT, data, model
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient

Array = np.ndarray
_RNG = np.random.default_rng(11)
#: Scale and zero point of x, of a second operand and of the output; none saturates on the data.
CODES: Mapping[str, Array] = {
    "xs": np.float32(0.02),
    "xz": np.uint8(120),
    "os": np.float32(0.03),
    "oz": np.uint8(100),
    "ys": np.float32(0.05),
    "yz": np.uint8(128),
}
OTHER = _RNG.integers(60, 200, size=(2, 3, 4)).astype(np.uint8)
OTHER_REAL = 0.03 * (OTHER.astype(float) - 100)
WEIGHT = _RNG.integers(-100, 100, size=(4, 5)).astype(np.int8)
COLUMN_SCALES = np.array([0.01, 0.02, 0.005, 0.01, 0.015], np.float32)
REAL_WEIGHT = WEIGHT * COLUMN_SCALES.astype(float)


def _node(op: str, inputs: str, outputs: str, domain: str = MICROSOFT, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        op,
        ["" if i == "-" else i for i in inputs.split()],
        outputs.split(),
        name=f"the {op}",
        domain=domain,
        **attributes,
    )


def between(nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], **constants: Array) -> onnx.ModelProto:
    """x -> integers "q" -> the nodes -> integers "r" -> y."""
    first, last = _node("QuantizeLinear", "x xs xz", "q", ""), _node("DequantizeLinear", "r ys yz", "y", "")
    return model([first, *nodes, last], shape, {k: np.asarray(v) for k, v in {**CODES, **constants}.items()})


def expect(made: onnx.ModelProto, x: Array, f: Callable[[Array], Array], rounding: float = 0.05) -> None:
    """The model computes f of the rounded x, and relevance is x times its derivative there."""
    a = 0.02 * np.round(x.astype(float) / np.float32(0.02))
    assert np.abs(run_onnxruntime(made, {"x": x})["y"] - f(a)).max() < rounding, "what onnxruntime computes"
    seed = _RNG.normal(size=f(a).shape).astype(np.float32)
    gradient = central_gradient(lambda at: float((seed * f(at["a"])).sum()), {"a": a}, "a")
    emitted = onnxlrp.convert(made, rules="gradient-x-input", target="seed")
    assert not any(n.domain for n in emitted.graph.node if n.name.startswith("lrp/")), "only operators of the standard"
    found = run_onnxruntime(emitted, {"x": x, "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, x * gradient) < 1e-5


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softmax(x: Array) -> Array:
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


SHAPE = (2, 3, 4)
CASES: Mapping[str, tuple[onnx.NodeProto, Callable[[Array], Array]]] = {
    "add": (_node("QLinearAdd", "q xs xz o os oz ys yz", "r"), lambda a: a + OTHER_REAL),
    "add-to-itself": (_node("QLinearAdd", "q xs xz q xs xz ys yz", "r"), lambda a: a + a),
    "mul": (_node("QLinearMul", "q xs xz o os oz ys yz", "r"), lambda a: a * OTHER_REAL),
    "mul-with-itself": (_node("QLinearMul", "q xs xz q xs xz ys yz", "r"), lambda a: a * a),
    "sigmoid": (_node("QLinearSigmoid", "q xs xz ys yz", "r"), _sigmoid),
    "leakyrelu": (_node("QLinearLeakyRelu", "q xs xz ys yz", "r", alpha=0.2), lambda a: np.where(a > 0, a, 0.2 * a)),
    "softmax": (_node("QLinearSoftmax", "q xs xz ys yz", "r", axis=-1, opset=13), _softmax),
    "where": (_node("QLinearWhere", "c q xs xz o os oz ys yz", "r"), lambda a: np.where(OTHER % 2 > 0, a, OTHER_REAL)),
    "concat": (
        _node("QLinearConcat", "ys yz q xs xz o os oz", "r", axis=1),
        lambda a: np.concatenate([a, OTHER_REAL], axis=1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_of_two_and_of_one(name: str) -> None:
    """With a sign behind them, so that none is the last operator, which may be a head."""
    node, f = CASES[name]
    made = between([node], SHAPE, o=OTHER, c=OTHER % 2 > 0)
    made.graph.node[-1].output[0] = "positive"
    made.graph.node.append(_node("Neg", "positive", "y", ""))
    expect(made, data(*SHAPE), lambda a: -f(a), rounding=0.08)


IMAGE = (1, 2, 4, 4)


def _halved(a: Array) -> Array:
    return (a[..., ::2, ::2] + a[..., 1::2, ::2] + a[..., ::2, 1::2] + a[..., 1::2, 1::2]) / 4


def _last(a: Array) -> Array:
    return np.moveaxis(a, -1, 1)


def test_averages() -> None:
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    expect(between([_node("QLinearAveragePool", "q xs xz ys yz", "r", **pool)], IMAGE), data(*IMAGE), _halved)
    whole = between([_node("QLinearGlobalAveragePool", "q xs xz ys yz", "r")], IMAGE)
    expect(whole, data(*IMAGE), lambda a: a.mean(axis=(2, 3), keepdims=True))
    mean = between([_node("QLinearReduceMean", "q xs xz ys yz", "r", axes=[1], keepdims=0)], SHAPE)
    with pytest.raises(Exception, match="QLinearReduceMean"):
        run_onnxruntime(mean, {"x": data(*SHAPE)})  # it is in onnxruntime's documentation, and has no kernel
    assert [s.rule for s in onnxlrp.plan(mean, rules="epsilon").steps] == ["move", "move", "norm", "move", "move"]


def test_channels_at_the_end() -> None:
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": 1}
    made = between([_node("QLinearAveragePool", "q xs xz ys yz", "r", **pool)], (1, 4, 4, 2))
    expect(made, data(1, 4, 4, 2), lambda a: np.moveaxis(_halved(_last(a)), 1, -1))
    whole = between([_node("QLinearGlobalAveragePool", "q xs xz ys yz", "r", channels_last=1)], (1, 4, 4, 2))
    expect(whole, data(1, 4, 4, 2), lambda a: a.mean(axis=(1, 2), keepdims=True))
    largest = _node("NhwcMaxPool", "q", "r", kernel_shape=[2, 2], strides=[2, 2])
    same = {"ys": CODES["xs"], "yz": CODES["xz"]}
    expect(
        between([largest], (1, 4, 4, 2), **same),
        data(1, 4, 4, 2),
        lambda a: a.reshape(1, 2, 2, 2, 2, 2).max(axis=(2, 4)),
    )


def test_a_dense_layer_with_a_scale_for_each_column() -> None:
    bias = np.array([100, -50, 20, 0, 7], np.int32)
    weight = {"w": WEIGHT, "ws": COLUMN_SCALES, "wz": np.zeros(5, np.int8), "b": bias}
    real_bias = bias * COLUMN_SCALES.astype(float) * np.float32(0.02)
    made = between([_node("QGemm", "q xs xz w ws wz b ys yz", "r")], (3, 4), **weight)
    expect(made, data(3, 4), lambda a: a @ REAL_WEIGHT + real_bias)


def test_matmul_of_integers_to_floats() -> None:
    weight = {"w": WEIGHT, "ws": COLUMN_SCALES, "wz": np.zeros(5, np.int8), "bias": np.arange(5, dtype=np.float32)}
    nodes = [
        _node("QuantizeLinear", "x xs xz", "q", ""),
        _node("MatMulIntegerToFloat", "q w xs ws xz wz bias", "y"),
    ]
    made = model(nodes, (3, 4), {k: np.asarray(v) for k, v in {**CODES, **weight}.items()})
    expect(made, data(3, 4), lambda a: a @ REAL_WEIGHT + np.arange(5))


def test_matmul_that_quantises_on_the_way() -> None:
    weight = {"w": WEIGHT, "ws": COLUMN_SCALES, "wz": np.zeros(5, np.int8), "bias": np.arange(5, dtype=np.float32)}
    made = model([_node("DynamicQuantizeMatMul", "x w ws wz bias", "y")], (3, 4), weight)
    x, seed = data(3, 4), _RNG.normal(size=(3, 5)).astype(np.float32)
    assert np.abs(run_onnxruntime(made, {"x": x})["y"] - x @ REAL_WEIGHT - np.arange(5)).max() < 0.2
    emitted = onnxlrp.convert(made, rules="gradient-x-input", target="seed")
    found = run_onnxruntime(emitted, {"x": x, "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, x * (seed @ REAL_WEIGHT.T)) < 1e-5


def test_integers_that_are_moved_between() -> None:
    """Movement and selection of integers keep their scale and zero point."""
    nodes = [
        _node("Transpose", "q", "t", "", perm=[0, 2, 1]),
        _node("Reshape", "t form", "s", ""),
        _node("Pad", "s pads", "p", ""),
        _node("Slice", "p starts ends axes", "r", ""),
    ]
    constants = {"form": [2, 12], "pads": [0, 1, 0, 1], "starts": [0], "ends": [9], "axes": [1]}
    same = {"ys": CODES["xs"], "yz": CODES["xz"]}
    made = between(nodes, SHAPE, **same, **{k: np.array(v) for k, v in constants.items()})
    # Where nothing is said of what is filled in, it is the integer 0.
    fill = 0.02 * (0 - 120.0)

    def f(a: Array) -> Array:
        flat = a.swapaxes(1, 2).reshape(2, 12)
        return np.pad(flat, ((0, 0), (1, 1)), constant_values=fill)[:, :9]

    expect(made, data(*SHAPE), f)


def test_the_coders_of_onnxruntime() -> None:
    nodes = [_node("QuantizeLinear", "x xs xz", "q"), _node("DequantizeLinear", "q xs xz", "y")]
    made = model(nodes, SHAPE, {k: np.asarray(v) for k, v in CODES.items()})
    expect(made, data(*SHAPE), lambda a: a)


def test_sixteen_bits_need_a_recent_opset() -> None:
    nodes = [_node("QuantizeLinear", "x s z", "q"), _node("DequantizeLinear", "q s z", "y")]
    codes = {"s": np.array(0.001, np.float32), "z": np.array(30000, np.uint16)}
    expect(model(nodes, SHAPE, codes, opset=21), data(*SHAPE), lambda a: a)
    with pytest.raises(ConversionError, match="16 bits need opset 21"):
        onnxlrp.convert(model(nodes, SHAPE, codes, opset=19), rules="epsilon")


def test_integers_read_in_another_code_are_refused() -> None:
    nodes = [_node("QuantizeLinear", "x xs xz", "q", ""), _node("DequantizeLinear", "q os xz", "y", "")]
    made = model(nodes, SHAPE, {k: np.asarray(v) for k, v in CODES.items()})
    with pytest.raises(ConversionError, match=r"the DequantizeLinear .*another scale or zero point"):
        onnxlrp.convert(made, rules="epsilon")


def test_a_quantised_relu_stops_the_derivative_where_it_cuts_off() -> None:
    """Where 0 is the smallest number of the code, saturation is how a Relu is written."""
    nodes = [_node("QuantizeLinear", "x s z", "q", ""), _node("DequantizeLinear", "q s z", "y", "")]
    made = model(nodes, SHAPE, {"s": np.array(0.004, np.float32), "z": np.array(0, np.uint8)})
    x, seed = data(*SHAPE), _RNG.normal(size=SHAPE).astype(np.float32)
    assert (x > 255 * 0.004).any(), "what is cut off above is passed over"
    for rules, expected in (("gradient-x-input", seed * np.maximum(x, 0)), ("epsilon", seed * np.clip(x, 0, 1.02))):
        emitted = onnxlrp.convert(made, rules=rules, target="seed")
        found = run_onnxruntime(emitted, {"x": x, "lrp_seed": seed})["x_relevance"]
        assert relative_l2(found, expected) < 5e-3, rules
