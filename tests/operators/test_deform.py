"""DeformConv: its derivative in every input, its weights as those of a convolution, its mask as a gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.several import Several, expect_closed_ledger, expect_gradient
from tests.support.evaluate import relative_l2
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray


def moved(*shape: int, seed: int) -> Array:
    """Offsets up to two elements, never close to a whole number."""
    r = np.random.default_rng(seed)
    return r.integers(-2, 2, shape) + r.uniform(0.2, 0.8, shape)


def deformed(
    shape: tuple[int, int, int, int],
    weight: tuple[int, int, int, int],
    out: tuple[int, int],
    *,
    groups: int = 1,
    mask: bool = True,
    bias: bool = False,
    explained: str = "aom",
    opset: int = 21,
    **attributes: Any,
) -> Several:
    """Data `a`, offsets `o` and a mask `m`; those that are not explained are constants."""
    taps = groups * weight[2] * weight[3]
    every = {"a": distinct(*shape, seed=1), "o": moved(shape[0], 2 * taps, *out, seed=2)}
    if mask:
        every["m"] = np.random.default_rng(3).uniform(0.2, 0.9, (shape[0], taps, *out))

    def build(net: Net, *names: str) -> str:
        tensors = {name: name if name in names else net.constant(value) for name, value in every.items()}
        w = net.constant(distinct(*weight, seed=5) / 2)
        b = net.constant(distinct(weight[0], seed=6)) if bias else ""
        rest = (b, tensors["m"]) if mask else ((b,) if bias else ())
        return net.op("DeformConv", tensors["a"], w, tensors["o"], *rest, offset_group=groups, **attributes)

    data = {name: value for name, value in every.items() if name in explained}
    frozen = tuple((name, 1) for name in data)
    return Several(data, build, 4, frozen=frozen, opset=opset)


CASES: Mapping[str, Several] = {
    "all": deformed((1, 2, 3, 4), (2, 2, 2, 2), (2, 3)),
    "no-mask": deformed((2, 2, 3, 3), (3, 2, 2, 2), (2, 2), mask=False),
    "bias": deformed((1, 1, 4, 4), (2, 1, 3, 2), (2, 3), mask=False, bias=True),
    "groups": deformed((1, 4, 3, 3), (4, 2, 2, 2), (2, 2), groups=2, group=2),
    "offset-groups": deformed((1, 4, 2, 3), (2, 4, 1, 2), (2, 2), groups=4),
    "strides-pads-dilations": deformed(
        (1, 1, 5, 5), (2, 1, 3, 2), (2, 3), strides=[2, 1], pads=[1, 0, 0, 1], dilations=[1, 3], kernel_shape=[3, 2]
    ),
    "one-row": deformed((1, 1, 1, 4), (1, 1, 1, 2), (1, 3), mask=False),
    "opset-19": deformed((1, 1, 3, 3), (1, 1, 2, 2), (2, 2), opset=19),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_derivative(case: str, dynamic: bool) -> None:
    expect_gradient(CASES[case], dynamic=dynamic, tolerance=1e-6)


@pytest.mark.parametrize("rules", ["epsilon", "default", "epsilon-plus-flat", "epsilon-gamma-box"])
@pytest.mark.parametrize("case", ["all", "groups"])
def test_the_ledger_closes(case: str, rules: str) -> None:
    expect_closed_ledger(CASES[case], rules)


def test_the_offsets_receive_nothing_and_a_gate_takes_nothing() -> None:
    case = deformed((1, 2, 4, 4), (2, 2, 2, 2), (3, 3))
    explained = explain_seeded(case.model(), "epsilon", case.feeds(), inputs=("a", "o"))
    np.testing.assert_array_equal(explained.relevance["o"], np.zeros_like(case.data["o"]))


@pytest.mark.parametrize("rules", ["default", "epsilon", "epsilon-plus", "epsilon-alpha2-beta1"])
def test_without_offsets_it_is_the_convolution(rules: str) -> None:
    a, w = distinct(1, 2, 5, 5, seed=1), distinct(3, 2, 3, 3, seed=2)
    maps = {}
    for op in ("Conv", "DeformConv"):
        net = Net()
        offsets = [net.constant(np.zeros((1, 18, 5, 5)))] if op == "DeformConv" else []
        y = net.op(op, net.input("a", a.shape), net.constant(w), *offsets, pads=[1, 1, 1, 1])
        maps[op] = explain_seeded(net.model(y, ranks=[4]), rules, {"a": a}).relevance["a"]
    assert relative_l2(maps["DeformConv"], maps["Conv"]) < 1e-5


def test_the_plan_shows_a_convolution() -> None:
    plan = onnxlrp.plan(deformed((1, 2, 4, 4), (2, 2, 2, 2), (3, 3), explained="a").model())
    assert [step.operator for step in plan.steps if step.operator == "Conv"] == ["Conv"]
