"""What was explained, in words, by what the model returned and what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.answer import Answer, read_answer
from onnxlrp.explain.job import Job
from tests.graph.written import normal


def words(values, target="argmax", said="argmax of y", **job) -> list[str]:
    answer = Answer({"y": values}, values, said)
    return [subject.heading for subject in read_answer(answer, Job("m", "r", target=target, **job)).subjects]


def test_a_class_is_called_by_its_label_or_number():
    values = np.array([0.1, 3.0, 1.0])
    assert words(values) == ["class 1"] and words(values, labels=("a", "b", "c")) == ["b"]
    assert words(values, 2) == words(values, (2,)) == ["class 2"]
    assert words(values, "top:2", "top:2 of y") == ["class 1", "class 2"]
    with pytest.raises(UsageError, match="class 3 does not exist: the explained output has 3 classes"):
        words(values, 3)


def test_a_single_number_is_the_output_and_no_class():
    assert words(np.array([3.5])) == words(np.array([3.5]), 0) == ["the output"]
    assert words(np.array([3.5]), labels=("price",)) == ["price"]
    reading = read_answer(
        Answer({"y": 1 / (1 + np.exp(-np.array([2.0])))}, np.array([2.0]), "argmax of z"), Job("m", "r")
    )
    assert [subject.heading for subject in reading.subjects] == ["class 0"] and reading.score_kind == "sigmoid"


def test_elements_of_a_map_are_called_by_their_place():
    values = normal(4, 5, seed=1)
    order = [np.unravel_index(i, (4, 5)) for i in np.argsort(-values, axis=None)]
    assert words(values) == [f"output element [{order[0][0]}, {order[0][1]}]"]
    assert words(values, "top:2", "top:2 of y") == [f"output element [{y}, {x}]" for y, x in order[:2]]
    assert words(values, (3, 1)) == ["output element [3, 1]"]


def test_sums_of_elements_are_called_as_they_were_asked_for():
    values = normal(4, 5, seed=1)
    assert words(values, "argmax", "argmax along axis 1 of y") == ["argmax along axis 1 of y"]
    assert words(values, "1:3,2", "1:3,2 of y") == ["1:3,2 of y"]
    assert words(values, "argmax", "seed of y", aim="car within m.png") == ["car within m.png"]


def test_a_model_that_does_not_return_what_was_explained_speaks_by_its_first_floats():
    label, scores = np.array(1), np.array([0.2, 0.7, 0.1])
    reading = read_answer(Answer({"label": label, "scores": scores}, None, "argmax of raw"), Job("m", "r"))
    assert [subject.heading for subject in reading.subjects] == ["class 1"]
    assert reading.score_kind == "output" and reading.top[0].score == pytest.approx(0.7)
