"""Every rule on every linear operator equals its matrix form, in float64, over the whole map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests.support.evaluate import reference, relative_l2
from tests.support.explained import explain_seeded
from tests.support.linear_cases import CONVOLUTIONS, DENSE, MERGED, Case
from tests.support.replicas import Dense, dense, propagate

TOLERANCE = 1e-9
CASES: Mapping[str, Case] = {**CONVOLUTIONS, **DENSE, **MERGED}

#: label -> (rule, parameters)
RULES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "z": ("z", {}),
    "z-no-bias": ("z", {"bias": "ignore"}),
    "epsilon": ("epsilon", {}),
    "epsilon-large": ("epsilon", {"epsilon": 0.25}),
    "epsilon-clip": ("epsilon", {"epsilon": 0.5, "stabiliser": "clip"}),
    "epsilon-plain": ("epsilon", {"epsilon": 0.05, "stabiliser": "plain"}),
    "epsilon-norm": ("epsilon", {"epsilon": 0.2, "stabiliser": "norm"}),
    "epsilon-no-bias": ("epsilon", {"epsilon": 0.1, "bias": "ignore"}),
    "norm": ("norm", {"epsilon": 0.01}),
    "z-plus": ("z-plus", {}),
    "z-plus-no-bias": ("z-plus", {"bias": "ignore", "epsilon": 0.1}),
    "z-plus-norm": ("z-plus", {"epsilon": 0.1, "stabiliser": "norm"}),
    "alpha2-beta1": ("alpha-beta", {"alpha": 2.0, "beta": 1.0}),
    "alpha1-beta0": ("alpha-beta", {"alpha": 1.0, "beta": 0.0}),
    "alpha3-beta2-clip": ("alpha-beta", {"alpha": 3.0, "beta": 2.0, "epsilon": 0.3, "stabiliser": "clip"}),
    "alpha-beta-no-bias": ("alpha-beta", {"alpha": 2.0, "beta": 1.0, "bias": "ignore"}),
    "gamma": ("gamma", {"gamma": 0.25}),
    "gamma-large-norm": ("gamma", {"gamma": 10.0, "epsilon": 0.1, "stabiliser": "norm"}),
    "gamma-no-bias": ("gamma", {"gamma": 0.5, "bias": "ignore"}),
    "z-box": ("z-box", {"low": -3.0, "high": 2.5}),
    "z-box-positive": ("z-box", {"low": 0.0, "high": 4.0, "epsilon": 0.01}),
    "w-square": ("w-square", {}),
    "w-square-no-bias": ("w-square", {"bias": "ignore", "epsilon": 0.1, "stabiliser": "norm"}),
    "flat": ("flat", {}),
    "flat-norm": ("flat", {"epsilon": 0.1, "stabiliser": "norm"}),
    "excitation": ("excitation", {"epsilon": 1e-3}),
    "gradient": ("gradient", {}),
}
#: Every operator is tried with these, and these operators with every rule.
COMMON_RULES = ("epsilon", "epsilon-no-bias", "z-plus", "alpha2-beta1", "gamma", "z-box", "w-square", "flat")
COMMON_CASES = (
    *("conv2d", "conv2d-asymmetric", "depthwise", "depthwise-multiplied-strided", "transposed2d-grouped"),
    *("gemm-scaled", "matmul-sequence", "matmul-left", "conv-bn", "bn-padded-conv"),
)
PAIRS = [
    (case, rule, ("static", "batch", "all")[(i + j) % 3])
    for i, case in enumerate(CASES)
    for j, rule in enumerate(RULES)
    if case in COMMON_CASES or rule in COMMON_RULES
]

_operators: dict[str, Dense] = {}


def table(rule: str, parameters: Mapping[str, Any]) -> str:
    """A rule table with this rule for every linear layer; activations pass."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in parameters.items()]
    return "\n".join(
        [
            "[[rule]]",
            'kind = "linear"',
            f'rule = "{rule}"',
            *lines,
            "",
            "[[rule]]",
            'kind = "activation"',
            'rule = "pass"',
        ]
    )


def operator(name: str) -> Dense:
    """The matrix of a case, found by applying it to unit vectors; it is asked for often."""
    if name not in _operators:
        case = CASES[name]
        model = case.model()
        run, output = reference(model), model.graph.output[0].name
        _operators[name] = dense(lambda x: run({"x": x})[output], case.shape)
    return _operators[name]


def data(name: str) -> np.ndarray:
    return np.random.default_rng(len(name)).normal(size=CASES[name].shape)


@pytest.mark.parametrize(("case", "rule", "dynamic"), PAIRS)
def test_signed_input(case: str, rule: str, dynamic: str, tmp_path: Path) -> None:
    name, parameters = RULES[rule]
    x = data(case)
    explained = explain_seeded(CASES[case].model(dynamic=dynamic), table(name, parameters), {"x": x}, tmp_path)
    expected = propagate(operator(case), name, parameters, x, explained.seeded)
    assert relative_l2(explained.relevance["x"], expected) < TOLERANCE


@pytest.mark.parametrize(("case", "rule", "dynamic"), PAIRS)
def test_input_known_to_be_non_negative(case: str, rule: str, dynamic: str, tmp_path: Path) -> None:
    """Behind a Relu the converter knows the sign and leaves terms out; the Relu itself passes relevance."""
    name, parameters = RULES[rule]
    x = data(case)
    model = CASES[case].model(relu=True, dynamic=dynamic)
    explained = explain_seeded(model, table(name, parameters), {"x": x}, tmp_path)
    expected = propagate(operator(case), name, parameters, np.maximum(x, 0.0), explained.seeded)
    assert relative_l2(explained.relevance["x"], expected) < TOLERANCE


@pytest.mark.parametrize(
    "case",
    ["conv2d", "conv1d", "depthwise-multiplied-strided", "transposed2d-grouped", "bn-padded-conv", "gemm"],
)
@pytest.mark.parametrize("dynamic", ["static", "all"])
def test_bounds_per_channel(case: str, dynamic: str, tmp_path: Path) -> None:
    x = data(case)
    low, high = (np.linspace(*ends, x.shape[1]) for ends in ((-3.0, -2.0), (2.0, 3.5)))
    bounds = table("z-box", {"low": low.tolist(), "high": high.tolist()})
    explained = explain_seeded(CASES[case].model(dynamic=dynamic), bounds, {"x": x}, tmp_path)
    planes = {key: v.reshape(-1, *[1] * (x.ndim - 2)) for key, v in (("low", low), ("high", high))}
    expected = propagate(operator(case), "z-box", planes, x, explained.seeded)
    assert relative_l2(explained.relevance["x"], expected) < TOLERANCE


def test_bounds_from_initializers(tmp_path: Path) -> None:
    case = "conv2d"
    x = data(case)
    low, high = x[:1] - 0.5, x.max(axis=0, keepdims=True) + 0.25
    model = CASES[case].model(dynamic="batch")
    model.graph.initializer.extend([numpy_helper.from_array(low, "low"), numpy_helper.from_array(high, "high")])
    explained = explain_seeded(model, table("z-box", {"low": "low", "high": "high"}), {"x": x}, tmp_path)
    expected = propagate(operator(case), "z-box", {"low": low, "high": high}, x, explained.seeded)
    assert relative_l2(explained.relevance["x"], expected) < TOLERANCE


def test_an_output_of_exactly_zero_gets_no_relevance_under_z(tmp_path: Path) -> None:
    """LRP-0 divides by the output; where that is zero nothing is distributed and nothing infinite appears."""
    model = CASES["conv2d-1x1-strided"].model()
    x = np.zeros(CASES["conv2d-1x1-strided"].shape)
    explained = explain_seeded(model, table("z", {}), {"x": x}, tmp_path)
    np.testing.assert_array_equal(explained.relevance["x"], np.zeros_like(x))
