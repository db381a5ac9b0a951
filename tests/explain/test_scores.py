"""Class scores and probabilities are read from what the model returned."""

from __future__ import annotations

import math

import numpy as np

from onnxlrp.explain.scores import class_scores

LOGITS = np.array([1.0, 3.0, 2.0], np.float32)
SOFTMAX = [math.exp(z) / (math.e + math.e**2 + math.e**3) for z in (1, 3, 2)]


def test_several_values_are_logits_of_a_softmax():
    scores = class_scores(LOGITS, [LOGITS])
    assert scores.kind == "softmax" and scores.top(2) == (1, 2)
    np.testing.assert_allclose(scores.probabilities, SOFTMAX, rtol=1e-6)


def test_a_sigmoid_among_the_outputs_marks_independent_classes():
    sigmoid = np.array([1 / (1 + math.exp(-z)) for z in LOGITS], np.float32)
    scores = class_scores(LOGITS, [sigmoid])
    assert scores.kind == "sigmoid"
    np.testing.assert_allclose(scores.probabilities, sigmoid, rtol=1e-6)


def test_values_that_are_probabilities_stay_as_they_are():
    scores = class_scores(np.array(SOFTMAX), [])
    assert scores.kind == "output"
    np.testing.assert_array_equal(scores.probabilities, SOFTMAX)


def test_a_single_value_is_no_probability():
    scores = class_scores(np.array([4.2]), [])
    assert scores.kind == "" and scores.probabilities is None and scores.top(5) == (0,)


def test_a_single_value_with_its_sigmoid_is_one():
    assert class_scores(np.array([0.0]), [np.array([0.5])]).kind == "sigmoid"


def test_axes_of_length_one_do_not_matter_but_maps_have_no_classes():
    assert class_scores(LOGITS.reshape(3, 1, 1), []).values.shape == (3,)
    assert class_scores(np.zeros((3, 4, 4)), []) is None


def test_huge_logits_do_not_overflow():
    scores = class_scores(np.array([5000.0, -5000.0]), [])
    np.testing.assert_array_equal(scores.probabilities, [1.0, 0.0])
