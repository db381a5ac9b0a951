"""Relevance as a map or as a multiplier: conversions and sums."""

from __future__ import annotations

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.relevance import Relevance, total
from onnxlrp.understand.facts import Facts
from tests.emit.test_builder import evaluate
from tests.graph.written import Array, network, normal, view

X: Array = np.array([[2.0, -3.0, 0.0, 0.5]], np.float32)
M: Array = np.array([[1.0, -2.0, 5.0, 4.0]], np.float32)


def _ground(text: str = "g (float[1,4] x, float[1,4] m) => (float[1,4] y) { y = Relu(x) }") -> tuple[Builder, Facts]:
    graph = view(network(text))
    return Builder(graph), Facts(graph)


def _value(b: Builder, tensor: str) -> Array:
    return evaluate(b, tensor, {"x": X, "m": M})


def test_a_map_is_its_value_and_a_multiplier_is_multiplied() -> None:
    b, _ = _ground()
    assert Relevance("m").as_map(b) == "m"
    np.testing.assert_allclose(_value(b, Relevance("m", "x").as_map(b)), X * M)


def test_a_multiplier_of_the_tensor_itself_is_taken_as_it_is() -> None:
    b, facts = _ground()
    assert Relevance("m", "x").as_multiplier(b, facts, "x") == "m"
    assert not b.nodes


def test_a_map_becomes_a_multiplier_that_is_zero_where_the_tensor_is() -> None:
    b, facts = _ground()
    multiplier = _value(b, Relevance("m").as_multiplier(b, facts, "x"))
    np.testing.assert_allclose(multiplier, [[0.5, 2 / 3, 0.0, 8.0]], rtol=1e-6)


def test_behind_a_relu_the_multiplier_is_that_of_the_relu_where_it_is_active() -> None:
    b, facts = _ground()
    multiplier = _value(b, Relevance("m", "y").as_multiplier(b, facts, "x"))
    np.testing.assert_allclose(multiplier, [[1.0, 0.0, 0.0, 4.0]])
    assert "Div" not in [n.op for n in b.nodes]


def test_behind_another_function_it_is_the_map_over_the_tensor() -> None:
    b, facts = _ground("g (float[1,4] x, float[1,4] m) => (float[1,4] y) { y = Tanh(x) }")
    multiplier = _value(b, Relevance("m", "y").as_multiplier(b, facts, "x"))
    safe = np.where(X == 0, 1, X)
    np.testing.assert_allclose(multiplier, np.where(X == 0, 0, np.tanh(X) * M / safe), rtol=1e-6)


def test_contributions_add_up_in_the_form_they_share() -> None:
    b, _ = _ground()
    assert total(b, [Relevance("m", "x")]) == Relevance("m", "x")
    same = total(b, [Relevance("m", "x"), Relevance("x", "x"), Relevance("m", "x")])
    assert same.base == "x"
    np.testing.assert_allclose(_value(b, same.value), 2 * M + X)
    mixed = total(b, [Relevance("m", "x"), Relevance("m"), Relevance("x", "y")])
    assert mixed.base is None
    np.testing.assert_allclose(_value(b, mixed.value), X * M + M + np.maximum(X, 0) * X, rtol=1e-6)
    maps = total(b, [Relevance("m"), Relevance("x")])
    np.testing.assert_allclose(_value(b, maps.as_map(b)), M + X)


def test_there_and_back_is_the_identity() -> None:
    """R -> m -> R is the identity wherever the tensor is not zero."""
    b, facts = _ground()
    x, r = normal(1, 4, seed=3), normal(1, 4, seed=4)
    multiplier = Relevance("m").as_multiplier(b, facts, "x")
    back = Relevance(multiplier, "x").as_map(b)
    np.testing.assert_allclose(evaluate(b, back, {"x": x, "m": r}), r, rtol=1e-6)


def test_nothing_is_relevant_where_a_guarded_base_is_infinite() -> None:
    b, _ = _ground()
    guarded = Relevance("m", "x", guarded=True).as_map(b)
    found = evaluate(b, guarded, {"x": np.array([[2.0, -np.inf, np.inf, 0.5]], np.float32), "m": M})
    np.testing.assert_allclose(found, [[2.0, 0.0, 0.0, 2.0]])
