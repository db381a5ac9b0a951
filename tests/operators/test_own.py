"""Activations and normalisations written in primitive nodes are treated as the one function they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import onnxlrp
from tests.support.evaluate import relative_l2, run_reference, to_float64
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray
Build = Callable[[Net, str], str]


def _c(net: Net, value: float) -> str:
    return net.constant(np.array(value))


def _silu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x))


def _gelu(net: Net, x: str) -> str:
    erf = net.op("Erf", net.op("Div", x, _c(net, np.sqrt(2.0))))
    return net.op("Mul", net.op("Mul", x, net.op("Add", erf, _c(net, 1.0))), _c(net, 0.5))


def _gelu_half_first(net: Net, x: str) -> str:
    erf = net.op("Erf", net.op("Mul", x, _c(net, np.sqrt(0.5))))
    return net.op("Mul", net.op("Mul", x, _c(net, 0.5)), net.op("Add", _c(net, 1.0), erf))


def _gelu_tanh(net: Net, x: str) -> str:
    cube = net.op("Mul", net.op("Pow", x, _c(net, 3.0)), _c(net, 0.044715))
    t = net.op("Tanh", net.op("Mul", net.op("Add", x, cube), _c(net, np.sqrt(2 / np.pi))))
    return net.op("Mul", net.op("Mul", x, _c(net, 0.5)), net.op("Add", t, _c(net, 1.0)))


def _gelu_quick(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", net.op("Mul", x, _c(net, 1.702))))


def _mish(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Tanh", net.op("Softplus", x)))


def _hard_swish(net: Net, x: str) -> str:
    clipped = net.op("Clip", net.op("Add", x, _c(net, 3.0)), _c(net, 0.0), _c(net, 6.0))
    return net.op("Mul", x, net.op("Div", clipped, _c(net, 6.0)))


ACTIVATIONS: Mapping[str, Build] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu-half-first": _gelu_half_first,
    "gelu-tanh": _gelu_tanh,
    "gelu-quick": _gelu_quick,
    "mish": _mish,
    "hard-swish": _hard_swish,
}


def _rms(inverse: str) -> Build:
    def build(net: Net, x: str) -> str:
        mean = net.op("ReduceMean", net.op("Pow", x, _c(net, 2.0)), net.constant(np.array([-1])))
        norm = net.op("Add", mean, _c(net, 1e-5))
        if inverse == "power":
            return net.op("Mul", x, net.op("Pow", norm, _c(net, -0.5)))
        root = net.op("Sqrt", norm)
        if inverse == "divided":
            return net.op("Div", x, root)
        one = net.op("Reciprocal", root) if inverse == "reciprocal" else net.op("Div", _c(net, 1.0), root)
        return net.op("Mul", one, x)

    return build


NORMS: Mapping[str, Build] = {n: _rms(n) for n in ("reciprocal", "one-over", "power", "divided")}


def _relevance(build: Build, x: Array, seed: Array, rules: str | Path) -> Array:
    net = Net(np.float64)
    model = net.model(net.op("Identity", build(net, net.input("x", x.shape))), ranks=[x.ndim])
    emitted = onnxlrp.convert(model, rules=rules, target="seed")
    return run_reference(to_float64(emitted), {"x": x, "lrp_seed": seed})["x_relevance"]


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", "epsilon"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_relevance_passes_through_an_activation(name: str, rules: str) -> None:
    x, seed = distinct(2, 5, seed=1), distinct(2, 5, seed=2)
    net = Net(np.float64)
    y = run_reference(net.model(ACTIVATIONS[name](net, net.input("x", x.shape)), ranks=[2]), {"x": x})
    assert relative_l2(_relevance(ACTIVATIONS[name], x, seed, rules), seed * next(iter(y.values()))) < 1e-12


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize("name", NORMS)
def test_the_norm_only_scales(name: str, rules: str) -> None:
    x, seed = distinct(2, 5, seed=1), distinct(2, 5, seed=2)
    norm = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    assert relative_l2(_relevance(NORMS[name], x, seed, rules), seed * x / norm) < 1e-12


def _keras(average: str) -> Build:
    """LayerNorm as Keras and TensorFlow write it: x n + (beta - mean n), n = gamma / sqrt(var + epsilon)."""

    def build(net: Net, x: str) -> str:
        def mean(t: str) -> str:
            if average == "ReduceMean":
                return net.op("ReduceMean", t, net.constant(np.array([-1])))
            return net.op("GlobalAveragePool", t)

        centre = mean(x)
        apart = net.op("Sub", x, centre)
        variance = mean(net.op("Mul", apart, apart))
        inverse = net.op("Reciprocal", net.op("Sqrt", net.op("Add", variance, _c(net, 1e-5))))
        scale = net.op("Mul", inverse, net.constant(GAMMA))
        shift = net.op("Sub", net.constant(BETA), net.op("Mul", centre, scale))
        return net.op("Add", net.op("Mul", x, scale), shift)

    return build


GAMMA, BETA = distinct(5, seed=3), distinct(5, seed=4)


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize("average", ["ReduceMean", "GlobalAveragePool"])
def test_a_norm_that_is_multiplied_out_has_constant_statistics_too(average: str, rules: str) -> None:
    x, seed = distinct(2, 3, 5, seed=1), distinct(2, 3, 5, seed=2)
    scaled = seed * GAMMA / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    expected = x * (scaled - scaled.mean(-1, keepdims=True))
    assert relative_l2(_relevance(_keras(average), x, seed, rules), expected) < 1e-12
    net = Net(np.float64)
    plan = onnxlrp.plan(net.model(_keras(average)(net, net.input("x", x.shape)), ranks=[3]), rules=rules)
    assert dict(plan.blocks) == {"LayerNorm": 1}


def test_a_gate_from_other_data_is_a_factor_of_its_own() -> None:
    """Half of the relevance goes through the gate: x * sigmoid(2 x reversed)."""

    def build(net: Net, x: str) -> str:
        swapped = net.op("Gather", x, net.constant(np.array([1, 0])), axis=1)
        return net.op("Mul", x, net.op("Sigmoid", swapped))

    x, seed = distinct(3, 2, seed=1), distinct(3, 2, seed=2)
    y = x / (1 + np.exp(-x[:, ::-1]))
    expected = seed * y / 2 + (seed * y / 2)[:, ::-1]
    assert relative_l2(_relevance(build, x, seed, "attnlrp"), expected) < 1e-12


def test_a_square_is_shared_by_both_of_its_factors() -> None:
    x, seed = distinct(2, 3, seed=1), distinct(2, 3, seed=2)
    found = _relevance(lambda net, x: net.op("Mul", x, x), x, seed, "attnlrp")
    assert relative_l2(found, seed * x * x) < 1e-12


def test_the_plan_says_what_was_recognised() -> None:
    net = Net(np.float64)
    model = net.model(net.op("Identity", _silu(net, net.input("x", [2, 3]))), ranks=[2])
    (step,) = [s for s in onnxlrp.plan(model, rules="attnlrp").steps if s.operator == "Mul"]
    assert "activation written out" in step.reason
