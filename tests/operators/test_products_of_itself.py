"""A tensor in both places of a product: what either place receives differs, and both count."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.operators.several import Several, expect_closed_ledger, expect_gradient
from tests.support.gradients import distinct
from tests.support.models import Net

CASES: Mapping[str, Several] = {
    "matmul": Several({"a": distinct(3, 3, seed=1)}, lambda net, a: net.op("MatMul", a, a), 2),
    "matmul-batched": Several({"a": distinct(2, 2, 2, seed=1)}, lambda net, a: net.op("MatMul", a, a), 3),
    "gemm-transposed": Several({"a": distinct(2, 3, seed=1)}, lambda net, a: net.op("Gemm", a, a, transA=1), 2),
    "gemm-with-itself-as-bias": Several({"a": distinct(3, 3, seed=1)}, lambda net, a: net.op("Gemm", a, a, a), 2),
    "div": Several({"a": distinct(2, 3, seed=1)}, lambda net, a: net.op("Div", a, a), 2),
    "mul": Several({"a": distinct(2, 3, seed=1)}, lambda net, a: net.op("Mul", a, a), 2),
    "max": Several({"a": distinct(2, 3, seed=1)}, lambda net, a: net.op("Max", a, a), 2),
    "conv": Several(
        {"a": distinct(2, 2, 3, seed=1)}, lambda net, a: net.op("Conv", a, a, pads=[1, 1]), 3, frozen=("a",)
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_derivative(case: str) -> None:
    expect_gradient(CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_the_ledger_closes(case: str) -> None:
    expect_closed_ledger(CASES[case])


def test_the_gram_matrix_of_a_layer() -> None:
    """Features times their own transpose, as style losses have it."""

    def build(net: Net, a: str) -> str:
        features = net.op("Relu", net.op("MatMul", a, net.constant(distinct(3, 4, seed=2))))
        return net.op("MatMul", features, net.op("Transpose", features, perm=[1, 0]))

    case = Several({"a": distinct(2, 3, seed=1)}, build, 2)
    expect_gradient(case)
    expect_closed_ledger(case)
