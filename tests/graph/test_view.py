"""The read-only view: who makes and who reads each tensor, and what is known of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxlrp.graph.view import Graph, captured_names, graph_names, reads
from tests.graph.written import network, view

BRANCHES = """g (float[N,3] x, float[1,3] y, bool c) => (float[N,3] z)
{
  a = Relu(x)
  z = If(c) <
    then_branch = t () => (float[M,3] p) { k = Constant<value_float = 2.0>() m = Mul(a, k) p = Add(m, y) },
    else_branch = e () => (float[M,3] q) { q = Neg(x) }>
}"""


def test_nodes_are_named_after_operator_and_position_where_they_have_no_name() -> None:
    model = network("g (float[2] x) => (float[2] z) { a = Relu(x) z = Neg(a) }")
    model.graph.node[1].name = "last"
    graph = view(model)
    assert [(n.name, n.label) for n in graph.nodes] == [("Relu_0", "Relu_0 (Relu)"), ("last", "last (Neg)")]


def test_a_weight_that_is_also_a_graph_input_is_no_input() -> None:
    """As in every model of IR version 3."""
    model = network("g (float[2] x, float[2] w) => (float[2] z) { z = Add(x, w) }", w=np.ones(2))
    assert view(model).inputs == ("x",)


def test_every_reader_is_found_once_and_those_inside_branches_too() -> None:
    graph = view(network(BRANCHES))
    readers = {tensor: [n.op for n in nodes] for tensor, nodes in graph.consumers.items()}
    assert readers == {"x": ["Relu", "If"], "a": ["If"], "y": ["If"], "c": ["If"]}
    twice = view(network("g (float[2] x) => (float[2] z) { z = Mul(x, x) }"))
    assert len(twice.consumers["x"]) == 1


def test_what_a_node_reads_includes_what_its_branches_capture_through_any_depth() -> None:
    inner = network(BRANCHES).graph.node[1]
    outer = onnx.helper.make_node("Wrap", ["v"], ["o"])
    body = onnx.helper.make_graph([inner], "body", [], [onnx.helper.make_empty_tensor_value_info("z")])
    outer.attribute.append(onnx.helper.make_attribute("body", body))
    outer.domain = "com.example"
    assert captured_names(body) == {"a", "c", "x", "y"}
    model = network("g (float[2] v) => (float[2] o) { o = com.example.Other(v) }")
    model.graph.node[0].CopyFrom(outer)
    assert reads(Graph(model).nodes[0]) == ("v", "a", "c", "x", "y")


def test_a_name_made_inside_a_branch_is_not_captured() -> None:
    then = network(BRANCHES).graph.node[1].attribute[0].g
    assert captured_names(then) == {"a", "y"}


def test_all_names_of_a_graph_include_those_of_its_branches() -> None:
    model = network(BRANCHES)
    model.graph.node[1].attribute[0].g.node[0].name = "deep"
    tensors, nodes = graph_names(model.graph)
    assert tensors == {"x", "y", "c", "a", "z", "k", "m", "p", "q"}
    assert "deep" in nodes


@pytest.mark.parametrize(
    ("declared", "shape", "static"),
    [
        ("float[2,3]", (2, 3), (2, 3)),
        ("float[N,3]", ("N", 3), None),
        ("float[?,3]", (None, 3), None),
        ("float", (), ()),
        ("float[]", None, None),
    ],
)
def test_a_dimension_is_a_number_a_symbol_or_unknown(declared: str, shape: object, static: object) -> None:
    model = network(f"g ({declared} x) => (float[] z) {{ z = Relu(x) }}")
    if declared == "float":
        model.graph.input[0].type.tensor_type.shape.SetInParent()
    if declared == "float[]":
        model.graph.input[0].type.tensor_type.ClearField("shape")
    graph = Graph(model)
    assert (graph.shape("x"), graph.static_shape("x")) == (shape, static)
    assert graph.is_float("x")


def test_attributes_are_python_values() -> None:
    model = network(
        'g (float[1,1,4,4] x) => (float[] z) { z = AveragePool<auto_pad = "VALID", kernel_shape = [2,2]>(x) }'
    )
    node = view(model).nodes[0]
    assert (node.attribute("auto_pad"), node.attribute("kernel_shape")) == ("VALID", [2, 2])
    assert node.attribute("strides", "none") == "none"


def test_a_missing_input_is_an_empty_name() -> None:
    node = view(network("g (float[2] x) => (float[2] z) { z = Clip(x) }")).nodes[0]
    assert (node.input(0), node.input(1), node.input(2)) == ("x", "", "")


def test_the_long_name_of_the_default_domain_is_the_default_domain() -> None:
    model = network("g (float[2] x) => (float[2] z) { z = Relu(x) }")
    model.graph.node[0].domain = "ai.onnx"
    assert Graph(model).nodes[0].domain == ""
