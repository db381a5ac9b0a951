"""Where relevance ends on purpose, the plan says so."""

from __future__ import annotations

from onnx import parser

import onnxlrp

MODEL = """<ir_version: 10, opset_import: ["": 21]> g (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{ f = Floor(x)  m = MatMul(x, w)  s = Shape(x)  r = Reshape(m, s)  y = Add(r, f) }"""


def test_a_step_function_on_the_way_is_named_and_a_shape_is_not() -> None:
    notes = onnxlrp.plan(parser.parse_model(MODEL), rules="epsilon").notes
    assert [n for n in notes if "relevance ends" in n] == [
        "Floor_0 (Floor): relevance ends: a step function: its derivative is zero almost everywhere"
    ]
