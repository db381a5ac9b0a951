"""Deep Taylor decomposition (Montavon et al. 2017): maps without negative relevance that sum to the output.

The theory holds for Relu networks whose biases are not positive, and for positive outputs. W-square at the input is for
unbounded inputs, z-box for bounded ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxlrp.tables import RuleTable, parse_table, preset_text
from tests.support.chains import DEFAULTS, FLAT, RELU, Layers, Op, built, emitted_map, replica
from tests.support.evaluate import relative_l2

Array = np.ndarray
LOW, HIGH = -1.5, 2.0
SHAPE = (2, 5, 5)
INPUTS = [np.random.default_rng(seed).uniform(LOW, HIGH, SHAPE) for seed in range(6)]


def with_bias(op: Op, kind: str) -> Op:
    """The same layer with biases that are zero, not positive, or of both signs."""
    weight, bias = op.constants
    return replace(op, constants=(weight, {"zero": 0.0 * bias, "not positive": -np.abs(bias), "any": bias}[kind]))


def runs(bias: str) -> list[tuple[Op, ...]]:
    first, second, head = LAYERS
    return [(with_bias(first, bias),), (RELU,), (with_bias(second, bias),), (RELU,), (FLAT, with_bias(head, bias))]


RANDOM = Layers(11)
LAYERS = (RANDOM.conv(2, 3, 1), RANDOM.conv(3, 4), RANDOM.gemm(36, 4))


def table(first: str) -> RuleTable:
    """The preset, or the preset with another rule for the first layer."""
    text = preset_text("deep-taylor")
    lines = {
        "w-square": 'rule = "w-square"',
        "w-square without bias": 'rule = "w-square"\nbias = "ignore"',
        "z-box": f'rule = "z-box"\nlow = {LOW}\nhigh = {HIGH}',
    }[first]
    assert text.count('rule = "w-square"') == 1
    return parse_table(text.replace('rule = "w-square"', lines), name="deep-taylor", source="test.toml")


def treated(first: str) -> Any:
    def treat(layer: int) -> tuple[str, Mapping[str, Any]]:
        if layer:
            return "z-plus", DEFAULTS
        bias = {"bias": "ignore"} if first == "w-square without bias" else {}
        return first.split()[0], {**DEFAULTS, "low": LOW, "high": HIGH, **bias}

    return treat


def model(bias: str) -> Any:
    return built([op for run in runs(bias) for op in run], SHAPE)


@pytest.mark.parametrize("first", ["w-square", "w-square without bias", "z-box"])
@pytest.mark.parametrize("bias", ["zero", "not positive", "any"])
def test_the_map_is_that_of_the_replica(bias: str, first: str) -> None:
    expected, output = replica(runs(bias), treated(first), INPUTS[0])
    found, original = emitted_map(model(bias), table(first), INPUTS[0])
    assert relative_l2(output, original) < 1e-9
    assert relative_l2(found, expected) < 1e-7


@pytest.mark.parametrize("first", ["w-square", "z-box"])
@pytest.mark.parametrize("bias", ["zero", "not positive", "any"])
def test_nothing_is_negative_where_the_output_is_positive(bias: str, first: str) -> None:
    for x in INPUTS:
        found, output = emitted_map(model(bias), table(first), x)
        assert output.max() > 0
        assert found.min() >= 0 and found.max() > 0


@pytest.mark.parametrize(
    ("bias", "first"),
    [
        ("zero", "w-square"),
        ("zero", "z-box"),
        ("not positive", "w-square without bias"),
        ("not positive", "z-box"),
    ],
)
def test_the_map_sums_to_the_output(bias: str, first: str) -> None:
    """Z-plus has only positive biases in its denominator. W-square counts the first layer's bias as one input more."""
    for x in INPUTS:
        found, output = emitted_map(model(bias), table(first), x)
        assert np.isclose(found.sum(), output.max(), rtol=1e-4)


def test_the_bias_of_the_first_layer_keeps_a_share_under_w_square() -> None:
    found, output = emitted_map(model("not positive"), table("w-square"), INPUTS[0])
    assert 0 < found.sum() < 0.995 * output.max()


def test_positive_biases_keep_a_share() -> None:
    found, output = emitted_map(model("any"), table("z-box"), INPUTS[0])
    assert 0 < found.sum() < 0.995 * output.max()


def test_a_negative_output_gives_a_map_that_is_nowhere_positive() -> None:
    """The theory explains max(output, 0) and says nothing here; the rules share out what is there, with its sign."""
    net = model("zero")
    head = net.graph.initializer[-2]
    weights = np.frombuffer(head.raw_data, np.float64).reshape(36, 4) - 1.2
    head.raw_data = weights.tobytes()
    for x in INPUTS:
        found, output = emitted_map(net, table("z-box"), x)
        assert output.max() < 0
        assert found.max() <= 0 and np.isclose(found.sum(), output.max(), rtol=1e-3)
