"""Col2Im: blocks that overlap share what their sum receives."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.operators.examples import Example, at_run_time, expect_linear_map, one

CASES: Mapping[str, Example] = {
    "apart": one("Col2Im", (1, 4, 4), [4, 4], [2, 2], rank=4, strides=[2, 2]),
    "overlapping": one("Col2Im", (2, 8, 4), [3, 3], [2, 2], rank=4),
    "pads-dilations-strides": one(
        "Col2Im", (1, 6, 6), [5, 6], [3, 2], rank=4, pads=[1, 0, 1, 1], dilations=[1, 3], strides=[2, 3]
    ),
    "one-dimension": one("Col2Im", (2, 6, 4), [6], [3], rank=3),
    "three-dimensions": one("Col2Im", (1, 8, 2), [2, 3, 2], [2, 2, 2], rank=5),
    "at-run-time": at_run_time("Col2Im", (2, 8, 4), 4, image=[3, 3], block=[2, 2]),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(CASES[case], dynamic=dynamic)
