"""No relevance is infinite or no number where the operator itself gives a number: zeros, large and tiny inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import GRADIENT
from tests.support.evaluate import run_onnxruntime
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray
Build = Callable[[Net, str], str]
SHAPE = (2, 4, 3)


def plain(op: str, *constants: Any, **attributes: Any) -> Build:
    """An operator of the data and constants."""

    def build(net: Net, a: str) -> str:
        return net.op(op, a, *(net.constant(c) for c in constants), **attributes)

    return build


def with_itself(op: str, **attributes: Any) -> Build:
    """An operator whose operands are the data and the data moved, so that all of them carry relevance."""

    def build(net: Net, a: str) -> str:
        return net.op(op, a, net.op("Mul", a, net.constant(2.0)), **attributes)

    return build


def _of_images(op: str, *constants: Any, **attributes: Any) -> Build:
    def build(net: Net, a: str) -> str:
        images = net.op("Reshape", a, net.constant(np.array([1, 2, 4, 3])))
        return net.op(op, images, *(net.constant(c) for c in constants), **attributes)

    return build


def _scaled_by_data(op: str, scale_size: int, operands: int = 2, **attributes: Any) -> Build:
    """A normalisation whose scale and shift are made of the data."""

    def build(net: Net, a: str) -> str:
        flat = net.op("Reshape", a, net.constant(np.array([-1])))
        scale = net.op("Slice", flat, net.constant(np.array([0])), net.constant(np.array([scale_size])))
        return net.op(op, a, *[scale] * operands, **attributes)

    return build


def _attention(**attributes: Any) -> Build:
    def build(net: Net, a: str) -> str:
        heads = net.op("Unsqueeze", a, net.constant(np.array([1])))
        mask = net.constant(np.where(np.tri(4) > 0, 0.0, -np.inf))
        return net.op("Attention", heads, heads, heads, mask, **attributes)

    return build


def _masked(net: Net, a: str) -> str:
    scores = net.op("Add", a, net.constant(np.array([0.0, -np.inf, 0.5])))
    return net.op("Mul", net.op("Softmax", scores), net.constant(2.0))


def _gemm(net: Net, a: str) -> str:
    rows = net.op("Reshape", a, net.constant(np.array([4, 6])))
    return net.op("Gemm", rows, net.op("Transpose", rows), net.op("ReduceSum", rows, keepdims=0))


def _conv(net: Net, a: str) -> str:
    kernel = net.op("Slice", a, *(net.constant(np.array([i])) for i in (0, 1, 2)))
    return net.op("Conv", a, net.op("Slice", kernel, *(net.constant(np.array([i])) for i in (0, 2, 0))))


def _variance(net: Net, a: str) -> str:
    """LayerNormalization written out, of which a constant row has no deviation."""
    centred = net.op("Sub", a, net.op("ReduceMean", a, net.constant(np.array([-1]))))
    square = net.op("ReduceMean", net.op("Mul", centred, centred), net.constant(np.array([-1])))
    return net.op("Div", centred, net.op("Sqrt", net.op("Add", square, net.constant(1e-5))))


CHANNELS = [distinct(4, seed=1), distinct(4, seed=2)]
LAST = [distinct(3, seed=1), distinct(3, seed=2)]
LAST_AXIS = np.array([-1])

CASES: Mapping[str, Build] = {
    **{
        op: plain(op) for op in ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh")
    },
    **{op: plain(op) for op in ("Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Erf", "Tanh", "Neg", "Relu")},
    **{op: plain(op) for op in ("LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Softplus")},
    **{op: plain(op) for op in ("Softsign", "Mish", "Gelu", "ThresholdedRelu", "Shrink")},
    **{op: with_itself(op) for op in ("Mul", "Div", "Add", "Sub", "Max", "Min", "PRelu", "Pow")},
    "Gelu-tanh": plain("Gelu", approximate="tanh"),
    "Mod": with_itself("Mod", fmod=1),
    "Pow-half": plain("Pow", 0.5),
    "Pow-square": plain("Pow", 2.0),
    "Pow-inverse": plain("Pow", -1.0),
    "Pow-nothing": plain("Pow", 0.0),
    **{op: plain(op, LAST_AXIS) for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL1", "ReduceL2")},
    **{op: plain(op, LAST_AXIS) for op in ("ReduceProd", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")},
    "Det": lambda net, a: net.op("Det", net.op("Slice", a, *(net.constant(np.array([i])) for i in (0, 3, 1)))),
    "LpPool": plain("LpPool", kernel_shape=[2]),
    "LpPool-cubes": plain("LpPool", kernel_shape=[2], p=3),
    "GlobalLpPool": plain("GlobalLpPool"),
    "AveragePool": plain("AveragePool", kernel_shape=[2]),
    "MaxPool": plain("MaxPool", kernel_shape=[2]),
    "LpNormalization": plain("LpNormalization"),
    "LpNormalization-1": plain("LpNormalization", p=1),
    "MeanVarianceNormalization": _of_images("MeanVarianceNormalization"),
    "LRN": _of_images("LRN", size=3),
    "BatchNormalization": plain("BatchNormalization", *CHANNELS, distinct(4, seed=3), np.abs(distinct(4, seed=4))),
    "InstanceNormalization": plain("InstanceNormalization", *CHANNELS),
    "GroupNormalization": plain("GroupNormalization", *CHANNELS, num_groups=2),
    "LayerNormalization": plain("LayerNormalization", *LAST),
    "LayerNormalization-primitive": _variance,
    "RMSNormalization": plain("RMSNormalization", LAST[0]),
    "LayerNormalization-data": _scaled_by_data("LayerNormalization", 3),
    "RMSNormalization-data": _scaled_by_data("RMSNormalization", 3, 1),
    "InstanceNormalization-data": _scaled_by_data("InstanceNormalization", 4),
    "GroupNormalization-data": _scaled_by_data("GroupNormalization", 4, num_groups=2),
    "Softmax": lambda net, a: net.op("Mul", net.op("Softmax", a), net.constant(2.0)),
    "Softmax-channels": lambda net, a: net.op("Mul", net.op("Softmax", a, axis=1), net.constant(2.0)),
    "LogSoftmax": lambda net, a: net.op("Mul", net.op("LogSoftmax", a), net.constant(2.0)),
    "Softmax-masked": _masked,
    "Gemm": _gemm,
    "Conv": _conv,
    "Attention": _attention(),
    "Attention-causal-capped": _attention(is_causal=1, softcap=5.0),
    "SoftmaxCrossEntropyLoss": lambda net, a: net.op(
        "SoftmaxCrossEntropyLoss", a, net.constant(np.zeros((2, 3), np.int64)), reduction="none"
    ),
}

SIGNS = np.where(distinct(*SHAPE, seed=6) > 0, 1.0, -1.0)
INPUTS: Mapping[str, Array] = {
    "zeros": np.zeros(SHAPE),
    "ones": np.ones(SHAPE),
    "some-zeros": np.maximum(distinct(*SHAPE, seed=6), 0.0),
    "large": 1e4 * np.ones(SHAPE),
    "large-signed": 1e4 * SIGNS + distinct(*SHAPE, seed=7),
    "tiny": 1e-6 * np.ones(SHAPE),
    "tiny-signed": 1e-6 * SIGNS,
}

RANKS: Mapping[str, int] = {
    **dict.fromkeys(("Attention", "MeanVarianceNormalization", "LRN"), 4),
    **dict.fromkeys(("Gemm", "SoftmaxCrossEntropyLoss"), 2),
    "Det": 1,
}

#: Inputs at which the operator itself gives no finite number, in onnxruntime and float32.
UNDEFINED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Asin", "Acos"), ("some-zeros", "large", "large-signed")),
    **dict.fromkeys(("Sinh", "Cosh", "Exp"), ("large", "large-signed")),
    **dict.fromkeys(("Sqrt", "Pow-half"), ("large-signed", "tiny-signed")),
    **dict.fromkeys(("Reciprocal", "Div", "Mod", "Pow-inverse"), ("zeros", "some-zeros")),
    "Acosh": ("zeros", "some-zeros", "large-signed", "tiny", "tiny-signed"),
    "Atanh": ("ones", "some-zeros", "large", "large-signed"),
    "Log": ("zeros", "some-zeros", "large-signed", "tiny-signed"),
    "Pow": ("large", "large-signed", "tiny-signed"),
    "ReduceLogSum": ("zeros", "large-signed", "tiny-signed"),
    "MeanVarianceNormalization": ("zeros", "ones", "large", "tiny"),
}


@pytest.mark.parametrize("case", CASES)
def test_relevance_is_finite_where_the_operator_is(case: str) -> None:
    newest = case.startswith(("Attention", "RMSNormalization"))
    net = Net(np.float32, opset=24 if newest else 21)
    model = net.model(CASES[case](net, net.input("a", SHAPE)), ranks=[RANKS.get(case.split("-")[0], 3)])
    emitted = {rules: onnxlrp.convert(model, rules=rules, target="seed") for rules in ("default", "epsilon", GRADIENT)}
    undefined = UNDEFINED.get(case, ())
    for name, values in INPUTS.items():
        feeds = {"a": values.astype(np.float32)}
        (y,) = run_onnxruntime(model, feeds).values()
        assert np.isfinite(y).all() == (name not in undefined), name
        if name in undefined:
            continue
        for rules, explaining in emitted.items():
            found = run_onnxruntime(explaining, {**feeds, "lrp_seed": np.ones_like(y)})
            assert np.isfinite(found["a_relevance"]).all(), (name, rules)
