"""Random networks: what holds of every network holds of them. tests/breadth tries many more."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.random_checks import TABLES, expect_closed_ledger, expect_gradient
from tests.support.random_graphs import RandomGraph, random_graphs

#: Always the same graphs: a failure is one of this commit.
STABLE = settings(
    max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@STABLE
@given(random_graphs(largest=15))
def test_input_times_gradient_agrees_with_differences(graph: RandomGraph) -> None:
    expect_gradient(graph)


@STABLE
@given(random_graphs(largest=15), st.sampled_from(TABLES))
def test_ledgers_close(graph: RandomGraph, rules: str) -> None:
    expect_closed_ledger(graph, rules)
