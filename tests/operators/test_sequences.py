"""Sequences carry relevance from the tensors they are made of to the tensors read out of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import parser

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.gradients import distinct

Array = np.ndarray
_HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
_MAP = "body = b (float[K] e) => (float[K] f) { f = Mul(e, e) }"
_MAP_WITH_TENSOR = "body = b (float[K] e, float[3] t) => (float[K] f) { f = Mul(e, t) }"

#: Each gives z from x [4, 3] (and p, a position known at run time).
GRAPHS: Mapping[str, str] = {
    "construct-at": "n = Neg(x) s = SequenceConstruct(x, n) z = SequenceAt(s, one)",
    "construct-at-run-time": "n = Mul(x, x) s = SequenceConstruct(x, n) z = SequenceAt(s, p)",
    "construct-concat": "n = Mul(x, x) s = SequenceConstruct(x, n) z = ConcatFromSequence <axis = 1> (s)",
    "construct-concat-new-axis": (
        "n = Mul(x, x) s = SequenceConstruct(x, n) z = ConcatFromSequence <axis = 1, new_axis = 1> (s)"
    ),
    "insert-erase": (
        "n = Mul(x, x) e = SequenceEmpty <dtype = 1> () s = SequenceInsert(e, x) t = SequenceInsert(s, n, zero) "
        "u = SequenceInsert(t, n) v = SequenceErase(u, zero) i = Identity(v) z = ConcatFromSequence <axis = 0> (i)"
    ),
    "insert-before-the-last": (
        "n = Mul(x, x) s = SequenceConstruct(x, n) t = SequenceInsert(s, x, last) z = SequenceAt(t, last)"
    ),
    "split-concat": (
        "s = SplitToSequence <axis = 0, keepdims = 0> (x) z = ConcatFromSequence <axis = 0, new_axis = 1> (s)"
    ),
    "split-keep-concat": "s = SplitToSequence <axis = 1> (x) z = ConcatFromSequence <axis = 1> (s)",
    "split-at": "s = SplitToSequence <axis = 0, keepdims = 0> (x) z = SequenceAt(s, p)",
    "split-by-sizes": "s = SplitToSequence <axis = 0> (x, sizes) z = SequenceAt(s, one)",
    "split-by-number": "s = SplitToSequence <axis = 0> (x, three) z = SequenceAt(s, one)",
    "map-stack": (
        f"s = SplitToSequence <axis = 0, keepdims = 0> (x) m = SequenceMap <{_MAP}> (s) "
        "z = ConcatFromSequence <axis = 0, new_axis = 1> (m)"
    ),
    "map-list": (
        f"n = Neg(x) r = ReduceSum <keepdims = 0> (n, axes) q = ReduceMax <keepdims = 0> (x, axes) "
        f"s = SequenceConstruct(r, q) m = SequenceMap <{_MAP}> (s) z = ConcatFromSequence <axis = 0> (m)"
    ),
    "map-with-a-tensor": (
        f"t = ReduceSum <keepdims = 0> (x, axes) s = SplitToSequence <axis = 0, keepdims = 0> (x) "
        f"m = SequenceMap <{_MAP_WITH_TENSOR}> (s, t) z = ConcatFromSequence <axis = 1, new_axis = 1> (m)"
    ),
    "optional": "o = Optional(x) g = OptionalGetElement(o) z = Mul(g, g)",
    "optional-of-a-tensor": "g = OptionalGetElement(x) z = Mul(g, g)",
    "loop-that-appends": (
        "e = SequenceEmpty <dtype = 1> () "
        "s, l = Loop (three, , x, e) <body = b (int64 i, bool c, float[4,3] h, seq(float[4,3]) q) => "
        "(bool more, float[4,3] g, seq(float[4,3]) r) "
        "{ more = Identity(c) g = Tanh(h) k = Mul(g, x) r = SequenceInsert(q, k) }> "
        "w = ConcatFromSequence <axis = 1> (l) z = Concat <axis = 1> (s, w)"
    ),
}


def _model(graph: str) -> onnx.ModelProto:
    constants = "int64 zero = {0}, int64 one = {1}, int64 last = {-1}, int64 three = {3}"
    constants += ", int64[1] axes = {0}, int64[2] sizes = {1, 3}"
    model = parser.parse_model(f"{_HEADER} g (float[4,3] x, int64 p) => (float z) <{constants}> {{ {graph} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def _gradient(model: onnx.ModelProto, x: Array, p: Array, seed: Array) -> Array:
    """Central differences in float32, coarse but good to 1e-3."""
    step, found = 1e-2, np.zeros(x.shape)
    for i in range(x.size):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved.flat[i] += sign * step
            values.append(float((seed * run_onnxruntime(model, {"x": moved, "p": p})["z"].astype(np.float64)).sum()))
        found.flat[i] = (values[0] - values[1]) / (2 * step)
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_the_derivative_goes_through_the_sequence(name: str) -> None:
    model, x, p = _model(GRAPHS[name]), distinct(4, 3, seed=2).astype(np.float32), np.array(1)
    emitted = onnxlrp.convert(model, rules="gradient-x-input", target="seed")
    seed = np.random.default_rng(1).normal(size=run_onnxruntime(model, {"x": x, "p": p})["z"].shape).astype(np.float32)
    found = run_onnxruntime(emitted, {"x": x, "p": p, "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, x * _gradient(model, x, p, seed)) < 2e-3


@pytest.mark.parametrize("name", GRAPHS)
def test_the_ledger_closes(name: str) -> None:
    feeds = {"x": distinct(4, 3, seed=2).astype(np.float32), "p": np.array(1)}
    report = onnxlrp.verify(_model(GRAPHS[name]), feeds, rules="epsilon")
    assert [c.name for c in report.checks if not c.passed and c.name != "batch independence"] == []


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("s = SequenceConstruct(x, x) t = SequenceInsert(s, x, p) z = SequenceAt(t, one)", "computed at run time"),
        (
            "s = SplitToSequence <axis = 0> (x) t = SequenceErase(s, zero) z = SequenceAt(t, one)",
            "whose length is not known",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(graph: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        onnxlrp.convert(_model(graph), rules="epsilon")
