"""Two thousand random networks of 5 to 40 operators; `--fresh` tries others than the last time.

On two idle cores this takes a few minutes.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.random_checks import TABLES, expect_closed_ledger, expect_gradient
from tests.support.random_graphs import RandomGraph, random_graphs

_GRAPHS, _PARTS = 2000, 20


@pytest.mark.parametrize("part", range(_PARTS))
def test_random_graphs(part: int, fresh: int) -> None:
    """In parts, so that several processes share them and a failure does not hide the rest."""

    @seed(part + _PARTS * fresh)
    @settings(
        max_examples=_GRAPHS // _PARTS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(random_graphs(), st.sampled_from(TABLES))
    def holds(graph: RandomGraph, rules: str) -> None:
        expect_gradient(graph)
        expect_closed_ledger(graph, rules)

    holds()
