"""Normalisations whose scale and shift come from the data, or whose statistics are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import GRADIENT, Example, expect_derivative, expect_derivatives
from tests.support.case import Case
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net


def scaled(op: str, *shapes: tuple[int, ...], opset: int = 21, **attributes: Any) -> Case:
    """Data, scale and shift are all inputs."""
    return Case(shapes, lambda net, *i: net.op(op, *i, **attributes), len(shapes[0]), frozen=(1,), opset=opset)


ALL_FROM_DATA: Mapping[str, Case] = {
    "layer": scaled("LayerNormalization", (2, 3, 4), (4,), (4,)),
    "layer-two-axes": scaled("LayerNormalization", (2, 3, 4), (3, 4), axis=-2, epsilon=0.1),
    "rms": scaled("RMSNormalization", (2, 3, 4), (4,), opset=23),
    "rms-two-axes": scaled("RMSNormalization", (2, 3, 4), (3, 4), opset=23, axis=1, epsilon=0.1),
    "instance": scaled("InstanceNormalization", (2, 3, 4), (3,), (3,)),
    "group": scaled("GroupNormalization", (2, 4, 3), (4,), (4,), num_groups=2, epsilon=0.01),
    "batch": scaled("BatchNormalization", (3, 2, 4), (2,), (2,), (2,), (2,), epsilon=3.0),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", ALL_FROM_DATA)
def test_derivatives_by_scale_and_shift(case: str, dynamic: bool) -> None:
    expect_derivatives(ALL_FROM_DATA[case], dynamic=dynamic)


@pytest.mark.parametrize("opset", [18, 20])
def test_one_scale_for_each_group_up_to_opset_20(opset: int) -> None:
    """The same as one for each channel with the scales of a group repeated."""
    x, scale, shift = distinct(2, 6, 2, seed=1), distinct(3, seed=2), distinct(3, seed=3)

    def model(version: int, size: int) -> Any:
        net = Net(np.float32, opset=version)
        inputs = [net.input(n, s) for n, s in (("x", (2, 6, 2)), ("s", (size,)), ("b", (size,)))]
        return net.model(net.op("GroupNormalization", *inputs, num_groups=3, epsilon=0.1), ranks=[3])

    def run(version: int, repeats: int) -> dict[str, np.ndarray]:
        feeds = {"x": x, "s": scale.repeat(repeats), "b": shift.repeat(repeats), "lrp_seed": distinct(2, 6, 2, seed=5)}
        emitted = onnxlrp.convert(model(version, 3 * repeats), rules=GRADIENT, target="seed")
        return run_onnxruntime(emitted, {n: v.astype(np.float32) for n, v in feeds.items()})

    old, new = run(opset, 1), run(21, 2)
    assert relative_l2(old["x_relevance"], new["x_relevance"]) < 1e-5
    for name in ("s_relevance", "b_relevance"):
        assert relative_l2(old[name], new[name].reshape(3, 2).sum(axis=1)) < 1e-5


@pytest.mark.parametrize("output", [1, 2])
def test_statistics_of_layer_normalization(output: int) -> None:
    """Mean and inverse standard deviation are outputs of their own."""

    def build(net: Net, a: str) -> str:
        y = net.op("LayerNormalization", a, net.constant(distinct(4, seed=3)), outputs=3)
        return net.op("Mul", net.op("Add", y, f"{y}_{output}"), net.constant(2.0))

    expect_derivative(Example((2, 3, 4), build, 3))


def _trained(net: Net, x: str, scale: str, shift: str) -> str:
    running = [net.constant(np.zeros(2)), net.constant(np.ones(2))]
    y = net.op("BatchNormalization", x, scale, shift, *running, outputs=3, training_mode=1, momentum=0.7)
    moments = net.op("Add", f"{y}_1", f"{y}_2")
    return net.op("Add", y, net.op("Unsqueeze", moments, net.constant(np.array([1]))))


def test_statistics_of_the_batch() -> None:
    expect_derivatives(Case(((3, 2, 4), (2,), (2,)), _trained, 3))


@pytest.mark.parametrize("name", ["layer", "rms", "instance", "group"])
def test_scale_is_a_product_and_the_statistics_are_held_constant(name: str) -> None:
    """scale * unit: half to each, and the half of the unit goes through the centring alone, as in the map with
    constant scale and no shift.
    """
    case = ALL_FROM_DATA[name]
    feeds = {name: value if name != "c" else np.zeros_like(value) for name, value in case.feeds().items()}
    x = feeds["a"]
    halves = explain_seeded(case.model(), "epsilon", feeds)
    net = Net(opset=case.opset)
    constants = [net.constant(v) for n, v in feeds.items() if n != "a"]
    fixed = net.model(
        net.op(_OPERATOR[name], net.input("a", x.shape), *constants, **_ATTRIBUTES.get(name, {})), ranks=[x.ndim]
    )
    whole = explain_seeded(fixed, "epsilon", {"a": x})
    assert relative_l2(halves.relevance["a"], whole.relevance["a"] / 2) < 1e-3
    assert float(halves.relevance["b"].sum()) == pytest.approx(float(halves.seeded.sum()) / 2, rel=1e-3)


_OPERATOR = {
    "layer": "LayerNormalization",
    "rms": "RMSNormalization",
    "instance": "InstanceNormalization",
    "group": "GroupNormalization",
}
_ATTRIBUTES: Mapping[str, dict[str, Any]] = {"group": {"num_groups": 2, "epsilon": 0.01}}
