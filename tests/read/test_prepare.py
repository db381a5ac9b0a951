"""Preparing: nothing is changed without need, and what nobody can run is refused in one clear line."""

from __future__ import annotations

import pytest
from onnx import parser

from onnxlrp.errors import ConversionError
from tests.read.graphs import assert_same_results, bodies, branching, graph, parsed, prepared, refusal


class TestUnchanged:
    @pytest.mark.parametrize("version", range(18, 27))
    def test_recent_opsets_are_left_alone(self, version: int) -> None:
        model = graph("{ y = Relu(x) }", version)
        before = model.SerializeToString(deterministic=True)
        result = prepared(model)
        assert result.model.SerializeToString(deterministic=True) == before
        assert result.model is result.source.model
        assert result.notes == ()

    def test_nothing_is_named_or_described_in_the_model(self) -> None:
        model = graph("{ a = Relu(x)  y = com.microsoft.Gelu(a) }")
        result = prepared(model)
        assert result.model == model
        assert not result.model.graph.value_info

    def test_overridable_initializers_stay_inputs(self) -> None:
        model = graph("{ y = Add(x, w) }", 18, 4, "(float[3] x, float[3] w) => (float[3] y) <float[3] w = {1,2,3}>")
        assert prepared(model).model == model


class TestRefused:
    def test_a_converted_model(self) -> None:
        model = graph("{ y = Relu(x) }")
        model.metadata_props.add(key="onnxlrp.version", value="0.1.0")
        with pytest.raises(ConversionError, match=r"already converted by onnxlrp 0\.1\.0") as caught:
            prepared(model)
        assert caught.value.exit_code == 4

    def test_an_opset_that_the_installed_onnx_does_not_know(self) -> None:
        assert "update onnx" in refusal(graph("{ y = Relu(x) }", 999))

    def test_standard_operators_of_no_opset(self) -> None:
        assert "Relu" in refusal(
            parsed('<ir_version: 8, opset_import: ["other" : 1]> g (float x) => (float y) { y = Relu(x) }')
        )

    def test_a_name_made_twice(self) -> None:
        message = refusal(graph("{ a = Neg(x) a = Abs(x) y = Relu(a) }"))
        assert "more than once: a;" in message

    def test_an_initializer_and_a_node_of_one_name(self) -> None:
        assert "more than once: w;" in refusal(
            graph("{ w = Neg(x) y = Relu(w) }", head="(float[1] x) => (float[1] y) <float[1] w = {1}>")
        )

    def test_inputs_that_nothing_makes(self) -> None:
        message = refusal(graph("{ a = Add(x, b) [named] y = Mul(a, c) }"))
        assert "b (input of Add making 'a')" in message
        assert "c (input of Mul 'named')" in message

    def test_an_output_that_nothing_makes(self) -> None:
        assert "y (output of the graph)" in refusal(graph("{ z = Relu(x) }"))

    def test_many_faults_are_counted(self) -> None:
        names = ", ".join(f"n{i}" for i in range(9))
        assert "n4" in (message := refusal(graph(f"{{ y = Sum({names}) }}")))
        assert "and 4 more" in message

    def test_a_cycle(self) -> None:
        message = refusal(graph("{ a = Add(x, b) b = Neg(a) y = Relu(b) }"))
        assert "cycle" in message
        assert "Add making 'a'" in message

    def test_in_a_subgraph(self) -> None:
        model = branching("r = Add(x, nowhere)")
        assert "nowhere" in refusal(model)

    def test_what_never_existed(self) -> None:
        message = refusal(graph("{ y = NoSuchOperator(x) }", 9))
        assert "NoSuchOperator" in message
        assert "cannot be lifted" in message

    def test_functions_that_call_themselves(self) -> None:
        model = parsed("""<ir_version: 8, opset_import: ["" : 18, "f" : 1]>
            g (float[N] x) => (float[N] y) { y = f.loop(x) }
            <domain: "f", opset_import: ["" : 18, "f" : 1]> loop (a) => (b) { c = Relu(a) b = f.loop(c) }""")
        assert "f::loop" in refusal(model)


class TestSorting:
    """onnxruntime runs nodes in any order, so such a model is put in order and not refused."""

    def test_nodes_are_put_in_order_with_a_note(self) -> None:
        model = graph("{ y = Add(b, x)  b = Relu(a)  a = Neg(x) }")
        result = prepared(model)
        assert [node.op_type for node in result.model.graph.node] == ["Neg", "Relu", "Add"]
        assert "order" in result.notes[0]
        assert_same_results(model, result.model)

    def test_as_few_as_possible_move(self) -> None:
        model = graph("{ a = Neg(x)  b = Relu(x)  c = Add(a, e)  d = Abs(x)  e = Mul(d, b)  y = Add(c, e) }")
        assert [node.output[0] for node in prepared(model).model.graph.node] == list("abdecy")

    def test_in_subgraphs_and_by_what_they_take_from_outside(self) -> None:
        model = branching("r = Relu(t)", "t = Neg(k)")
        model.graph.node.append(parser.parse_node("k = Exp(x)"))  # used by the branch, stands after the If
        bodies(model, -2)["then_branch"].output[0].name = "r"
        result = prepared(model)
        assert [node.op_type for node in result.model.graph.node][-2:] == ["Exp", "If"]
        then = bodies(result.model)["then_branch"]
        assert [node.op_type for node in then.node] == ["Neg", "Relu"]
        straight = branching("t = Neg(k)", "r = Relu(t)")
        straight.graph.node.insert(0, parser.parse_node("k = Exp(x)"))
        assert_same_results(straight, result.model)
