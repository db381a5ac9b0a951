"""Variants of many samples in calls of bounded size."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.evaluation import variants
from onnxlrp.evaluation.case import Array
from tests.evaluation import subjects


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 7, 100])
def test_each_item_gets_its_own_answers(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(variants, "_MOST", at_once)
    sizes: list[int] = []

    def judge(values: Array, rows: Array) -> Array:
        sizes.append(len(values))
        return np.stack([values.sum(axis=1), rows], axis=1)

    generator = np.random.default_rng(0)
    items = [(row, generator.normal(size=(count, 3))) for row, count in enumerate([2, 5, 0, 1, 8, 1])]
    answers = list(variants.judged(judge, iter(items)))
    assert len(answers) == len(items)
    for (row, values), answer in zip(items, answers, strict=True):
        np.testing.assert_array_equal(answer, np.stack([values.sum(axis=1), np.full(len(values), row)], axis=1))
    assert max(sizes) <= at_once
    assert len(sizes) == -(-17 // at_once), "calls are not filled"


def test_a_call_has_a_bounded_number_of_bytes() -> None:
    sizes: list[int] = []

    def judge(values: Array, rows: Array) -> Array:
        sizes.append(values.nbytes)
        return rows

    large = np.zeros((7, 3 * 1024 * 1024), np.uint8)
    assert [len(answer) for answer in variants.judged(judge, [(0, large)])] == [7]
    assert sizes == [6 * 1024 * 1024] * 3 + [3 * 1024 * 1024]


def test_scores_of_targets() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4))
    case = subjects.make_case(values, subjects.linear(4), targets=np.asarray([2, 0, 1]))
    rows = np.asarray([1, 2])
    scores = case.subject.scores(values[1:], rows)
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    logits, probabilities = scores[[0, 1], [0, 1]], chances[[0, 1], [0, 1]]
    np.testing.assert_allclose(variants.logits(case)(values[1:], rows), logits)
    np.testing.assert_allclose(variants.probabilities(case)(values[1:], rows), probabilities)
    both = variants.logits_and_probabilities(case)(values[1:], rows)
    np.testing.assert_allclose(both, np.stack([logits, probabilities], axis=1))
    np.testing.assert_allclose(variants.softmax(np.asarray([1000.0, 0.0])), [1, 0])
