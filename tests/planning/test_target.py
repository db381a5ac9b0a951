"""What is explained: how targets are written, which output is taken, and which heads are stepped over."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.planning.target import Explained, Span, Target, check_index, parse_target, resolve_outputs
from tests.graph.written import network, normal, view


@pytest.mark.parametrize(
    ("given", "expected", "shown"),
    [
        ("argmax", Target("argmax"), "argmax"),
        ("input", Target("input"), "input"),
        ("seed", Target("seed"), "seed"),
        ("top:3", Target("top", k=3), "top:3"),
        ("7", Target("index", (7,)), "7"),
        ("7,3,-5", Target("index", (7, 3, -5)), "7,3,-5"),
        (7, Target("index", (7,)), "7"),
        (-1, Target("index", (-1,)), "-1"),
        ((7, 3), Target("index", (7, 3)), "7,3"),
        ([7, 3], Target("index", (7, 3)), "7,3"),
        (np.int64(7), Target("index", (7,)), "7"),
        (np.array([7, 3]), Target("index", (7, 3)), "7,3"),
        ("10:20,5", Target("index", (Span(10, 20), 5)), "10:20,5"),
        (" :, -3: ", Target("index", (Span(None, None), Span(-3, None))), ":,-3:"),
        ((slice(4), 5), Target("index", (Span(None, 4), 5)), ":4,5"),
    ],
)
def test_a_target_is_a_word_or_an_index_and_reads_as_it_is_written(given: Any, expected: Target, shown: str) -> None:
    assert parse_target(given) == expected
    assert str(expected) == shown
    assert parse_target(shown) == expected


@pytest.mark.parametrize(
    "given",
    [
        "",
        "best",
        "top",
        "top:",
        "top:0",
        "top:-1",
        "top:1.5",
        "7;3",
        "7,",
        "1.5",
        1.5,
        (1.5,),
        (),
        True,
        None,
        "7,x",
        "1:2:3",
        "1:x",
        (slice(0, 4, 2),),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(given: Any) -> None:
    with pytest.raises(UsageError, match="is not argmax, an index such as 7 or 7,3,5 or 10:20,5, input, seed or top:K"):
        parse_target(given)


def test_a_target_may_be_preferred_to_an_index() -> None:
    assert parse_target("7,3", rather_than=(2, slice(4))) == Target("index", (7, 3), rather_than=(2, Span(None, 4)))
    assert str(parse_target(7, rather_than=3)) == "7 rather than 3"
    assert str(parse_target("argmax", rather_than="3")) == "argmax rather than 3"
    with pytest.raises(UsageError, match="is an index such as 7 or 7,3,5, not 'argmax'"):
        parse_target(7, rather_than="argmax")
    for other in ("input", "seed", "top:2"):
        with pytest.raises(UsageError, match="use seed for other pairs"):
            parse_target(other, rather_than=3)
    with pytest.raises(UsageError, match="use seed for other pairs"):
        parse_target("argmax", 1, 3)


def test_an_axis_goes_with_argmax_only() -> None:
    assert parse_target("argmax", 1) == Target("argmax", axis=1)
    assert str(parse_target("argmax", 1)) == "argmax along axis 1"
    for other in ("input", "seed", "top:2", 7):
        with pytest.raises(UsageError, match="an axis goes with the target argmax"):
            parse_target(other, 1)


@pytest.mark.parametrize(
    ("target", "shape", "message"),
    [
        (Target("index", (5,)), ("N", 5), "target 5 is out of range: axis 1 of output 'y' has 5 elements (0 to 4)"),
        (Target("index", (-6,)), ("N", 5), "target -6 is out of range"),
        (Target("index", (1, 7)), ("N", 5, 7), "target 7 is out of range: axis 2 of output 'y' has 7 elements"),
        (Target("index", (1,)), ("N", 5, None), "target 1 has 1 indices, but output 'y' of shape [N, 5, ?] takes 2"),
        (Target("index", (Span(5, 9),)), ("N", 5), "target 5:9 takes none of the 5 elements of axis 1"),
        (Target("index", (0, Span(3, -2))), ("N", 5, 5), "target 3:-2 takes none of the 5 elements of axis 2"),
        (Target("index", (1, 2)), ("N", 5), "takes 1 (the batch axis is left out)"),
        (Target("index", (0,)), ("N",), "takes 0"),
        (Target("index", (0,)), None, "the rank of output 'y' is not known; use the target argmax"),
        (Target("input"), None, "the rank of output 'y' is not known"),
        (Target("top", k=2), None, "the rank of output 'y' is not known"),
        (Target("argmax", axis=1), None, "the rank of output 'y' is not known"),
        (Target("argmax", axis=2), ("N", 5), "axis 2 is out of range for output 'y' of rank 2"),
        (Target("argmax", axis=-3), ("N", 5), "axis -3 is out of range"),
        (Target("argmax", axis=0), ("N", 5), "axis 0 is the batch"),
        (Target("argmax", axis=-2), ("N", 5), "axis 0 is the batch"),
        (Target("input"), ("N",), "output 'y' has no axis besides the batch, so there is no class to choose"),
        (Target("top", k=1), ("N",), "no axis besides the batch"),
        (Target("top", k=11), ("N", 2, 5), "top:11 is out of range: output 'y' has 10 elements"),
    ],
)
def test_what_an_output_cannot_have_is_refused_beforehand(target: Target, shape: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_index(target, "y", shape)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (Target("index", (4,)), ("N", 5)),
        (Target("index", (-5,)), ("N", 5)),
        (Target("index", (999,)), ("N", None)),
        (Target("index", (Span(4, 99),)), ("N", 5)),
        (Target("index", (Span(5, None),)), ("N", None)),
        (Target("argmax"), None),
        (Target("seed"), None),
        (Target("argmax", axis=-1), ("N", 5)),
        (Target("top", k=10), ("N", 2, 5)),
        (Target("top", k=99), ("N", None)),
    ],
)
def test_what_may_be_possible_is_let_through(target: Target, shape: Any) -> None:
    check_index(target, "y", shape)


X = "g (float[N,5] x) => (float[N,5] y)"

#: Heads: nodes that end in y -> the tensor that relevance starts from, and the operators that were stepped over.
HEADS = {
    "none": ("y = Relu(x)", "y", []),
    "softmax": ("z = Relu(x) y = Softmax(z)", "z", ["Softmax"]),
    "log softmax": ("z = Relu(x) y = LogSoftmax(z)", "z", ["LogSoftmax"]),
    "sigmoid": ("z = Relu(x) y = Sigmoid(z)", "z", ["Sigmoid"]),
    "arg max": ("z = Relu(x) y = ArgMax<axis = 1>(z)", "z", ["ArgMax"]),
    "arg max of softmax": ("z = Relu(x) p = Softmax(z) y = ArgMax<axis = 1>(p)", "z", ["ArgMax", "Softmax"]),
    "behind a cast": ("z = Relu(x) p = Softmax(z) y = Cast<to = 11>(p)", "z", ["Softmax"]),
    "behind identity and dropout": ("z = Relu(x) p = Sigmoid(z) d = Dropout(p) y = Identity(d)", "z", ["Sigmoid"]),
    "reshapes of a plain output stay": ("z = Relu(x) y = Flatten(z)", "y", []),
    "softmax inside is no head": ("p = Softmax(x) y = Relu(p)", "y", []),
    "reshaped for the softmax": (
        "z = Relu(x) f = Flatten<axis = 1>(z) p = Softmax(f) s = Shape(z) y = Reshape(p, s)",
        "z",
        ["Softmax"],
    ),
    "another domain's softmax": ("z = Relu(x) y = com.example.Softmax(z)", "y", []),
}


@pytest.mark.parametrize("case", HEADS)
def test_relevance_starts_before_a_head_and_says_so(case: str) -> None:
    nodes, tensor, heads = HEADS[case]
    model = network(f"{X} {{ {nodes} }}")
    if "ArgMax" in heads:
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
        model.graph.output[0].type.tensor_type.ClearField("shape")
    if case == "behind a cast":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    if case.startswith("another domain"):
        pass
    (found,) = resolve_outputs(view(model), ())
    assert (found.name, found.tensor) == ("y", tensor)
    assert [note.split("(")[1].split(")")[0] for note in found.notes] == heads
    assert all("stepped over: relevance starts at the" in note for note in found.notes)


def test_a_head_over_a_changed_shape_starts_at_what_the_head_read() -> None:
    """Two axes made one before the softmax: its classes are those of the reshaped tensor."""
    model = network("g (float[N,2,3] x) => (float[N,6] y) { f = Flatten(x) y = Softmax(f) }")
    assert resolve_outputs(view(model), ())[0].tensor == "f"


@pytest.mark.parametrize("opset", range(7, 13))
@pytest.mark.parametrize("head", ["Softmax", "LogSoftmax"])
def test_the_softmax_of_old_operator_sets_is_stepped_over_too(opset: int, head: str) -> None:
    """Lifting puts it between a Flatten and a Reshape; relevance still starts at the model's own logits."""
    nodes = f"z = MatMul(x, w) y = {head}(z)"
    model = network(f"g (float[N,4] x) => (float[N,3] y) {{ {nodes} }}", opset=opset, w=normal(4, 3))
    model.ir_version = 4
    plan = onnxlrp.plan(model)
    assert any("stepped over" in note for note in plan.notes)
    assert plan.steps[0].operator == "MatMul"
    spatial = network(
        f"g (float[N,4,2,2] x) => (float[N,4,2,2] y) {{ z = Relu(x) y = {head}<axis = 1>(z) }}", opset=opset
    )
    assert [s.operator for s in onnxlrp.plan(spatial).steps] == ["Relu"]


def test_the_first_float_output_is_taken() -> None:
    model = network(
        "g (float[N,5] x) => (int64[1] i, float[N,5] a, float[N,5] b) { i = Size(x) a = Relu(x) b = Neg(x) }"
    )
    assert resolve_outputs(view(model), ()) == (Explained("a", "a"),)


def test_named_tensors_are_taken_in_order_once_each_and_inside_the_model_as_they_are() -> None:
    model = network("g (float[N,5] x) => (float[N,5] y) { h = Sigmoid(x) z = Relu(h) y = Softmax(z) }")
    found = resolve_outputs(view(model), ("y", "h", "y"))
    assert [(e.name, e.tensor) for e in found] == [("y", "z"), ("h", "h")]
    assert found[1].notes == (), "a Sigmoid that is named itself is what the user wants to see explained"


def test_a_name_that_does_not_exist_or_is_not_made_of_floats_is_refused() -> None:
    graph = view(network("g (float[N,5] x) => (float[N,5] y, int64[2] s) { y = Relu(x) s = Shape(x) }"))
    with pytest.raises(UsageError, match="no tensor 'q'; its outputs are y, s"):
        resolve_outputs(graph, ("q",))
    with pytest.raises(UsageError, match="'s' is not made of floats"):
        resolve_outputs(graph, ("s",))


def test_a_model_without_float_outputs_has_nothing_to_explain() -> None:
    graph = view(network("g (float[N,5] x) => (int64[2] s) { s = Shape(x) }"))
    with pytest.raises(ConversionError, match="no output made of floats"):
        resolve_outputs(graph, ())
