"""The function that stands for an operator at one node: written out, or told why not."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, parser

from onnxlrp.read.functions import DoesNotFitError, key_of, named, needed, written_out

LIBRARY = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
    g (float[N] x) => (float[N] y) { y = Neg(x) }
    <domain: "f", opset_import: ["" : 21, "f" : 1]> outer <a: float = 2.0> (x, z) => (y, k) {
        h = f.inner:fast<a: float = @a>(x)  y = Add(h, z)
        c = Constant<value = bool {1}>()
        k = If (c) <then_branch = t () => (float[N] u) { u = f.deep(h) },
                    else_branch = e () => (float[N] v) { v = Neg(h) }> }
    <domain: "f", overload: "fast", opset_import: ["" : 21]> inner <a: float> (x) => (y) {
        y = LeakyRelu<alpha: float = @a>(x) }
    <domain: "f", opset_import: ["" : 18]> deep (x) => (y) { y = Exp(x) }
    <domain: "f", opset_import: ["" : 21]> beside (x) => (y) { y = Neg(x) }""").functions
OUTER = ("f", "outer", "")
FLOATS = helper.make_tensor_type_proto(TensorProto.FLOAT, [4])


def node(inputs: int = 2, outputs: int = 2, **attributes: float) -> onnx.NodeProto:
    return helper.make_node("Mine", list("pqr"[:inputs]), list("stu"[:outputs]), name="mine", **attributes)


def body(at: onnx.NodeProto) -> onnx.GraphProto:
    return written_out(needed(LIBRARY, OUTER), OUTER, at, [FLOATS] * len(at.input), 21)


def test_a_function_needs_what_it_calls_in_branches_too() -> None:
    assert {named(key_of(f)) for f in needed(LIBRARY, OUTER)} == {"f::outer", "f::inner:fast", "f::deep"}
    assert needed(LIBRARY, ("f", "none", "")) == []


def test_it_is_written_out_between_the_inputs_and_outputs_of_the_node() -> None:
    graph = body(node(a=0.5))
    assert [n.op_type for n in graph.node] == ["LeakyRelu", "Add", "Constant", "If"]
    assert {n.domain for n in graph.node} == {""}
    assert (graph.node[0].input[0], graph.node[1].input[1]) == ("p", "q")
    assert (graph.node[1].output[0], graph.node[3].output[0]) == ("s", "t")
    assert graph.node[0].attribute[0].f == 0.5


def test_what_the_node_leaves_out_is_the_functions_default() -> None:
    assert body(node()).node[0].attribute[0].f == 2.0
    assert [n.op_type for n in body(node(outputs=1)).node][:2] == ["LeakyRelu", "Add"]


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (node(inputs=3), "it has 3 inputs, and function f::outer has 2"),
        (node(outputs=3), "it has 3 outputs, and function f::outer has 2"),
        (node(b=1.0), "it has the attribute 'b', which function f::outer does not take"),
    ],
)
def test_a_node_with_more_than_the_function_takes_does_not_fit(at: onnx.NodeProto, text: str) -> None:
    with pytest.raises(DoesNotFitError, match=text):
        body(at)


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(DoesNotFitError, match="there is no function f::none"):
        written_out(LIBRARY, ("f", "none", ""), node(), [FLOATS] * 2, 21)


def test_a_function_of_an_older_opset_is_lifted_to_the_models() -> None:
    graph = written_out(needed(LIBRARY, ("f", "deep", "")), ("f", "deep", ""), node(1, 1), [FLOATS], 21)
    assert [n.op_type for n in graph.node] == ["Exp"]
