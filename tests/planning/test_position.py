"""Positions of a sequence as the user writes them, and what they are refused with."""

from __future__ import annotations

from typing import Any

import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.planning.position import Position, parse_position
from tests.support.language import language_model, written


@pytest.mark.parametrize(
    ("given", "expected", "shown"),
    [
        ("last", Position("index", -1), "last"),
        (-1, Position("index", -1), "last"),
        (4, Position("index", 4), "4"),
        ("-3", Position("index", -3), "-3"),
        ("input", Position("input"), "input"),
        ("all", Position("all"), "all"),
    ],
)
def test_a_position_is_a_word_or_an_index(given: Any, expected: Position, shown: str) -> None:
    assert parse_position(given) == expected
    assert str(expected) == shown
    assert parse_position(shown) == expected


@pytest.mark.parametrize("given", ["first", "", "1,2", 1.5, True, None])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="is not last, an index such as 4 or -2, input or all"):
        parse_position(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": "last", "axis": 1}, "give one of them"),
        ({"position": "all", "target": 3}, "it has no target 3"),
        ({"position": "all", "rather_than": (1, 2)}, "it has no target argmax rather than 1,2"),
        ({"position": "last", "target": (2, 3)}, r"has 2 indices, but output .* of shape \[N, 9\] takes 1"),
        ({"position": "last", "target": 9}, "target 9 is out of range"),
        ({"position": "last", "target": 1, "rather_than": 9}, "target 9 is out of range"),
        ({"position": "last", "target": "top:10"}, "top:10 is out of range"),
    ],
)
def test_what_does_not_go_with_a_position(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        onnxlrp.convert(language_model(), rules="epsilon", **options)


@pytest.mark.parametrize("position", [5, -6])
def test_a_position_out_of_a_known_range_is_refused(position: int) -> None:
    with pytest.raises(UsageError, match=rf"position {position} is out of range.*5 positions \(0 to 4\)"):
        onnxlrp.convert(language_model(5), position=position)


def test_a_position_needs_an_output_with_three_axes() -> None:
    model = written("e = Gather(words, ids) y = ReduceMean <keepdims = 0> (e)", output="float y")
    with pytest.raises(UsageError, match=r"\[batch, sequence, classes\]; the rank of 'y' is 0"):
        onnxlrp.convert(model, position="last")
