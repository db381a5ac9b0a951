"""Operators beside the weighted linear ones: whole maps in float64 against independent formulas.

Sums and averages are linear, so the matrix form holds for them too, over all their inputs together; movement
and max-type operators hand each relevance to the element it came from; normalisations are linear once their
statistics are frozen. Under `gradient-x-input` all of them must equal the input times a finite difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import onnxlrp
from onnxlrp.tables import parse_table
from tests.support.elementwise_cases import ACTIVATIONS, GATES, SCALINGS
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import Explained, explain_seeded
from tests.support.gradients import central_gradient, jacobian
from tests.support.models import Net
from tests.support.moving_cases import MOVEMENTS, WINNERS
from tests.support.other_cases import ALL
from tests.support.proportional_cases import AVERAGES, NORMALIZATIONS, SIGNED_AVERAGES, SUMS
from tests.support.replicas import Dense, propagate

Array = np.ndarray
TOLERANCE = 1e-9
#: Celu is defined for float32 alone; everything else is built in float64.
FLOAT32 = ("celu",)


def build(case: str, *, dynamic: bool = False) -> ModelProto:
    return ALL[case].model(dynamic=dynamic, dtype=np.float32 if case in FLOAT32 else np.float64)


def table(entries: Mapping[str, tuple[str, Mapping[str, Any]]]) -> str:
    """A rule table from kind to (rule, parameters)."""
    lines = []
    for kind, (rule, parameters) in entries.items():
        lines += ["[[rule]]", f'kind = "{kind}"', f'rule = "{rule}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in parameters.items()]
    return "\n".join(lines)


def joined(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.ravel(arrays[name]) for name in sorted(arrays)])


def function(case: str) -> Callable[[Mapping[str, Array]], Array]:
    """The network of a case in float64, feeds to output."""
    model = to_float64(build(case))
    run, output = reference(model), model.graph.output[0].name
    return lambda feeds: run(feeds)[output]


def explain(case: str, rules: str, folder: Path | None, dynamic: bool = False) -> Explained:
    return explain_seeded(build(case, dynamic=dynamic), rules, ALL[case].feeds(), folder)


def affine(case: str) -> Dense:
    """The matrix of a case that is linear in all its inputs together."""
    f, feeds = function(case), ALL[case].feeds()
    zeros = {name: np.zeros_like(x) for name, x in feeds.items()}
    bias = f(zeros)
    columns = []
    for name in sorted(feeds):
        for i in range(feeds[name].size):
            unit = np.zeros_like(feeds[name])
            unit.flat[i] = 1.0
            columns.append((f({**zeros, name: unit}) - bias).ravel())
    weight = np.stack(columns, axis=1)
    return Dense(weight, bias.ravel(), (weight.shape[1],), bias.shape)


# -- gradient times input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", ALL)
def test_gradient_x_input_is_the_input_times_a_finite_difference(case: str, dynamic: bool) -> None:
    explained = explain(case, "gradient-x-input", None, dynamic)
    f, feeds = function(case), ALL[case].feeds()
    for name, x in feeds.items():
        gradient = central_gradient(lambda at: float((explained.seed * f(at)).sum()), feeds, name)
        assert relative_l2(explained.relevance[name], x * gradient) < 1e-7


# -- sums and averages -------------------------------------------------------------------------------------

PROPORTIONAL = {
    "z": ("z", {}),
    "epsilon": ("epsilon", {}),
    "norm": ("norm", {"epsilon": 0.1}),
    "norm-clip": ("norm", {"epsilon": 0.3, "stabiliser": "clip"}),
    "epsilon-norm": ("epsilon", {"epsilon": 0.1, "stabiliser": "norm"}),
    "epsilon-no-bias": ("epsilon", {"bias": "ignore", "epsilon": 0.05}),
}
BY_PARTS = {
    "z-plus": ("z-plus", {}),
    "alpha2-beta1": ("alpha-beta", {"alpha": 2.0, "beta": 1.0}),
    "gamma": ("gamma", {"gamma": 0.25}),
    "excitation": ("excitation", {}),
}


@pytest.mark.parametrize("rule", [*PROPORTIONAL, *BY_PARTS])
@pytest.mark.parametrize("case", [*SUMS, *AVERAGES])
def test_sums_and_averages(case: str, rule: str, tmp_path: Path) -> None:
    name, parameters = {**PROPORTIONAL, **BY_PARTS}[rule]
    entry = (name, parameters)
    explained = explain(case, table({"sum": entry, "average": entry}), tmp_path, dynamic=len(rule) % 2 == 0)
    x = joined(ALL[case].feeds())
    expected = propagate(affine(case), name, parameters, x, explained.seeded)
    assert relative_l2(joined(explained.relevance), expected) < TOLERANCE


@pytest.mark.parametrize("rule", PROPORTIONAL)
@pytest.mark.parametrize("case", SIGNED_AVERAGES)
def test_interpolation_with_negative_coefficients(case: str, rule: str, tmp_path: Path) -> None:
    name, parameters = PROPORTIONAL[rule]
    explained = explain(case, table({"average": (name, parameters)}), tmp_path)
    x = joined(ALL[case].feeds())
    expected = propagate(affine(case), name, parameters, x, explained.seeded)
    assert relative_l2(explained.relevance["a"].ravel(), expected) < TOLERANCE


# -- relevance follows the element it came from ------------------------------------------------------------


@pytest.mark.parametrize("preset", ["epsilon-plus", "gradient-x-input"])
@pytest.mark.parametrize("case", [*MOVEMENTS, *WINNERS])
def test_relevance_goes_where_the_value_came_from(case: str, preset: str) -> None:
    explained = explain(case, preset, None, dynamic=preset == "epsilon-plus")
    feeds = ALL[case].feeds()
    origin = np.round(jacobian(function(case), feeds, sorted(feeds)))
    assert set(np.unique(origin)) <= {0.0, 1.0}
    assert relative_l2(joined(explained.relevance), origin.T @ explained.seeded.ravel()) < TOLERANCE


def test_of_equal_values_the_first_one_wins() -> None:
    net = Net(np.float64)
    model = net.model(net.op("MaxPool", net.input("a", (1, 1, 2, 4)), kernel_shape=[2, 2], strides=[2, 2]))
    a = np.array([[[[1.0, 3.0, 2.0, 2.0], [3.0, 3.0, 2.0, 2.0]]]])
    explained = explain_seeded(model, "epsilon-plus", {"a": a})
    expected = np.zeros_like(a)
    expected[0, 0, 0, 1], expected[0, 0, 0, 2] = explained.seeded.ravel()
    np.testing.assert_array_equal(explained.relevance["a"], expected)


# -- functions of one element ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_activations_pass_relevance(case: str) -> None:
    explained = explain(case, "epsilon", None)
    assert relative_l2(explained.relevance["a"], explained.seeded) < TOLERANCE


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", SCALINGS)
def test_scaling_by_a_constant_passes_relevance(case: str, dynamic: bool) -> None:
    """Each output is a multiple of one input element, which receives the relevance of all its multiples."""
    explained = explain(case, "epsilon", None, dynamic)
    feeds = ALL[case].feeds()
    origin = np.abs(jacobian(function(case), feeds, ["a"])) > 1e-6
    assert relative_l2(explained.relevance["a"].ravel(), origin.T @ explained.seeded.ravel()) < TOLERANCE


# -- products ----------------------------------------------------------------------------------------------


def share(relevance: Array, like: Array) -> Array:
    """Relevance summed over the axes along which `like` was broadcast."""
    extra = tuple(range(relevance.ndim - like.ndim))
    summed = relevance.sum(axis=extra)
    stretched = tuple(i for i, size in enumerate(like.shape) if size == 1)
    return summed.sum(axis=stretched, keepdims=True)


@pytest.mark.parametrize("case", GATES)
def test_the_signal_takes_all_from_a_gate(case: str, tmp_path: Path) -> None:
    rules = table({"product": ("signal", {}), "activation": ("pass", {})})
    explained, feeds = explain(case, rules, tmp_path), ALL[case].feeds()
    assert relative_l2(explained.relevance["a"], share(explained.seeded, feeds["a"])) < TOLERANCE
    np.testing.assert_array_equal(explained.relevance["b"], np.zeros_like(feeds["b"]))


@pytest.mark.parametrize("case", [*GATES, "mul", "mul-broadcast"])
def test_half_to_each_factor(case: str, tmp_path: Path) -> None:
    rules = table({"product": ("half", {}), "activation": ("pass", {})})
    explained, feeds = explain(case, rules, tmp_path), ALL[case].feeds()
    for name, x in feeds.items():
        assert relative_l2(explained.relevance[name], share(explained.seeded / 2, x)) < TOLERANCE


@pytest.mark.parametrize("rule", ["half", "signal"])
def test_a_square_keeps_all_its_relevance(rule: str, tmp_path: Path) -> None:
    explained = explain("mul-itself", table({"product": (rule, {})}), tmp_path)
    assert relative_l2(explained.relevance["a"], explained.seeded) < TOLERANCE


@pytest.mark.parametrize("case", ["div", "div-broadcast"])
def test_the_numerator_takes_all_from_a_divisor(case: str, tmp_path: Path) -> None:
    explained, feeds = explain(case, table({"product": ("signal", {})}), tmp_path), ALL[case].feeds()
    assert relative_l2(explained.relevance["a"], share(explained.seeded, feeds["a"])) < TOLERANCE
    np.testing.assert_array_equal(explained.relevance["b"], np.zeros_like(feeds["b"]))


@pytest.mark.parametrize("preset", ["epsilon", "epsilon-plus", "default"])
def test_squeeze_and_excite_is_a_gate(preset: str) -> None:
    explained = explain("squeeze-and-excite", preset, None, dynamic=True)
    assert relative_l2(explained.relevance["a"], explained.seeded) < TOLERANCE


# -- normalisations, their statistics frozen ---------------------------------------------------------------


#: Attributes are float32 numbers.
SMALL, LARGE = float(np.float32(1e-5)), float(np.float32(1e-3))


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> Callable[[Array], Array]:
    """v -> (v - mean v) / s, where s is the standard deviation of x and stays what it is."""
    scale = np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
    return lambda v: (v - v.mean(axis=axes, keepdims=True)) / scale


def _in_groups(x: Array, groups: int, epsilon: float) -> Callable[[Array], Array]:
    shape = (x.shape[0], groups, -1)
    inner = _standardised(x.reshape(shape), (2,), epsilon)
    return lambda v: inner(v.reshape(shape)).reshape(x.shape)


def _response(x: Array, size: int, alpha: float, beta: float, bias: float) -> Callable[[Array], Array]:
    total = np.zeros_like(x)
    for c in range(x.shape[1]):
        first, last = c - (size - 1) // 2, c + -(-(size - 1) // 2)
        for other in range(max(first, 0), min(last, x.shape[1] - 1) + 1):
            total[:, c] += x[:, other] ** 2
    scale = (bias + alpha / size * total) ** beta
    return lambda v: v / scale


def _channel(values: Array, rank: int) -> Array:
    return values.reshape(-1, *[1] * (rank - 2))


def _constants(case: str) -> list[Array]:
    return [numpy_helper.to_array(t) for t in build(case).graph.initializer]


def _frozen(case: str, x: Array) -> tuple[Callable[[Array], Array], Array]:
    """The linear map of a normalisation around x, and its bias."""
    zero = np.zeros(())
    if case.startswith("instance"):
        scale, shift = (_channel(c, x.ndim) for c in _constants(case))
        inner = _standardised(x, tuple(range(2, x.ndim)), SMALL if case.endswith("1d") else LARGE)
        return lambda v: scale * inner(v), shift
    if case == "groupnormalization":
        scale, shift = (_channel(c, x.ndim) for c in _constants(case))
        groups = _in_groups(x, 2, LARGE)
        return lambda v: scale * groups(v), shift
    if case == "layernormalization":
        scale, shift = _constants(case)
        last = _standardised(x, (2,), LARGE)
        return lambda v: scale * last(v), shift
    if case == "layernormalization-without-bias":
        (scale,) = _constants(case)
        both = _standardised(x, (1, 2), SMALL)
        return lambda v: scale * both(v), zero
    if case == "lrn":
        return _response(x, 3, 0.5, 0.75, 1.5), zero
    if case == "lrn-wide":
        return _response(x, 7, float(np.float32(0.3)), 0.75, 1.0), zero
    if case == "batchnormalization-alone":
        scale, shift, mean, variance = (_channel(c, x.ndim) for c in _constants(case))
        factor = scale / np.sqrt(variance + SMALL)
        return lambda v: factor * v, shift - factor * mean
    axes, keep = ((1,), True) if case == "reducel2" else ((1, 2), False)
    norm = np.sqrt((x**2).sum(axis=axes, keepdims=True))
    return lambda v: (v * x / norm).sum(axis=axes, keepdims=keep), zero


@pytest.mark.parametrize("rule", PROPORTIONAL)
@pytest.mark.parametrize("case", NORMALIZATIONS)
def test_normalisations(case: str, rule: str, tmp_path: Path) -> None:
    name, parameters = PROPORTIONAL[rule]
    entries = dict.fromkeys(("average", "affine", "normalization"), (name, parameters))
    explained = explain(case, table(entries), tmp_path, dynamic=len(rule) % 2 == 0)
    x = ALL[case].feeds()["a"]
    linear, bias = _frozen(case, x)
    y = linear(x) + bias
    assert relative_l2(y, explained.y) < 1e-12
    columns = [linear(unit.reshape(x.shape)).ravel() for unit in np.eye(x.size)]
    op = Dense(np.stack(columns, axis=1), np.broadcast_to(bias, y.shape).ravel(), x.shape, y.shape)
    expected = propagate(op, name, parameters, x, explained.seeded)
    assert relative_l2(explained.relevance["a"], expected) < TOLERANCE


@pytest.mark.parametrize("case", ["instancenormalization", "layernormalization", "lrn", "batchnormalization-alone"])
def test_normalisations_can_pass_relevance(case: str, tmp_path: Path) -> None:
    entries = {kind: ("pass", {}) for kind in ("affine", "normalization")}
    explained = explain(case, table(entries), tmp_path)
    assert relative_l2(explained.relevance["a"], explained.seeded) < TOLERANCE


# -- the product itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALL)
def test_the_emitted_model_runs_in_onnxruntime(case: str) -> None:
    """In float32 with dynamic shapes: the same map as in float64, up to rounding."""
    model = ALL[case].model(dynamic=True, dtype=np.float32)
    emitted = onnxlrp.convert(model, rules="epsilon", target="seed")
    feeds = {name: x.astype(np.float32) for name, x in ALL[case].feeds().items()}
    y = run_onnxruntime(model, feeds)[model.graph.output[0].name]
    feeds["lrp_seed"] = np.random.default_rng(3).normal(size=y.shape).astype(y.dtype)
    expected = reference(to_float64(emitted))({name: x.astype(np.float64) for name, x in feeds.items()})
    for optimised in (False, True):
        actual = run_onnxruntime(emitted, feeds, optimised=optimised)
        for name, value in expected.items():
            assert actual[name].dtype == (np.float32 if name.endswith("_relevance") else y.dtype)
            assert actual[name].shape == value.shape
            assert relative_l2(actual[name], value) < 1e-3


def test_z_plus_is_exact_where_positive_contributions_nearly_vanish() -> None:
    """Beside -1 a positive contribution of 1e-5 must not drown in rounding, in float32 either."""
    x = np.array([[1.0, -1e-5]], np.float32)
    net = Net(np.float32)
    weight = np.array([[-1.0], [-1.0]])
    layer = net.op("MatMul", net.input("x", [1, 2]), net.constant(weight))
    model = net.model(net.op("Mul", layer, net.constant(np.array(3.0))), ranks=[2])
    rules = parse_table(table({"linear": ("z-plus", {})}), name="z-plus", source="z-plus")
    emitted = onnxlrp.convert(model, rules=rules, target="seed")
    found = run_onnxruntime(emitted, {"x": x, "lrp_seed": np.ones((1, 1), np.float32)})["x_relevance"]
    z = float((x @ weight)[0, 0]) * 3.0
    positive = 1e-5 * 3.0
    np.testing.assert_allclose(found, [[0.0, positive / (positive + 1e-6) * z]], rtol=1e-4)
