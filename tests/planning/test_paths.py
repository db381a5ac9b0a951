"""Which tensors lie between input and target, and where on the way each node stands."""

from __future__ import annotations

import numpy as np

from onnxlrp.graph.view import Graph, Node
from onnxlrp.planning.paths import Paths
from tests.graph.written import network, normal, view

#: Two branches of different length, a side branch, and one layer that does not see the input.
TEXT = """g (float[2,4] x, float[2,4] other) => (float[2,4] y, float[2,4] side)
{
  a = MatMul(x, w)
  b = Relu(a)
  c = MatMul(b, w)
  d = Add(c, x)
  o = MatMul(other, w)
  e = Add(d, o)
  f = Gemm(e, w)
  y = Tanh(f)
  side = Neg(b)
}"""


def _paths(target: str = "y", *inputs: str, text: str = TEXT) -> tuple[Graph, Paths]:
    graph = view(network(text, w=normal(4, 4)))
    return graph, Paths(graph, inputs or ("x",), (target,))


def _maker(graph: Graph, tensor: str) -> Node:
    return graph.producer[tensor]


def test_between_input_and_target_is_what_depends_on_one_and_leads_to_the_other() -> None:
    _, paths = _paths()
    assert paths.between == {"x", "a", "b", "c", "d", "e", "f", "y"}
    assert "side" in paths.forward and "o" not in paths.forward
    _, both = _paths("y", "x", "other")
    assert both.between == paths.between | {"other", "o"}


def test_an_input_that_the_target_does_not_depend_on_is_not_reached() -> None:
    _, paths = _paths("side", "x", "other")
    assert paths.reaches("x") and not paths.reaches("other")


def test_first_and_last_layers_are_those_without_another_layer_on_that_side() -> None:
    graph, paths = _paths()
    first = {t for t in ("a", "c", "f") if paths.is_first(_maker(graph, t))}
    last = {t for t in ("a", "c", "f") if paths.is_last(_maker(graph, t))}
    assert (first, last) == ({"a"}, {"f"})


def test_first_and_last_are_counted_from_the_explained_input_to_the_explained_output() -> None:
    graph, paths = _paths("c", "b")
    assert paths.is_first(_maker(graph, "c")) and paths.is_last(_maker(graph, "c"))
    graph, other = _paths("y", "other")
    assert other.is_first(_maker(graph, "o")), "the layers that x goes through do not count"


def test_a_product_of_two_data_tensors_is_no_layer() -> None:
    graph, paths = _paths(text="g (float[4,4] x) => (float[4,4] y) { a = MatMul(x, x) y = MatMul(a, w) }")
    assert paths.is_first(_maker(graph, "y"))


def test_depth_runs_from_input_to_target_along_the_longest_way() -> None:
    graph, paths = _paths()
    depths = [paths.depth(_maker(graph, t)) for t in ("a", "b", "c", "d", "e", "f", "y")]
    assert depths == [i / 6 for i in range(7)]
    assert paths.depth(_maker(graph, "side")) == 1.0 or "side" not in paths.between


def test_a_single_node_is_the_input_side() -> None:
    graph, paths = _paths(text="g (float[4,4] x) => (float[4,4] y) { y = Relu(x) }")
    assert paths.depth(_maker(graph, "y")) == 0.0


def test_integers_and_stopping_operators_end_a_path() -> None:
    text = """g (float[2,4] x) => (float[2,4] y)
    { i = Cast<to = 7>(x) f = Cast<to = 1>(i) r = Round(x) s = Add(f, r) y = Add(s, x) }"""
    _, paths = _paths(text=text)
    assert paths.between == {"x", "y"}


def test_a_path_through_a_branch_is_a_path() -> None:
    """What a subgraph captures is read as much as an input."""
    text = """g (float[2,4] x, bool c) => (float[2,4] y)
    { h = Neg(x)
      y = If(c) <then_branch = t () => (float[2,4] p) { p = Relu(h) },
                 else_branch = e () => (float[2,4] q) { q = Neg(h) }> }"""
    _, paths = _paths(text=text)
    assert paths.between == {"x", "h", "y"}


def test_weights_computed_from_the_input_are_on_the_way() -> None:
    text = "g (float[4,4] x) => (float[4,4] y) { v = Softmax(x) y = Gemm(w, v) }"
    _, paths = _paths(text=text)
    assert paths.between == {"x", "v", "y"}
    assert np.isclose(paths.depth(_maker(paths.graph, "y")), 1.0)
