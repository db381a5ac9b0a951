"""Layers whose weights or biases come from the data: derivatives by every input, and halves that add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.examples import GRADIENT, expect_derivatives
from tests.support.case import Case
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net


def convolved(op: str, *shapes: tuple[int, ...], **attributes: Any) -> Case:
    """x, weight and perhaps bias are inputs; batch and size of x may be left open."""
    return Case(shapes, lambda net, *inputs: net.op(op, *inputs, **attributes), len(shapes[0]), frozen=(1,))


CONVOLUTIONS: Mapping[str, Case] = {
    "conv": convolved("Conv", (2, 3, 5, 4), (2, 3, 3, 2)),
    "conv-bias": convolved("Conv", (2, 2, 5), (3, 2, 3), (3,)),
    "conv-strides-pads": convolved("Conv", (2, 2, 6, 5), (3, 2, 3, 2), strides=[2, 3], pads=[1, 0, 2, 1]),
    "conv-dilations": convolved("Conv", (1, 2, 7, 6), (2, 2, 2, 3), dilations=[3, 2], pads=[1, 1, 0, 1]),
    "conv-grouped": convolved("Conv", (2, 4, 5, 4), (6, 2, 2, 2), (6,), group=2, strides=[1, 2]),
    "conv-depthwise": convolved("Conv", (2, 3, 5), (3, 1, 3), group=3, pads=[1, 1]),
    "conv-same": convolved("Conv", (1, 2, 5, 5), (2, 2, 3, 3), auto_pad="SAME_UPPER"),
    "transposed": convolved("ConvTranspose", (2, 3, 3, 2), (3, 2, 2, 3)),
    "transposed-bias-strides": convolved("ConvTranspose", (2, 2, 3), (2, 3, 3), (3,), strides=[2], pads=[1, 0]),
    "transposed-grouped": convolved(
        "ConvTranspose", (1, 4, 3, 3), (4, 1, 2, 2), group=2, strides=[2, 3], output_padding=[1, 0], dilations=[2, 1]
    ),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str) -> None:
    expect_derivatives(CONVOLUTIONS[case])


@pytest.mark.parametrize("case", ["conv", "conv-grouped", "transposed-grouped"])
def test_sizes_of_the_input_may_be_open(case: str) -> None:
    """In onnxruntime and float32, against the float64 run of the static model."""
    example = CONVOLUTIONS[case]
    net = Net(np.float32)
    names = example.names
    shapes = [["n", example.shapes[0][1], *("hw"[: len(example.shapes[0]) - 2])], *map(list, example.shapes[1:])]
    inputs = [net.input(n, s) for n, s in zip(names, shapes, strict=True)]
    emitted = onnxlrp.convert(net.model(example.build(net, *inputs), ranks=[4]), rules=GRADIENT, target="seed")
    explained = explain_seeded(example.model(), GRADIENT, example.feeds())
    feeds = {n: x.astype(np.float32) for n, x in example.feeds().items()}
    found = run_onnxruntime(emitted, {**feeds, "lrp_seed": explained.seed.astype(np.float32)})
    for name in names:
        assert relative_l2(found[f"{name}_relevance"], explained.relevance[name]) < 1e-4


def test_input_and_weight_receive_half_each() -> None:
    case = CONVOLUTIONS["conv-strides-pads"]
    explained = explain_seeded(case.model(), "epsilon", case.feeds())
    derivative = explain_seeded(case.model(), GRADIENT, case.feeds())
    for name in case.names:
        assert relative_l2(explained.relevance[name], derivative.relevance[name] / 2) < 1e-9
    total = sum(float(r.sum()) for r in explained.relevance.values())
    assert total == pytest.approx(float(explained.seeded.sum()))


@pytest.mark.parametrize("rules", ["default", "epsilon-alpha2-beta1", GRADIENT])
def test_a_weight_that_alone_carries_relevance_is_the_input_of_a_layer(rules: str) -> None:
    """x * w = w * x: with x constant, what a rule says of w is what it says of the input of that layer."""
    x, w = np.abs(distinct(1, 2, 4, seed=1)), distinct(1, 2, 4, seed=2)
    net = Net()
    as_weight = net.model(net.op("Conv", net.constant(x), net.input("w", (1, 2, 4))))
    net = Net()
    as_input = net.model(net.op("Conv", net.input("w", (1, 2, 4)), net.constant(x)))
    one, other = (explain_seeded(m, rules, {"w": w}) for m in (as_weight, as_input))
    assert relative_l2(one.relevance["w"], other.relevance["w"]) < 1e-9


def test_a_weight_of_open_size_is_refused() -> None:
    net = Net(np.float32)
    model = net.model(net.op("Conv", net.input("x", (1, 2, 5)), net.input("w", (1, 2, "k"))), ranks=[3])
    with pytest.raises(ConversionError, match="known"):
        onnxlrp.convert(model, rules=GRADIENT)


GEMMS: Mapping[str, Case] = {
    "all": Case(((2, 3), (3, 4), (4,)), lambda net, *i: net.op("Gemm", *i), 2),
    "turned": Case(((3, 2), (4, 3), (2, 4)), lambda net, *i: net.op("Gemm", *i, transA=1, transB=1, alpha=0.5), 2),
    "beta": Case(((2, 3), (3, 4), (1, 4)), lambda net, *i: net.op("Gemm", *i, beta=-0.7), 2),
    "one-bias": Case(((2, 3), (3, 4), ()), lambda net, *i: net.op("Gemm", *i, beta=2.0), 2),
    "bias-alone": Case(
        ((4,),), lambda net, c: net.op("Gemm", net.constant(np.ones((2, 3))), net.constant(np.ones((3, 4))), c), 2
    ),
    "constant-bias": Case(
        ((2, 3), (3, 4)), lambda net, a, w: net.op("Gemm", a, w, net.constant(distinct(4, seed=9))), 2
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", GEMMS)
def test_gemm(case: str, dynamic: bool) -> None:
    expect_derivatives(GEMMS[case], dynamic=dynamic)


def test_a_bias_between_two_data_factors_keeps_its_share() -> None:
    """y = A B + c: c keeps c R/y, A and B receive half of the rest each."""
    case = GEMMS["constant-bias"]
    explained = explain_seeded(case.model(), "epsilon", case.feeds())
    y = reference(to_float64(case.model()))(case.feeds())
    (y_value,) = y.values()
    share = (explained.seeded / y_value) * (y_value - distinct(4, seed=9))
    for name in case.names:
        assert float(explained.relevance[name].sum()) == pytest.approx(float(share.sum()) / 2, rel=1e-4)
