"""How `verify` compares tensors: nothing that differs is hidden, not even behind NaN or infinity."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.verification.verify import _largest, _relative

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([0.0, 0.1], [0.0, 0.0], 0.1),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([INF, 2.0], [INF, 2.0], 0.0),
        ([NAN, 2.2], [NAN, 2.0], 0.1),
        ([INF, 2.2], [INF, 2.0], 0.1),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([1.0, 2.0], [NAN, 2.0], INF),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([INF, 2.0], [1.0, 2.0], INF),
        ([1.0], [1.0, 1.0], INF),
        ([], [], 0.0),
    ],
)
def test_the_largest_difference_is_relative_to_the_largest_value(a: list, b: list, expected: float) -> None:
    assert _largest(np.array(a), np.array(b)) == pytest.approx(expected)


def test_what_is_no_number_is_equal_or_not() -> None:
    assert _largest(np.array([True, False]), np.array([True, False])) == 0.0
    assert _largest(np.array([True, False]), np.array([True, True])) == INF
    assert _largest(np.array(["a"]), np.array(["b"])) == INF


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([0.0], [0.0], 0.0),
        ([0.5], [0.0], 0.5),
        ([1.0], [1.0, 1.0], INF),
    ],
)
def test_the_relative_distance_is_that_of_vectors(a: list, b: list, expected: float) -> None:
    assert _relative(np.array(a), np.array(b)) == pytest.approx(expected)
    assert np.isnan(_relative(np.array([NAN]), np.array([1.0])))
