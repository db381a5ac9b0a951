"""A small network as onnxruntime's quantiser writes it, and the same in plain numpy with the rounding held constant.

The numpy network computes on the real numbers that the integers stand for. Wherever the quantised model rounds, the
error that it made on the given data is added as a constant. The value on that data is the model's own, and the
derivative is that of the model straight through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from tests.support.models import Net

Array = np.ndarray
SHAPE = (1, 2, 6, 6)
_SIGNED = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}

#: How each format is asked for; None is dynamic quantisation.
FORMATS: Mapping[str, Mapping[str, Any] | None] = {
    "qdq": {"quant_format": QuantFormat.QDQ},
    "qdq-per-channel": {"quant_format": QuantFormat.QDQ, "per_channel": True, **_SIGNED},
    "qdq-unsigned": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    },
    "qoperator": {"quant_format": QuantFormat.QOperator},
    "qoperator-per-channel": {"quant_format": QuantFormat.QOperator, "per_channel": True, **_SIGNED},
    "dynamic": None,
}


def float_network() -> ModelProto:
    """Convolutions, an addition, a concatenation with a sigmoid, averages and a dense layer."""
    rng = np.random.default_rng(3)
    net = Net(np.float32)
    x = net.input("x", ["n", *SHAPE[1:]])

    def weight(name: str, *shape: int) -> str:
        return net.constant(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1), name)

    def conv(t: str, number: int, outputs: int, inputs: int) -> str:
        w, b = weight(f"w{number}", outputs, inputs, 3, 3), weight(f"b{number}", outputs)
        return net.op("Conv", t, w, b, pads=[1, 1, 1, 1])

    a = net.op("Relu", conv(x, 1, 4, 2))
    p = net.op("AveragePool", a, kernel_shape=[2, 2], strides=[2, 2])
    s = net.op("Add", net.op("Relu", conv(p, 2, 4, 4)), p)
    c = net.op("Concat", s, net.op("Sigmoid", conv(s, 3, 2, 4)), axis=1)
    g = net.op("Flatten", net.op("GlobalAveragePool", c))
    return net.model(net.op("Gemm", g, weight("w4", 5, 6), weight("b4", 5), transB=1))


class _Samples(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self._left: Iterator[dict[str, Array]] = iter(
            [{"x": rng.normal(size=SHAPE).astype(np.float32)} for _ in range(8)]
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def quantise(model: ModelProto, form: str, folder: Path) -> ModelProto:
    """The model in one of `FORMATS`."""
    logging.getLogger().setLevel(logging.ERROR)
    source, result, options = folder / "float.onnx", folder / f"{form}.onnx", FORMATS[form]
    onnx.save(model, source)
    if options is None:
        quantize_dynamic(source, result)
    else:
        quantize_static(source, result, _Samples(), **options)
    return onnx.load(result)


@dataclass(frozen=True)
class Straight:
    """The numpy network that stands for a quantised model on given data."""

    weights: Mapping[str, Array]
    rounding: Mapping[str, Callable[[Array], Array]]

    def __call__(self, x: Array) -> Array:
        return _run(x, self.weights, lambda names, value: self._at(names, value))

    def _at(self, names: tuple[str, ...], value: Array) -> Array:
        for name in names:
            if name in self.rounding:
                return self.rounding[name](value)
        return value


def straight(model: ModelProto, x: Array) -> Straight:
    """The numpy network for a quantised model, the rounding errors taken from a run of the model on x."""
    values = _everything(model, x)
    weights = {name: _weight(values, name) for name in ("w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4")}
    rounding: dict[str, Callable[[Array], Array]] = {}
    written_with = {n.output[0]: n.input[1:3] for n in model.graph.node if n.op_type == "QuantizeLinear"}

    def learn(names: tuple[str, ...], value: Array) -> Array:
        for name in names:
            for integers in (f"{name}_quantized", f"{name}_QuantizeLinear_Output"):
                if integers in values:
                    scale, zero = written_with.get(integers, (f"{name}_scale", f"{name}_zero_point"))
                    relu = name.startswith(("relu", "conv"))
                    rounding[name] = _rounding(value, values[integers], values[scale], values[zero], relu)
                    return rounding[name](value)
        return value

    _run(x.astype(np.float64), weights, learn)
    return Straight(weights, rounding)


def _rounding(value: Array, integers: Array, scale: Array, zero: Array, relu: bool) -> Callable[[Array], Array]:
    real = float(scale) * (integers.astype(np.float64) - float(zero)).reshape(value.shape)
    limits = np.iinfo(integers.dtype)
    # Behind a layer, where 0 is the smallest number of the code, that integer is what a Relu makes: a constant.
    cut = (relu & (float(zero) == limits.min) & (integers == limits.min)).reshape(value.shape)
    error = real - value
    inside = ((limits.min < integers) & (integers < limits.max)).reshape(value.shape)
    assert np.abs(error[inside]).max() < 1.01 * float(scale), "the replica computes something else than the model"
    return lambda t: np.where(cut, real, t + error)


def _weight(values: Mapping[str, Array], name: str) -> Array:
    if name in values:
        return values[name].astype(np.float64)
    turned = f"{name}_Transposed"
    if f"{turned}_quantized" in values:
        return _decoded(values, turned).T
    return _decoded(values, name) if f"{name}_scale" in values else _bias(values, name)


def _decoded(values: Mapping[str, Array], name: str) -> Array:
    integers, scale, zero = (
        values[f"{name}_{part}"].astype(np.float64) for part in ("quantized", "scale", "zero_point")
    )
    along = (-1,) + (1,) * (integers.ndim - 1)
    return (integers - zero.reshape(along if zero.size > 1 else ())) * scale.reshape(along if scale.size > 1 else ())


def _bias(values: Mapping[str, Array], name: str) -> Array:
    """An int32 bias counts in products of the scales of data and weight."""
    layer = {"b1": ("x",), "b2": ("averagepool2",), "b3": ("add5",), "b4": ("flatten10", "globalaveragepool9")}[name]
    scale = next(values[f"{n}_scale"] for n in layer if f"{n}_scale" in values)
    return values[f"{name}_quantized"].astype(np.float64) * scale * values[f"w{name[1]}_scale"].astype(np.float64)


def _everything(model: ModelProto, x: Array) -> dict[str, Array]:
    """All tensors of a model, computed by onnxruntime without optimisation."""
    copy = ModelProto()
    copy.CopyFrom(model)
    known = {o.name for o in copy.graph.output}
    names = [o for n in model.graph.node for o in n.output if o not in known]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    made = [o.name for o in session.get_outputs()]
    values = dict(zip(made, session.run(made, {"x": x}), strict=True))
    return {**{t.name: numpy_helper.to_array(t) for t in model.graph.initializer}, **values}


def _run(x: Array, w: Mapping[str, Array], at: Callable[[tuple[str, ...], Array], Array]) -> Array:
    """The network; `at` is told of each value under the names that the formats give it."""
    x = at(("x",), x)
    a = at(("relu1", "conv0"), np.maximum(_conv(x, w["w1"], w["b1"]), 0))
    p = at(("averagepool2",), (a[..., ::2, ::2] + a[..., 1::2, ::2] + a[..., ::2, 1::2] + a[..., 1::2, 1::2]) / 4)
    r = at(("relu4", "conv3"), np.maximum(_conv(p, w["w2"], w["b2"]), 0))
    s = at(("add5",), r + p)
    v = at(("conv6",), _conv(s, w["w3"], w["b3"]))
    c = at(("concat8",), np.concatenate([s, at(("sigmoid7",), 1 / (1 + np.exp(-v)))], axis=1))
    g = at(("globalaveragepool9", "flatten10"), c.mean(axis=(2, 3)))
    return at(("gemm11",), g @ w["w4"].T + w["b4"])


def _conv(x: Array, w: Array, b: Array) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nihwkl,oikl->nohw", windows, w) + b[:, None, None]
