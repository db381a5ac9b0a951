"""What is written for a text, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain.job import Job
from onnxlrp.explain.text_results import Found, Pass, write_text
from onnxlrp.explain.text_tokens import Piece

PIECES = (Piece(2, "[CLS]", None), Piece(5, "a", 0, 0, 0, 1), Piece(6, "b", 0, 0, 1, 2), Piece(7, "c", 1, 0, 3, 4))
JOB = Job("m.onnx", "epsilon")


def found(*relevance: float) -> Found:
    one = Pass("target", "", PIECES[: len(relevance)], np.array(relevance), {}, ("ab c",))
    return Found("ab c", None, (one,))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_relevance_that_is_not_finite_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(OnnxLrpError, match="'ab c': the relevance has values that are not finite"):
        write_text(tmp_path / "x", found(1, value), JOB)
    assert not list(tmp_path.iterdir())


def test_relevance_that_is_zero_is_noted(tmp_path: Path) -> None:
    assert write_text(tmp_path / "x", found(0, 0), JOB).notes == ("all relevance is zero",)


def test_the_largest_words_are_listed_by_their_sizes(tmp_path: Path) -> None:
    (one,) = write_text(tmp_path / "x", found(0.5, -1, -2, 1), JOB).maps
    assert [(word.text, word.relevance) for word in one.largest(2)] == [("ab", -3.0), ("c", 1.0)]
    assert one.total == -1.5
