"""From emitted nodes to a graph: what is used, what depends on what, and the names of the outputs."""

from __future__ import annotations

from onnxlrp.emit.assemble import Output, depending_on, forward_first, plain, split, used_nodes
from onnxlrp.emit.builder import Emitted


def _node(name: str, *inputs: str, outputs: int = 1) -> Emitted:
    names = tuple(name if i == 0 else f"{name}:{i}" for i in range(outputs))
    return Emitted("Sum", name, inputs, names, {}, "scope")


#: b and d are read by nobody; c gives two tensors.
NODES = [
    _node("a", "x"),
    _node("b", "a"),
    _node("c", "a", "w", outputs=2),
    _node("d", "b"),
    _node("e", "c:1", "lrp/index"),
]


def test_only_what_is_wanted_is_kept_in_order() -> None:
    assert [n.name for n in used_nodes(NODES, ["e"])] == ["a", "c", "e"]
    assert [n.name for n in used_nodes(NODES, ["d", "c"])] == ["a", "b", "c", "d"]
    assert used_nodes(NODES, ["x"]) == []


def test_what_depends_on_a_tensor_is_found_through_any_number_of_nodes() -> None:
    assert depending_on(NODES, ["b"]) == {"b", "d"}
    assert depending_on(NODES, ["w"]) == {"w", "c", "c:1", "e"}


def test_nodes_are_split_by_what_they_depend_on() -> None:
    outer, inner = split(NODES, depending_on(NODES, ["lrp/index"]))
    assert ([n.name for n in outer], [n.name for n in inner]) == (["a", "b", "c", "d"], ["e"])


def test_what_needs_no_relevance_comes_first_and_each_group_keeps_its_order() -> None:
    assert [n.name for n in forward_first(NODES, ["b"])] == ["a", "c", "e", "b", "d"]
    assert [n.name for n in forward_first(NODES, ["w"])] == ["a", "b", "d", "c", "e"]


def test_what_is_reduced_comes_just_before_what_reads_it() -> None:
    """It takes less room than what it is made of."""
    mean = Emitted("ReduceMean", "mean", ("x", "axes"), ("mean",), {}, "scope")
    nodes = [
        mean,
        _node("two", "axes"),
        _node("d", "mean", "two"),
        _node("b", "x"),
        _node("c", "b"),
        _node("e", "d", "c"),
    ]
    assert [n.name for n in forward_first(nodes, ["b"], ["axes"])] == ["two", "b", "c", "mean", "d", "e"]
    waiting = [*nodes[:3], _node("w", "d", "x"), *nodes[3:], _node("f", "w", "e")]
    assert [n.name for n in forward_first(waiting, ["b"], ["axes"])] == ["mean", "two", "d", "w", "b", "c", "e", "f"]


def test_the_last_node_takes_on_the_name_of_the_output() -> None:
    nodes = plain(used_nodes(NODES, ["e", "c"]), [Output("map", "e", (2,)), Output("inner", "c", (2,))])
    assert [(n.name, list(n.input), list(n.output)) for n in nodes] == [
        ("a", ["x"], ["a"]),
        ("c", ["a", "w"], ["inner", "c:1"]),
        ("e", ["c:1", "lrp/index"], ["map"]),
    ]


def test_a_tensor_that_is_returned_twice_or_was_there_before_is_copied() -> None:
    nodes = plain(used_nodes(NODES, ["a"]), [Output(n, t, (2,)) for n, t in (("one", "a"), ("two", "a"), ("own", "x"))])
    assert [(n.op_type, list(n.input), list(n.output)) for n in nodes] == [
        ("Sum", ["x"], ["one"]),
        ("Identity", ["one"], ["two"]),
        ("Identity", ["x"], ["own"]),
    ]
