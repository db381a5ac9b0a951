"""Normalisations in every attribute: the exact derivative, statistics included, by finite differences in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import onnxlrp
from tests.operators.examples import GRADIENT, Example, expect_derivative
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray


def vector(*shape: int, seed: int) -> Array:
    return distinct(*shape, seed=seed)


def normalized(op: str, shape: tuple[int, ...], *constants: tuple[int, ...], **attributes: Any) -> Example:
    """With random scales and shifts of both signs of these shapes."""

    def build(net: Net, a: str) -> str:
        return net.op(op, a, *(net.constant(vector(*s, seed=i + 5)) for i, s in enumerate(constants)), **attributes)

    return Example(shape, build, len(shape), open_axes=tuple(i for i in range(len(shape)) if i != 1))


def _layer(axis: int, *, bias: bool = True, **attributes: Any) -> Example:
    shape = (2, 3, 2, 2)
    size = shape[axis % 4 :]
    example = normalized("LayerNormalization", shape, size, *([size] if bias else []), axis=axis, **attributes)
    return Example(shape, example.build, 4, open_axes=tuple(range(axis % 4)))


def _rms(axis: int, **attributes: Any) -> Example:
    shape = (2, 3, 2, 2)
    example = normalized("RMSNormalization", shape, shape[axis % 4 :], axis=axis, **attributes)
    return Example(shape, example.build, 4, open_axes=tuple(range(axis % 4)), opset=23)


CASES: Mapping[str, Example] = {
    "instance-1d": normalized("InstanceNormalization", (2, 3, 4), (3,), (3,)),
    "instance-2d": normalized("InstanceNormalization", (2, 2, 3, 2), (2,), (2,), epsilon=0.1),
    "instance-3d": normalized("InstanceNormalization", (1, 2, 2, 3, 2), (2,), (2,), epsilon=1e-2),
    "group-of-opset-21": normalized("GroupNormalization", (2, 4, 2, 3), (4,), (4,), num_groups=2),
    "group-is-instance": normalized("GroupNormalization", (2, 3, 4), (3,), (3,), num_groups=3),
    "group-is-layer": normalized("GroupNormalization", (2, 4, 3), (4,), (4,), num_groups=1, epsilon=1e-3),
    "layer-last": _layer(-1),
    "layer-axis-1": _layer(1, epsilon=0.05),
    "layer-axis-2-without-bias": _layer(2, bias=False),
    "layer-axis-minus-2": _layer(-2),
    "layer-all": _layer(0),
    "lrn-even": Example((2, 4, 2, 2), lambda net, a: net.op("LRN", a, size=4, alpha=0.7, beta=0.5, bias=1.2), 4),
    "lrn-one": Example((1, 3, 2, 2), lambda net, a: net.op("LRN", a, size=1, alpha=0.9), 4),
    "lrn-1d": Example((2, 5, 3), lambda net, a: net.op("LRN", a, size=3, alpha=0.4, bias=2.0), 3),
    "lrn-3d": Example((1, 4, 2, 1, 2), lambda net, a: net.op("LRN", a, size=5, alpha=0.4), 5),
    "softmax-last": Example((2, 3, 4), lambda net, a: _inside(net, net.op("Softmax", a)), 3),
    "softmax-channels": Example((2, 3, 4), lambda net, a: _inside(net, net.op("Softmax", a, axis=1)), 3),
    "softmax-batch": Example((3, 2), lambda net, a: _inside(net, net.op("Softmax", a, axis=0)), 2),
    "log-softmax": Example((2, 3, 4), lambda net, a: _inside(net, net.op("LogSoftmax", a, axis=-2)), 3),
    "rms-last": _rms(-1),
    "rms-axis-1": _rms(1, epsilon=0.05),
    "lp-2": Example((2, 3, 4), lambda net, a: net.op("LpNormalization", a, axis=1), 3),
    "lp-1": Example((2, 3, 4), lambda net, a: net.op("LpNormalization", a, axis=-1, p=1), 3),
    "mean-variance": Example((2, 3, 2, 2), lambda net, a: net.op("MeanVarianceNormalization", a), 4),
    "mean-variance-axes": Example((2, 3, 4), lambda net, a: net.op("MeanVarianceNormalization", a, axes=[2]), 3),
    "batch-1d": normalized("BatchNormalization", (3, 2), (2,), (2,), (2,), (2,), epsilon=3.0),
}


def _inside(net: Net, x: str) -> str:
    """Something behind it, or it would be a head that is stepped over."""
    return net.op("Mul", x, x)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_gradient_x_input_differentiates_the_statistics(case: str, dynamic: bool) -> None:
    expect_derivative(CASES[case], dynamic=dynamic)


#: onnxruntime has LRN over an odd number of channels of images only.
IN_ONNXRUNTIME = [case for case in CASES if case not in ("lrn-even", "lrn-1d", "lrn-3d")]


@pytest.mark.parametrize("case", IN_ONNXRUNTIME)
def test_onnxruntime_computes_the_same_map(case: str) -> None:
    """In float32 and with open sizes, under the rule that holds the statistics constant."""
    example = CASES[case]
    emitted = onnxlrp.convert(example.model(dynamic=True, dtype=np.float32), rules="epsilon", target="seed")
    a = example.data.astype(np.float32)
    f = reference(to_float64(example.model(dynamic=True)))
    (y,) = f({"a": a.astype(np.float64)}).values()
    seed = np.random.default_rng(4).normal(size=y.shape)
    expected = reference(to_float64(emitted))({"a": a.astype(np.float64), "lrp_seed": seed})["a_relevance"]
    actual = run_onnxruntime(emitted, {"a": a, "lrp_seed": seed.astype(np.float32)})["a_relevance"]
    assert relative_l2(actual, expected) < 1e-3


@pytest.mark.parametrize(("op", "axis"), [("Softmax", -1), ("Softmax", 1), ("LogSoftmax", -1)])
def test_softmax_follows_the_explicit_rule(op: str, axis: int) -> None:
    """R_i = x_i (R_i - s_i sum_j R_j) for Softmax; for its logarithm y, with m = R / y, x_i (m_i - s_i sum_j m_j)."""
    net = Net()
    logits = net.op(op, net.input("a", (2, 3, 4)), axis=axis)
    model = net.model(net.op("Mul", logits, net.constant(vector(4, seed=3))))
    a = vector(2, 3, 4, seed=1)
    explained = explain_seeded(model, "epsilon", {"a": a})
    s = np.exp(a) / np.exp(a).sum(axis=axis, keepdims=True)
    arrived = explained.seeded
    if op == "Softmax":
        expected = a * (arrived - s * arrived.sum(axis=axis, keepdims=True))
    else:
        m = arrived / np.log(s)
        expected = a * (m - s * m.sum(axis=axis, keepdims=True))
    # The stabiliser, 1e-6, is not small beside the smallest probabilities.
    assert relative_l2(explained.relevance["a"], expected) < 1e-4


def test_softmax_before_opset_13_flattens() -> None:
    """From axis on, everything is one distribution; the lifted model says so with reshapes around it."""
    net = Net(np.float32, opset=11)
    model = net.model(_inside(net, net.op("Softmax", net.input("a", ("n", 3, 2)), axis=1)))
    a, seed = vector(2, 3, 2, seed=1).astype(np.float32), vector(2, 3, 2, seed=2).astype(np.float32)
    emitted = onnxlrp.convert(model, rules=GRADIENT, target="seed")
    flat = a.reshape(2, 6)
    s = np.exp(flat) / np.exp(flat).sum(axis=1, keepdims=True)
    m = 2 * s * seed.reshape(2, 6)
    expected = flat * s * (m - (s * m).sum(axis=1, keepdims=True))
    actual = run_onnxruntime(emitted, {"a": a, "lrp_seed": seed})["a_relevance"]
    assert relative_l2(actual, expected.reshape(a.shape)) < 1e-5


def _grouped(opset: int, scale: Array, shift: Array) -> ModelProto:
    net = Net(np.float32, opset=opset)
    a = net.input("a", ("n", 6, "h", "w"))
    constants = [net.constant(scale), net.constant(shift)]
    return net.model(net.op("GroupNormalization", a, *constants, num_groups=3, epsilon=0.1), ranks=[4])


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("rules", ["epsilon", GRADIENT])
def test_up_to_opset_20_a_group_has_one_scale(opset: int, rules: str) -> None:
    scale, shift = vector(3, seed=1), vector(3, seed=2)
    feeds = {
        "a": vector(2, 6, 2, 2, seed=3).astype(np.float32),
        "lrp_seed": vector(2, 6, 2, 2, seed=4).astype(np.float32),
    }
    models = (_grouped(opset, scale, shift), _grouped(21, scale.repeat(2), shift.repeat(2)))
    old, new = (run_onnxruntime(onnxlrp.convert(m, rules=rules, target="seed"), feeds)["a_relevance"] for m in models)
    assert relative_l2(old, new) < 1e-5
