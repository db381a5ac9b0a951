"""Scatter: what was written over receives nothing, sums share, products share equally, the larger one takes all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxlrp
from tests.operators.several import Several, applied, expect_closed_ledger, expect_gradient
from tests.support.evaluate import relative_l2, run_reference, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray

#: In the second row position 3 is named twice, once from the end.
TWICE = np.array([[0, 1, 2], [3, 0, -1]])
ONCE = np.array([[3, 1, 0], [2, -4, 3]])
ROWS_TWICE = np.array([[1], [0], [-3]])
POINTS = np.array([[0, 1], [-1, 2], [2, 0]])


def elements(indices: Array, reduction: str = "none", *, fixed: bool = True) -> Several:
    data = {"a": distinct(2, 4, seed=1), "b": distinct(2, 3, seed=2)}

    def build(net: Net, a: str, b: str, places: str = "") -> str:
        return net.op("ScatterElements", a, places or net.constant(indices), b, axis=1, reduction=reduction)

    return Several(data, build, 2, {} if fixed else {"at": indices}, frozen=("b",))


def rows(indices: Array, reduction: str = "none", *, fixed: bool = True) -> Several:
    data = {"a": distinct(3, 4, seed=1), "b": distinct(3, *((4,) if indices.shape[1] == 1 else ()), seed=2)}

    def build(net: Net, a: str, b: str, places: str = "") -> str:
        return net.op("ScatterND", a, places or net.constant(indices), b, reduction=reduction)

    return Several(data, build, 2, {} if fixed else {"at": indices}, frozen=("b",))


REDUCTIONS = ("none", "add", "mul", "max", "min")
CASES: Mapping[str, Several] = {
    **{f"elements-once-{r}": elements(ONCE, r) for r in REDUCTIONS},
    **{f"elements-twice-{r}": elements(TWICE, r) for r in REDUCTIONS},
    **{f"elements-at-run-time-{r}": elements(TWICE, r, fixed=False) for r in REDUCTIONS},
    **{f"points-{r}": rows(POINTS, r) for r in REDUCTIONS},
    **{f"rows-twice-{r}": rows(ROWS_TWICE, r) for r in REDUCTIONS},
    **{f"rows-at-run-time-{r}": rows(ROWS_TWICE, r, fixed=False) for r in REDUCTIONS},
    "elements-axis-0": Several(
        {"a": distinct(3, 2, seed=1), "b": distinct(2, 2, seed=2)},
        lambda net, a, b: net.op("ScatterElements", a, net.constant([[2, 0], [-2, 1]]), b),
        2,
        frozen=("b",),
    ),
    "cache": Several(
        {"a": distinct(2, 2, 5, 2, seed=1), "b": distinct(2, 2, 2, 2, seed=2)},
        applied("TensorScatter", [3, 0]),
        4,
        opset=24,
        frozen=("a", "b"),
        runs=False,
    ),
    "cache-circular": Several(
        {"a": distinct(2, 4, 2, seed=1), "b": distinct(2, 2, 2, seed=2)},
        applied("TensorScatter", mode="circular", axis=1),
        3,
        {"first": np.array([3, 1])},
        opset=24,
        runs=False,
    ),
    "cache-from-the-start": Several(
        {"a": distinct(2, 4, 2, seed=1), "b": distinct(2, 3, 2, seed=2)},
        applied("TensorScatter"),
        3,
        opset=24,
        runs=False,
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_derivative(case: str, dynamic: bool) -> None:
    expect_gradient(CASES[case], dynamic=dynamic)


@pytest.mark.parametrize("case", CASES)
def test_the_ledger_closes(case: str) -> None:
    expect_closed_ledger(CASES[case])


@pytest.mark.parametrize("explained", ["a", "b"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_operand_may_be_free_of_the_explained_input(reduction: str, explained: str) -> None:
    both = elements(TWICE, reduction)
    free = "b" if explained == "a" else "a"

    def build(net: Net, x: str) -> str:
        operands = {explained: x, free: net.constant(both.data[free])}
        return net.op("ScatterElements", operands["a"], net.constant(TWICE), operands["b"], axis=1, reduction=reduction)

    case = Several({explained: both.data[explained]}, build, 2)
    expect_gradient(case)
    expect_closed_ledger(case)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_tensor_may_be_scattered_into_itself(reduction: str) -> None:
    case = Several(
        {"a": distinct(2, 3, seed=1)},
        lambda net, a: net.op(
            "ScatterElements", a, net.constant([[2, 0, 1], [1, 1, 0]]), a, axis=1, reduction=reduction
        ),
        2,
    )
    expect_gradient(case)
    expect_closed_ledger(case)


@pytest.mark.parametrize("fixed", [True, False], ids=["constant", "run-time"])
def test_the_factors_of_a_place_share_equally(fixed: bool, tmp_path: Path) -> None:
    """A place with two updates has three factors, one with a single update two, one without it the data alone."""
    case = elements(TWICE, "mul", fixed=fixed)
    rules = '[[rule]]\nkind = "sum"\nrule = "z"'
    explained = explain_seeded(case.model(), rules, case.feeds(), tmp_path, inputs=("a", "b"))
    share = explained.seeded / np.array([[2, 2, 2, 1], [2, 1, 1, 3]])
    assert relative_l2(explained.relevance["a"], share) < 1e-9
    assert relative_l2(explained.relevance["b"], np.take_along_axis(share, TWICE % 4, axis=1)) < 1e-9


@settings(max_examples=60, deadline=None)
@given(
    reduction=st.sampled_from(REDUCTIONS),
    op=st.sampled_from(["ScatterElements", "ScatterND"]),
    fixed=st.booleans(),
    draws=st.lists(st.integers(-3, 2), min_size=4, max_size=4),
)
def test_any_places(reduction: str, op: str, fixed: bool, draws: list[int]) -> None:
    """Four updates of three rows: some place is always named twice."""
    data = {"a": distinct(3, 2, seed=1), "b": distinct(4, 2, seed=2)}
    places = np.array(draws)[:, None]
    indices = np.repeat(places, 2, axis=1) if op == "ScatterElements" else places

    def build(net: Net, a: str, b: str, at: str = "") -> str:
        return net.op(op, a, at or net.constant(indices), b, reduction=reduction)

    case = Several(data, build, 2, {} if fixed else {"at": indices}, frozen=("b",))
    expect_gradient(case)
    expect_closed_ledger(case)


def test_zeros_among_the_factors_are_not_divided_by() -> None:
    """y = a * b0 * b1 with one zero: only that zero has a derivative; with two there is none."""
    net = Net()
    a, b = net.input("a", [3]), net.input("b", [6])
    model = net.model(net.op("ScatterElements", a, net.constant([0, 0, 1, 1, 2, 2]), b, reduction="mul"))
    feeds = {"a": np.array([2.0, 3.0, 4.0]), "b": np.array([0.0, 5.0, 0.0, 0.0, 1.5, 2.0])}
    emitted = onnxlrp.convert(model, rules="gradient-x-input", target="seed", inputs=("a", "b"))
    result = run_reference(to_float64(emitted), {**feeds, "lrp_seed": np.ones(3)})
    np.testing.assert_allclose(result["a_relevance"], [0.0, 0.0, 12.0])
    np.testing.assert_allclose(result["b_relevance"], [0.0, 0.0, 0.0, 0.0, 12.0, 12.0])


TIES = {
    "data": ([3.0, 1.0], [3.0, 0.0, 1.0], [1.0, 1.0], [0.0, 0.0, 0.0]),
    "first-update": ([0.0, 1.0], [2.0, 2.0, 0.0], [0.0, 1.0], [1.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("case", TIES)
def test_of_equal_values_the_data_wins_and_then_the_first_update(case: str) -> None:
    data, updates, to_data, to_updates = TIES[case]
    net = Net()
    a, b = net.input("a", [2]), net.input("b", [3])
    model = net.model(net.op("ScatterElements", a, net.constant([0, 0, 1]), b, reduction="max"))
    feeds = {"a": np.array(data), "b": np.array(updates)}
    explained = explain_seeded(model, "epsilon", feeds, inputs=("a", "b"), seed=np.ones(2))
    np.testing.assert_array_equal(explained.relevance["a"], explained.y * to_data)
    np.testing.assert_array_equal(explained.relevance["b"], np.take(explained.y, [0, 0, 1]) * to_updates)
