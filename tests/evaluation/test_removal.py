"""Taking units of a sample away."""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation import removal
from tests.evaluation import subjects


def test_units_are_numbered_without_gaps_and_padding_stays() -> None:
    raw = np.asarray([[4, 4, -1], [9, -1, 7]])
    case = subjects.make_case(np.ones((2, 2, 3)), subjects.linear(6), units=np.stack([raw, np.arange(6).reshape(2, 3)]))
    first, second = removal.units(case)
    assert (first.count, second.count) == (3, 6)
    np.testing.assert_array_equal(first.index, [[0, 0, 3], [2, 3, 1]])
    np.testing.assert_array_equal(first.sums(np.arange(6.0).reshape(2, 3)), [1, 5, 3])
    gone = np.asarray([[False, False, False], [True, False, True]])
    lacking = removal.without(case, 0, first, gone)
    np.testing.assert_array_equal(lacking, [np.ones((2, 3)), [[0, 0, 1], [0, 1, 1]]])


def test_what_is_taken_away_becomes_the_baseline_of_the_sample() -> None:
    values = subjects.images(2)
    baseline = subjects.images(2, seed=1)
    for given in (baseline, baseline[:1], np.asarray(0.5)):
        case = subjects.make_case(values, subjects.linear(32), baseline=given)
        unit = removal.units(case)[1]
        everything = removal.without(case, 1, unit, np.ones((1, 32), bool))
        np.testing.assert_array_equal(everything[0], np.broadcast_to(given, values.shape)[1])


def test_token_ids_stay_token_ids() -> None:
    case = subjects.make_case(np.asarray([[3, 4, 5]]), subjects.Tokens(np.ones((6, 2))), baseline=np.asarray([1]))
    lacking = removal.without(case, 0, removal.units(case)[0], np.asarray([[True, False, False]]))
    assert lacking.dtype == np.int64
    np.testing.assert_array_equal(lacking, [[1, 4, 5]])


def test_squares_of_pixels() -> None:
    case = subjects.make_case(subjects.images(1, channels=2, size=5), subjects.linear(50))
    (square,) = removal.squares(case, 2)
    assert square.count == 9
    np.testing.assert_array_equal(square.index[0], square.index[1])
    np.testing.assert_array_equal(square.index[0, [0, 1, 2, 4], [0, 3, 4, 4]], [0, 1, 5, 8])


def test_the_order_is_that_of_relevance_and_ties_stay_in_place() -> None:
    np.testing.assert_array_equal(removal.place(np.asarray([0.5, 2.0, 0.5, -1.0])), [1, 0, 2, 3])


def test_steps_go_from_none_to_all() -> None:
    np.testing.assert_array_equal(removal.equal_steps(4)(10), [0, 2, 5, 8, 10])
    np.testing.assert_array_equal(removal.equal_steps(4)(2), [0, 0, 1, 2, 2])


def test_areas() -> None:
    np.testing.assert_allclose(
        removal.area(np.asarray([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.0]])), [1, 0.5, 0.5]
    )
