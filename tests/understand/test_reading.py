"""Composite operators are read in simpler ones, and the model keeps its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.emit.builder import Builder
from onnxlrp.operators import lowering
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.registry import Situation
from tests.operators.examples import Example, expect_derivative
from tests.support.evaluate import relative_l2, run_onnxruntime


def _square_root_of_square(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """Softsign written as x / (1 + |x|); an example of a composite, made up for these tests."""
    (x,) = at.node.inputs
    if at.graph.shape(x) == (1, 1):
        return Refusal("it is too small", "make it larger")
    if at.graph.shape(x) == (1, 2):
        return None
    return (b.div(x, b.add(b.op("Abs", x), b.scalar(1.0, x))),)


@pytest.fixture(autouse=True)
def composite_softsign(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(lowering._LOWERINGS, ("", "Softsign"), _square_root_of_square)
    yield


def _softsign(*shape: int) -> Example:
    return Example(shape, lambda net, a: net.op("Softsign", a), len(shape))


def _model(*shape: int) -> onnx.ModelProto:
    return _softsign(*shape).model(dtype=np.float32)


def test_parts_get_rules_of_their_own() -> None:
    steps = onnxlrp.plan(_model(2, 3), rules="gradient-x-input").steps
    assert [step.operator for step in steps] == ["Div", "Add", "Abs"]


def test_the_derivative_is_that_of_the_parts() -> None:
    expect_derivative(_softsign(2, 3))


def test_the_model_keeps_its_node() -> None:
    emitted = onnxlrp.convert(_model(2, 3), rules="gradient-x-input")
    assert [n.op_type for n in emitted.graph.node if not n.name.startswith("lrp/")] == ["Softsign"]


def test_a_lowering_may_leave_a_node_whole() -> None:
    assert [step.operator for step in onnxlrp.plan(_model(1, 2), rules="epsilon").steps] == ["Softsign"]


_TABLE = """
name = "mine"
[[rule]]
op = ["Softsign"]
kind = ["product"]
rule = "half"
"""


def test_a_table_may_name_the_composite_operator(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(_TABLE)
    (quotient,) = [s for s in onnxlrp.plan(_model(2, 3), rules=file).steps if s.operator == "Div"]
    assert quotient.rule == "half"
    assert "op Div in Softsign" in quotient.reason


def test_on_demand_computes_parts_inside_the_branch() -> None:
    model, x = _model(2, 3), np.array([[0.5, -2.0, 1.0], [3.0, 0.25, -1.0]], np.float32)
    plain = run_onnxruntime(onnxlrp.convert(model, rules="gradient-x-input"), {"a": x})["a_relevance"]
    emitted = onnxlrp.convert(model, rules="gradient-x-input", on_demand=True)
    assert not any(n.name.startswith("lrp/of/") for n in emitted.graph.node)
    switched = run_onnxruntime(emitted, {"a": x, "lrp_explain": np.ones((2, 1), bool)})["a_relevance"]
    assert relative_l2(switched, plain) < 1e-6


def test_a_node_that_cannot_be_taken_apart_is_treated_by_its_own_entry() -> None:
    assert [step.operator for step in onnxlrp.plan(_model(1, 1), rules="epsilon").steps] == ["Softsign"]
