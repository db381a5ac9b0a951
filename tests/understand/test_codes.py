"""Which scale and zero point an integer tensor was written with, and what rounding leaves of bounds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxlrp.graph.view import Graph
from onnxlrp.read.shapes import infer
from onnxlrp.understand.codes import Code, bounds, code_of, per_tensor
from onnxlrp.understand.facts import Facts, Range

CONSTANTS = {
    "s": np.float32(0.02),
    "z": np.uint8(0),
    "middle": np.uint8(128),
    "signed": np.int8(-128),
    "rows": np.array([0.1, 0.2, 0.3], np.float32),
    "zeros": np.zeros(3, np.uint8),
    "flat": np.array([-1]),
}


def _graph(*nodes: tuple[str, str, str]) -> Graph:
    """Nodes (operator, inputs, outputs) behind the data x [2, 3]."""
    made = [helper.make_node(op, i.split(), o.split()) for op, i, o in nodes]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info(nodes[-1][2].split()[0], TensorProto.UNDEFINED, None)
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in CONSTANTS.items()]
    model: ModelProto = helper.make_model(
        helper.make_graph(made, "codes", [x], [y], constants), opset_imports=[helper.make_opsetid("", 21)]
    )
    return Graph(model, infer(model))


def test_the_code_is_that_of_the_operator_that_wrote_the_integers() -> None:
    graph = _graph(("QuantizeLinear", "x s z", "q"))
    assert code_of(graph, "q") == Code("s", "z", 1)
    dynamic = _graph(("DynamicQuantizeLinear", "x", "q scale zero"))
    assert code_of(dynamic, "q") == Code("scale", "zero", 1)
    assert code_of(dynamic, "zero") is None, "a zero point stands for nothing else"


def test_movement_keeps_the_code() -> None:
    graph = _graph(("QuantizeLinear", "x s z", "q"), ("Reshape", "q flat", "r"), ("Concat", "r r", "c"))
    assert code_of(graph, "c") == Code("s", "z", 1)


def test_floats_and_other_integers_have_none() -> None:
    graph = _graph(("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "y"), ("ArgMax", "y", "i"))
    assert code_of(graph, "y") is None and code_of(graph, "i") is None and code_of(graph, "x") is None


def test_one_scale_or_several() -> None:
    graph = _graph(("QuantizeLinear", "x s z", "q"))
    assert per_tensor(graph, Code("s", "z")) and not per_tensor(graph, Code("rows", "zeros"))


def test_bounds_are_those_of_the_type() -> None:
    graph = _graph(("QuantizeLinear", "x s z", "q"))
    assert bounds(graph, Code("s", "z")) == (0, 255)
    assert bounds(graph, Code("s", "signed")) == (-128, 127)
    assert bounds(graph, Code("s", "")) == (0, 255), "uint8 where nothing is said"


@pytest.mark.parametrize(
    ("before", "zero", "expected"),
    [
        ("Identity", "z", Range(0.0, np.inf)),
        ("Identity", "middle", Range()),
        ("Relu", "middle", Range(0.0, np.inf)),
        ("Sigmoid", "middle", Range(0.0, 1.0)),
        ("Tanh", "middle", Range(-1.0, 1.0)),
        ("Tanh", "z", Range(0.0, 1.0)),
    ],
)
def test_what_is_known_of_numbers_that_were_rounded(before: str, zero: str, expected: Range) -> None:
    """A gate stays one: its bounds are rounded as its values are. What the integers cannot hold is cut off."""
    graph = _graph((before, "x", "a"), ("QuantizeLinear", f"a s {zero}", "q"), ("DequantizeLinear", f"q s {zero}", "y"))
    found = Facts(graph).range("y")
    assert found.low == pytest.approx(expected.low) and found.high == pytest.approx(expected.high)
