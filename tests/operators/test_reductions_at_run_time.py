"""Reductions whose axes the model computes: the same maps as with constant ones, and the same winners."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import onnxlrp
from tests.operators.several import Several, expect_closed_ledger, expect_gradient
from tests.support.evaluate import run_onnxruntime
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

OPERATORS = ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin")
NONE: list[int] = []


def reduced(op: str, axes: list[int], rank: int, **attributes: int) -> Several:
    def build(net: Net, a: str, at: str) -> str:
        return net.op(op, a, at, **attributes)

    return Several({"a": distinct(2, 3, 4, seed=1)}, build, rank, {"at": np.array(axes, np.int64)})


CASES: Mapping[str, Several] = {
    **{f"{op}-kept": reduced(op, [1], 3) for op in OPERATORS},
    **{f"{op}-dropped": reduced(op, [-1, 0], 1, keepdims=0) for op in OPERATORS},
    **{f"{op}-all": reduced(op, NONE, 3) for op in OPERATORS},
    **{f"{op}-all-dropped": reduced(op, NONE, 0, keepdims=0) for op in OPERATORS},
    **{f"{op}-nothing": reduced(op, NONE, 3, noop_with_empty_axes=1, keepdims=0) for op in OPERATORS},
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_derivative(case: str, dynamic: bool) -> None:
    expect_gradient(CASES[case], dynamic=dynamic)


@pytest.mark.parametrize("case", CASES)
def test_the_ledger_closes(case: str) -> None:
    expect_closed_ledger(CASES[case])


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_the_first_of_equals_wins(op: str) -> None:
    case = reduced(op, [1, 2], 3)
    a = np.full((2, 3, 4), 2.0)
    a[1, 2, 3] = 3.0 if op == "ReduceMax" else 1.0
    explained = explain_seeded(case.model(), "epsilon", {"a": a, **case.given}, inputs=("a",))
    expected = np.zeros_like(a)
    expected[0, 0, 0], expected[1, 2, 3] = explained.seeded.ravel()
    np.testing.assert_array_equal(explained.relevance["a"], expected)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "run-time"])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_the_winner_of_nothing_is_nobody(op: str, constant: bool) -> None:
    net = Net(np.float32)
    a = net.input("a", [2, 0, 3])
    axes = net.constant([1]) if constant else net.input("axes", [1], np.int64)
    emitted = onnxlrp.convert(net.model(net.op(op, a, axes), ranks=[3]), rules="epsilon", target="seed", inputs=("a",))
    feeds = {"a": np.zeros((2, 0, 3), np.float32), "lrp_seed": np.ones((2, 1, 3), np.float32)}
    if not constant:
        feeds["axes"] = np.array([1])
    assert run_onnxruntime(emitted, feeds)["a_relevance"].shape == (2, 0, 3)
