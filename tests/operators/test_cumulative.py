"""Sums over what stands before: CumSum, and Range from numbers that carry relevance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.operators.examples import Example, at_run_time, expect_linear_map, one
from tests.operators.several import Several, expect_closed_ledger, expect_gradient
from tests.support.evaluate import relative_l2
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

SUMS: Mapping[str, Example] = {
    "plain": one("CumSum", (3, 4), np.array(1)),
    "exclusive": one("CumSum", (3, 4), np.array(0), exclusive=1),
    "reverse": one("CumSum", (2, 3, 2), np.array(-2), reverse=1),
    "exclusive-reverse": one("CumSum", (2, 4), np.array(-1), reverse=1, exclusive=1),
    "axis-at-run-time": at_run_time("CumSum", (3, 2), None, {"exclusive": 1}, axis=np.array(0)),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", SUMS)
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(SUMS[case], dynamic=dynamic)


@pytest.mark.parametrize("rule", ["epsilon", "z-plus"])
def test_each_sum_is_shared_in_proportion(rule: str, tmp_path: pytest.TempPathFactory) -> None:
    a = distinct(5, seed=4)
    net = Net()
    model = net.model(net.op("CumSum", net.input("a", [5]), net.constant(np.array(0))))
    rules = f'[[rule]]\nkind = "average"\nrule = "{rule}"\nepsilon = 1e-12'
    explained = explain_seeded(model, rules, {"a": a}, tmp_path)
    terms = np.tril(np.ones((5, 5))) * (a if rule == "epsilon" else np.maximum(a, 0))
    total = terms.sum(axis=1, keepdims=True)
    expected = (terms / np.where(total == 0, 1, total) * explained.seeded[:, None]).sum(axis=0)
    assert relative_l2(explained.relevance["a"], expected) < 1e-9


RANGES: Mapping[str, Several] = {
    "start-and-step": Several(
        {"a": np.array(0.5), "b": np.array(1.7)},
        lambda net, a, b: net.op("Range", a, net.constant(np.array(6.2)), b),
        1,
    ),
    "step": Several(
        {"b": np.array(-0.75)},
        lambda net, b: net.op("Range", net.constant(np.array(1.5)), net.constant(np.array(-2.1)), b),
        1,
    ),
    "start": Several(
        {"a": np.array(0.25)},
        lambda net, a, limit: net.op("Range", a, net.op("Cast", limit, to=11), net.constant(np.array(1.0))),
        1,
        {"limit": np.array(4)},
        runs=False,
    ),
}


@pytest.mark.parametrize("case", RANGES)
def test_the_derivative_of_a_range(case: str) -> None:
    expect_gradient(RANGES[case])


@pytest.mark.parametrize("case", RANGES)
def test_the_ledger_of_a_range_closes(case: str) -> None:
    expect_closed_ledger(RANGES[case])
