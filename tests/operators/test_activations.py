"""Activations in unusual attributes, and those whose parameters come from the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import GRADIENT, Example, expect_derivative, expect_derivatives
from tests.support.case import Case
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

SHAPE = (2, 3, 4)


def alone(op: str, opset: int = 21, **attributes: Any) -> Example:
    def build(net: Net, a: str) -> str:
        # Not as the last operator, where a sigmoid would be taken for a head and stepped over.
        return net.op("Neg", net.op(op, a, **attributes))

    return Example(SHAPE, build, 3, opset=opset)


ATTRIBUTES: Mapping[str, Example] = {
    "shrink": alone("Shrink", lambd=0.71, bias=0.2),
    "shrink-hard": alone("Shrink", lambd=1.13),
    "swish": alone("Swish", opset=24, alpha=1.7),
    "elu": alone("Elu", alpha=2.5),
    "selu": alone("Selu", alpha=1.2, gamma=0.8),
    "leakyrelu-negative": alone("LeakyRelu", alpha=-0.4),
    "thresholdedrelu-below-zero": alone("ThresholdedRelu", alpha=-0.61),
    "hardsigmoid": alone("HardSigmoid", alpha=0.7, beta=0.12),
    "gelu-tanh": alone("Gelu", approximate="tanh"),
    "sigmoid": alone("Sigmoid"),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_derivatives(case: str) -> None:
    expect_derivative(ATTRIBUTES[case])


#: Operators that pass relevance on by f(x) / x in a form of its own.
QUOTIENTS: Mapping[str, Mapping[str, Any]] = {
    "Gelu": {},
    "LeakyRelu": {"alpha": -0.4},
    "HardSwish": {},
    "Mish": {},
    "Swish": {"alpha": 1.7},
}


@pytest.mark.parametrize("op", QUOTIENTS)
def test_relevance_passes_an_activation_unchanged(op: str) -> None:
    """R = y m of the layer behind becomes R = x (y / x) m for the layer before, without a division in the graph."""
    net = Net(np.float64, opset=24)
    a, b = distinct(3, 5) / 2, distinct(5, 2, seed=1)
    z = net.op("MatMul", net.input("x", [2, 3]), net.constant(a))
    y = net.op(op, z, **QUOTIENTS[op])
    model = net.model(net.op("MatMul", y, net.constant(b)), ranks=[2])
    x, seed = distinct(2, 3, seed=2), distinct(2, 2, seed=3)
    emitted = to_float64(onnxlrp.convert(model, rules="attnlrp", target="seed"))
    inner = {name: run_reference(net.model(name, ranks=[2]), {"x": x})[name] for name in (z, y)}
    expected = x * ((inner[y] / inner[z] * (seed @ b.T)) @ a.T)
    assert relative_l2(run_reference(emitted, {"x": x, "lrp_seed": seed})["x_relevance"], expected) < 1e-12
    assert "Div" not in {node.op_type for node in emitted.graph.node}


def _clipped(net: Net, a: str, b: str) -> str:
    low = net.op("ReduceMin", b, keepdims=0)
    high = net.op("ReduceMax", b, keepdims=0)
    scaled = net.op("Mul", a, net.constant(3.0))
    return net.op("Clip", scaled, low, high)


FROM_DATA: Mapping[str, Case] = {
    "prelu": Case(((2, 3, 4), (3, 1)), lambda net, a, b: net.op("PRelu", a, b), 3),
    "prelu-of-one-slope": Case(((2, 3), (1,)), lambda net, a, b: net.op("PRelu", a, b), 2),
    "clip": Case(((2, 3), (3,)), _clipped, 2),
    "clip-below": Case(((2, 3), ()), lambda net, a, b: net.op("Clip", a, net.op("Sub", b, net.constant(0.71))), 2),
    "clip-above": Case(((2, 3), ()), lambda net, a, b: net.op("Clip", a, "", net.op("Mul", b, b)), 2),
    "swiglu": Case(((2, 3), (2, 3)), lambda net, a, b: net.op("SwiGLU", a, b, alpha=1.3), 2, opset=28),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", FROM_DATA)
def test_derivatives_by_parameters(case: str, dynamic: bool) -> None:
    expect_derivatives(FROM_DATA[case], dynamic=dynamic)


def test_clip_by_bounds_from_data_gives_to_the_bound_that_holds() -> None:
    a, b = np.array([[-5.0, 0.5, 7.0]]), np.array([-1.0, 2.0, 1.0])
    net = Net()
    bounds = net.input("b", (3,))
    low, high = net.op("ReduceMin", bounds, keepdims=0), net.op("ReduceMax", bounds, keepdims=0)
    model = net.model(net.op("Clip", net.input("a", (1, 3)), low, high))
    explained = explain_seeded(model, "epsilon", {"a": a, "b": b}, seed=np.ones((1, 3)))
    np.testing.assert_allclose(explained.relevance["a"], [[0.0, 0.5, 0.0]])
    np.testing.assert_allclose(explained.relevance["b"], [-1.0, 2.0, 0.0])


def test_half_of_swiglu_goes_to_each_factor_where_a_table_says_so(tmp_path: Any) -> None:
    """silu(a) b with rule half for products: b gets half, and silu(a) the other half, which goes on to a."""
    case = FROM_DATA["swiglu"]
    table = '[[rule]]\nkind = "product"\nrule = "half"\n[[rule]]\nkind = "activation"\nrule = "pass"\n'
    explained = explain_seeded(case.model(), table, case.feeds(), tmp_path)
    assert relative_l2(explained.relevance["b"], explained.seeded / 2) < 1e-12
    assert relative_l2(explained.relevance["a"], explained.seeded / 2) < 1e-12


@pytest.mark.parametrize("op", ["Gelu", "Gelu-tanh", "Mish", "HardSwish", "Softplus", "Softsign", "Elu", "Erf"])
def test_slopes_far_out_are_finite(op: str) -> None:
    """In float32, where powers of x overflow and exponentials vanish."""
    name, *form = op.split("-")
    net = Net(np.float32)
    net_output = net.op(name, net.input("a", (6,)), **({"approximate": form[0]} if form else {}))
    emitted = onnxlrp.convert(net.model(net_output), rules=GRADIENT, target="seed")
    a = np.array([0.0, 1e-30, 1e4, -1e4, 1e30, -1e30], np.float32)
    relevance = run_onnxruntime(emitted, {"a": a, "lrp_seed": np.ones_like(a)})["a_relevance"]
    assert np.isfinite(relevance).all()
    if name in ("Gelu", "Mish", "HardSwish", "Softplus"):
        np.testing.assert_allclose(relevance[2:], [1e4, 0.0, 1e30, 0.0], rtol=1e-6)


def test_slope_of_prelu_that_is_a_constant() -> None:
    slope = distinct(3, 1, seed=4)
    expect_derivative(Example((2, 3, 4), lambda net, a: net.op("PRelu", a, net.constant(slope)), 3))
