"""Reductions that are no plain sum: derivatives with zeros among the factors, and shares that add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import GRADIENT, Example, expect_derivative
from tests.support.evaluate import reference as in_reference
from tests.support.evaluate import relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient, distinct
from tests.support.models import Net

Array = np.ndarray
OPERATORS = ("ReduceProd", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def reduced(op: str, axes: list[int] | None, *, rank: int, **attributes: Any) -> Example:
    """Of 3-dimensional data; logarithms are taken of data made positive."""

    def build(net: Net, a: str) -> str:
        data = net.op("Abs", a) if op == "ReduceLogSum" else a
        return net.op(op, data, *([net.constant(np.array(axes, np.int64))] if axes is not None else []), **attributes)

    return Example((2, 3, 2), build, rank)


FORMS: Mapping[str, tuple[list[int] | None, int, dict[str, Any]]] = {
    "one-axis": ([1], 3, {}),
    "negative-axis": ([-1], 3, {}),
    "two-axes-dropped": ([0, -1], 1, {"keepdims": 0}),
    "all": (None, 3, {}),
    "all-dropped": (None, 0, {"keepdims": 0}),
    "nothing": (None, 3, {"noop_with_empty_axes": 1}),
    "empty-axes-mean-all": ([], 3, {}),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("op", OPERATORS)
def test_derivatives(op: str, form: str, dynamic: bool) -> None:
    axes, rank, attributes = FORMS[form]
    expect_derivative(reduced(op, axes, rank=rank, **attributes), dynamic=dynamic, tolerance=1e-6)


@pytest.mark.parametrize("zeros", [1, 2])
def test_products_with_zeros_among_the_factors(zeros: int) -> None:
    """The derivative by the only zero is the product of the others; with two zeros there is none."""
    a = np.array([[2.0, 3.0, -4.0, 5.0]])
    a[0, :zeros] = 0.0
    net = Net()
    # Shifted, so that the multiplier of a zero shows.
    shifted = net.op("Sub", net.input("a", (1, 4)), net.constant(np.ones((1, 4))))
    model = net.model(net.op("ReduceProd", shifted, net.constant([1]), keepdims=0))
    explained = explain_seeded(model, GRADIENT, {"a": a + 1.0}, seed=np.ones(1))
    expected = (a + 1.0) * [[np.delete(a[0], i).prod() for i in range(4)]]
    assert relative_l2(explained.relevance["a"], expected) < 1e-12


@pytest.mark.parametrize("op", ["ReduceProd", "ReduceSumSquare"])
def test_shares(op: str) -> None:
    """Each factor of a product gets the same; of a sum of squares in proportion to the square."""
    a = distinct(2, 4, seed=3)
    net = Net()
    model = net.model(net.op(op, net.input("a", (2, 4)), net.constant([1])))
    explained = explain_seeded(model, "epsilon", {"a": a})
    share = np.full(a.shape, 0.25) if op == "ReduceProd" else a**2 / (a**2).sum(axis=1, keepdims=True)
    assert relative_l2(explained.relevance["a"], share * explained.seeded) < 1e-4


def test_logarithm_of_sum_of_exponentials_is_linear_around_its_input() -> None:
    a = distinct(2, 4, seed=3)
    net = Net()
    model = net.model(net.op("ReduceLogSumExp", net.input("a", (2, 4)), net.constant([1])))
    explained = explain_seeded(model, "epsilon", {"a": a})
    p = np.exp(a) / np.exp(a).sum(axis=1, keepdims=True)
    assert relative_l2(explained.relevance["a"], a * p * explained.seed) < 1e-4


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumulative_products(axis: int, exclusive: int, reverse: int) -> None:
    def build(net: Net, a: str) -> str:
        return net.op("CumProd", a, net.constant(np.array(axis)), exclusive=exclusive, reverse=reverse)

    expect_derivative(Example((2, 3, 2), build, 3, opset=26), dynamic=axis == 1, tolerance=1e-6)


def test_cumulative_product_behind_a_zero() -> None:
    net = Net(opset=26)
    model = net.model(net.op("CumProd", net.input("a", (4,)), net.constant(np.array(0))))
    run = in_reference(to_float64(model))
    a = np.array([2.0, 0.0, 3.0, -1.5])
    explained = explain_seeded(model, GRADIENT, {"a": a})
    y = model.graph.output[0].name
    gradient = central_gradient(lambda at: float((explained.seed * run(at)[y]).sum()), {"a": a}, "a")
    assert relative_l2(explained.relevance["a"], a * gradient) < 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 3, 3)])
def test_determinants(shape: tuple[int, ...]) -> None:
    expect_derivative(Example(shape, lambda net, a: net.op("Det", a), len(shape) - 2, open_axes=()), tolerance=1e-6)


def test_determinant_of_a_singular_matrix() -> None:
    """Its cofactors exist although it has no inverse."""
    a = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
    net = Net(np.float32)
    net_output = net.op("Det", net.input("a", (3, 3)))
    emitted = onnxlrp.convert(net.model(net_output, ranks=[0]), rules=GRADIENT, target="seed")
    feeds = {"a": a.astype(np.float32), "lrp_seed": np.ones((), np.float32)}
    gradient = central_gradient(lambda at: float(np.linalg.det(at["a"])), {"a": a}, "a")
    assert relative_l2(run_onnxruntime(emitted, feeds)["a_relevance"], a * gradient) < 1e-5


def test_shares_of_a_determinant() -> None:
    a = distinct(3, 3, seed=2)
    net = Net()
    model = net.model(net.op("Det", net.input("a", (3, 3))), ranks=[0])
    explained = explain_seeded(model, "epsilon", {"a": a})
    expected = a * np.linalg.inv(a).T * np.linalg.det(a) / 3 * explained.seed
    assert relative_l2(explained.relevance["a"], expected) < 1e-4


@pytest.mark.parametrize("op", ["ReduceProd", "ReduceLogSumExp"])
def test_a_reduction_of_nothing_is_a_constant(op: str) -> None:
    net = Net(np.float32)
    x = net.input("a", (2, 0, 3))
    steps = onnxlrp.plan(net.model(net.op(op, x, net.constant(np.array([1])))), rules="epsilon").steps
    assert [step.rule for step in steps] == ["stop"]
