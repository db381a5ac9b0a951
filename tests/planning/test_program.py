"""The planner: a rule and a reason for every node on the way, or one error that names all that stand in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxlrp
from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.planning.model import Plan
from onnxlrp.tables import RuleTable, parse_table
from tests.graph.written import classifier, network, normal

EVERYTHING = """
[[rule]]
kind = "linear"
rule = "epsilon"
"""


def table(text: str, source: str = "mine.toml") -> RuleTable:
    return parse_table(text, name="mine", source=source)


def _refused(model: onnx.ModelProto, **options: Any) -> str:
    with pytest.raises(ConversionError) as caught:
        onnxlrp.plan(model, **options)
    return str(caught.value)


def test_steps_run_from_the_target_back_to_the_input_with_rule_and_reason() -> None:
    plan = onnxlrp.plan(classifier())
    assert [(s.operator, s.rule) for s in plan.steps] == [
        ("Gemm", "epsilon"),
        ("Flatten", "move"),
        ("GlobalAveragePool", "norm"),
        ("Relu", "pass"),
        ("Conv", "z-plus"),
        ("MaxPool", "winner"),
        ("Relu", "pass"),
        ("Conv+BatchNormalization", "z-plus"),
    ]
    assert all(s.reason for s in plan.steps)
    assert plan.steps[-1].nodes == ("Conv_0", "BatchNormalization_1")
    assert (plan.explained_inputs, plan.explained_outputs, plan.target) == (("image",), ("probabilities",), "argmax")
    assert "stepped over" in plan.notes[0]


def test_the_first_entry_that_matches_decides() -> None:
    rules = """
    [[rule]]
    op = ["Conv"]
    position = "first"
    rule = "flat"
    [[rule]]
    kind = "linear"
    position = "last"
    rule = "z"
    [[rule]]
    kind = "linear"
    rule = "gamma"
    gamma = 0.5
    """
    plan = onnxlrp.plan(classifier(), rules=table(rules))
    chosen = [(s.operator, s.rule, s.parameters.get("gamma")) for s in plan.steps if s.kind == "linear"]
    assert chosen == [("Gemm", "z", None), ("Conv", "gamma", 0.5), ("Conv+BatchNormalization", "flat", None)]


def test_depth_splits_a_network_between_two_rules() -> None:
    rules = """
    [[rule]]
    kind = "linear"
    from = 0.5
    rule = "z"
    [[rule]]
    kind = "linear"
    rule = "gamma"
    """
    plan = onnxlrp.plan(classifier(), rules=table(rules))
    assert [s.rule for s in plan.steps if s.kind == "linear"] == ["z", "z", "gamma"]


def test_a_name_pattern_and_a_region_match_their_steps() -> None:
    model = classifier()
    model.graph.node[4].name = "block2/conv"
    rules = """
    [[rule]]
    name = "block2/*"
    rule = "z"
    [[rule]]
    region = "Conv+BatchNormalization"
    rule = "w-square"
    [[rule]]
    kind = "linear"
    rule = "epsilon"
    """
    plan = onnxlrp.plan(model, rules=table(rules))
    assert [s.rule for s in plan.steps if s.kind == "linear"] == ["epsilon", "z", "w-square"]
    by_rule = {s.rule: s.reason for s in plan.steps}
    assert "name" in by_rule["z"] and "region" in by_rule["w-square"]


def test_what_the_table_says_nothing_of_gets_its_usual_rule_and_says_so() -> None:
    plan = onnxlrp.plan(classifier(), rules=table(EVERYTHING))
    usual = {s.operator: s.rule for s in plan.steps if "the table names none" in s.reason}
    assert usual == {
        "Flatten": "move",
        "GlobalAveragePool": "epsilon",
        "Relu": "pass",
        "MaxPool": "winner",
    }


def test_a_layer_with_weights_needs_an_entry_and_every_one_without_is_named() -> None:
    rules = '[[rule]]\nop = ["Gemm"]\nrule = "epsilon"\n'
    message = _refused(classifier(), rules=table(rules))
    assert message.splitlines() == [
        "cannot convert: 2 nodes stand in the way of relevance:",
        "  Conv_4 (Conv): rule table mine has no rule for it; add an entry that matches it",
        "  Conv_0 (Conv): rule table mine has no rule for it; add an entry that matches it",
    ]


def test_every_node_in_the_way_is_named_at_once_also_behind_one_another() -> None:
    model = network(
        """g (float[2,4] x) => (float[2,4] y)
        {
          a = com.example.Fancy(x)
          b = Relu(a)
          c = Gemm(b, a)
          d = Conv(b, k)
          e = com.example.Fancy(d)
          y = Add(c, e)
        }""",
        k=normal(4, 4),
    )
    model.graph.node[0].name = "first"
    model.graph.node[4].name = "second"
    message = _refused(model)
    lines = message.splitlines()
    assert lines[0].startswith("cannot convert:") and lines[0].endswith("nodes stand in the way of relevance:")
    for name in ("first", "second"):
        assert (
            f"  {name} (com.example.Fancy): no treatment is known for this operator;"
            " export it as standard operators, declare it in the rule table ([[operator]]),"
            " or explain an output that does not pass through it"
        ) in lines


def test_one_node_in_the_way_is_one_node() -> None:
    model = network("g (float[2,4] x) => (float[2,4] y) { y = com.example.Fancy(x) }")
    assert _refused(model).startswith("cannot convert: one node stands in the way of relevance:\n  Fancy_0 (com")


def test_a_node_beside_the_way_does_not_matter() -> None:
    model = network("g (float[2,4] x) => (float[2,4] y, float[2,4] z) { y = Relu(x) z = com.example.Fancy(x) }")
    assert [s.operator for s in onnxlrp.plan(model).steps] == ["Relu"]


@pytest.mark.parametrize("where", ["on the only way", "beside another way"])
def test_control_flow_on_the_way_is_never_taken_for_a_constant(where: str) -> None:
    model = network(
        f"""g (float[2,4] x, bool c) => (float[2,4] y)
        {{ i = If(c) <then_branch = t () => (float[2,4] p) {{ p = Relu(x) }},
                     else_branch = e () => (float[2,4] q) {{ q = Neg(x) }}>
          y = {"Neg(i)" if where == "on the only way" else "Add(x, i)"} }}"""
    )
    (branch,) = [s for s in onnxlrp.plan(model).steps if s.operator == "If"]
    assert [s.operator for s in branch.inner] == ["Relu", "Neg"]


def test_a_rule_that_cannot_treat_a_layer_is_refused_for_it() -> None:
    model = network("g (float[2,4] x) => (float[2,4] y) { y = LayerNormalization(x, w) }", w=normal(4))
    rules = '[[rule]]\nkind = "normalization"\nrule = "gamma"\n[[rule]]\nkind = "linear"\nrule = "z"\n'
    (step,) = onnxlrp.plan(model, rules=table(rules)).steps
    assert (step.rule, step.reason) == ("epsilon", "rule gamma needs coefficients of one sign, so epsilon is used")


@pytest.mark.parametrize(
    ("low", "message"),
    [
        ('"mean"', "its bound low names 'mean', which is not an initializer of the model"),
        ("[1.0, 2.0, 3.0]", "its bound low has 3 numbers, but its input has 2 channels"),
    ],
)
def test_bounds_that_do_not_fit_the_layer_are_refused(low: str, message: str) -> None:
    rules = f'[[rule]]\nkind = "linear"\nrule = "z-box"\nlow = {low}\nhigh = 9.0\n'
    model = network("g (float[2,2,4] x) => (float[?,?,?] y) { y = Conv(x, w) }", w=normal(3, 2, 2))
    assert message in _refused(model, rules=table(rules))


def test_gates_and_divisors_that_receive_nothing_are_named() -> None:
    model = network(
        """g (float[2,4] x) => (float[2,4] y)
        { a = MatMul(x, w) s = Sigmoid(a) m = Mul(s, x) n = ReduceL2(x) y = Div(m, n) }""",
        w=normal(4, 4),
    )
    plan = onnxlrp.plan(model)
    stopped = {s.operator: s.stopped for s in plan.steps if s.stopped}
    assert stopped == {"Div": ("n: the divisor receives nothing",), "Mul": ("s: the gate receives nothing",)}
    assert [s.operator for s in plan.steps] == ["Div", "Mul"], "what leads to the gate alone is no step"


def test_an_entry_that_matches_nothing_is_a_warning_with_its_line() -> None:
    rules = '[[rule]]\nop = ["ConvTranspose"]\nrule = "flat"\n[[rule]]\nkind = "linear"\nrule = "z"\n'
    assert onnxlrp.plan(classifier(), rules=table(rules)).warnings == (
        "mine.toml line 1: this entry (flat) matches no node",
    )
    assert onnxlrp.plan(classifier(), rules="epsilon-gamma-box").warnings == (), "presets are for any network"


def test_an_entry_used_for_one_of_several_outputs_is_no_warning() -> None:
    model = network("g (float[2,4] x) => (float[2,4] y, float[2,4] z) { y = Relu(x) z = MatMul(x, w) }", w=normal(4, 4))
    both = table('[[rule]]\nkind = "linear"\nrule = "z"\n[[rule]]\nkind = "activation"\nrule = "pass"\n')
    assert onnxlrp.plan(model, rules=both, outputs=("y", "z")).warnings == ()


TWO = """g (float[2,4] x, float[2,4] other, int64[2] ids) => (float[2,4] y, float[2,4] z)
{ a = MatMul(x, w) b = MatMul(other, w) y = Add(a, b) z = Relu(a) }"""


def test_every_float_input_that_matters_is_explained_unless_some_are_named() -> None:
    model = network(TWO, w=normal(4, 4))
    assert onnxlrp.plan(model).explained_inputs == ("x", "other")
    assert onnxlrp.plan(model, outputs=("z",)).explained_inputs == ("x",)
    assert onnxlrp.plan(model, inputs=("other",)).explained_inputs == ("other",)
    assert onnxlrp.plan(model, inputs=("other", "x", "other")).explained_inputs == ("other", "x")


def test_what_depends_on_other_inputs_alone_is_no_step() -> None:
    plan = onnxlrp.plan(network(TWO, w=normal(4, 4)), inputs=("other",))
    assert [s.nodes for s in plan.steps] == [("Add_2",), ("MatMul_1",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ("q",)}, "the model has no input 'q'; its inputs are x, other, ids"),
        (
            {"inputs": ("ids",)},
            "input 'ids' is neither made of floats, nor are floats made of it, nor are its values looked up",
        ),
        ({"inputs": ("other",), "outputs": ("z",)}, "output z does not depend on input 'other'"),
        ({"outputs": ("y", "z"), "target": "top:2"}, "top:K explains one output at a time"),
        ({"target": (1, 2)}, "target 1,2 has 2 indices"),
        ({"axis": 0}, "axis 0 is the batch"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        onnxlrp.plan(network(TWO, w=normal(4, 4)), **options)
    assert message in str(caught.value)


def test_an_output_without_any_float_input_has_nothing_to_explain() -> None:
    model = network("g (bool[3] i) => (float[3] y) { y = Cast<to = 1>(i) }")
    assert "does not depend on any float input" in _refused(model)
    dead_end = network("g (float[3] x) => (float[3] y) { s = Sign(x) y = Neg(s) }")
    assert "does not depend on any float input" in _refused(dead_end)


def test_an_old_models_weights_are_not_explained() -> None:
    """Up to IR version 3 every weight is also a graph input."""
    model = network("g (float[2,4] x, float[4,3] w) => (float[2,3] y) { y = MatMul(x, w) }", opset=8, w=normal(4, 3))
    model.ir_version = 3
    assert onnxlrp.plan(model).explained_inputs == ("x",)


def test_an_intermediate_tensor_can_be_the_target() -> None:
    plan = onnxlrp.plan(classifier(), outputs=("n",))
    assert [s.operator for s in plan.steps] == ["Conv+BatchNormalization"]
    assert onnxlrp.plan(classifier(), outputs=("a",)).steps[0].operator == "Conv"


def test_costs_are_counted_in_multiply_adds_of_one_sample() -> None:
    model = network("g (float[N,2,6,6] x) => (float[N,3,4,4] y) { a = Conv(x, w) y = Relu(a) }", w=normal(3, 2, 3, 3))
    plan = onnxlrp.plan(model, rules="epsilon")
    assert plan.forward_macs == 3 * 2 * 3 * 3 * 4 * 4
    assert plan.cost == 2.0, "one transposed convolution beside the forward one"
    assert onnxlrp.plan(model, rules="epsilon-plus").cost > 2.0  # type: ignore[operator]


@pytest.mark.parametrize(("batch", "rows"), [("N", "5*N"), (2, 10)])
def test_positions_that_were_put_into_the_first_axis_count(batch: str | int, rows: str | int) -> None:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [batch, 5, 4]), ("y", [rows, 3]))
    )
    nodes = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    constants = [numpy_helper.from_array(a, n) for a, n in ((np.array([-1, 4]), "s"), (normal(4, 3), "w"))]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert onnxlrp.plan(model, rules="epsilon").forward_macs == 5 * 4 * 3


def test_a_plan_is_plain_values_and_the_same_every_time() -> None:
    plan = onnxlrp.plan(classifier())
    assert plan == onnxlrp.plan(classifier())
    as_dict = plan.to_dict()
    assert as_dict["steps"][0]["operator"] == "Gemm" and as_dict["cost"] == plan.cost
    assert Plan("t", "argmax", (), (), ()).cost is None


def test_planning_leaves_the_given_model_alone() -> None:
    model = classifier()
    before = model.SerializeToString(deterministic=True)
    onnxlrp.plan(model)
    onnxlrp.convert(model)
    assert model.SerializeToString(deterministic=True) == before
    assert np.isfinite(len(before))


def test_nodes_in_the_way_of_any_explained_output_are_named_once_together() -> None:
    model = network(
        """g (float[2,4] x) => (float[2,4] y, float[2,4] z)
        { a = com.example.Fancy(x) y = com.example.Left(a) z = com.example.Right(a) }"""
    )
    lines = _refused(model, outputs=("y", "z")).splitlines()
    assert lines[0] == "cannot convert: 3 nodes stand in the way of relevance:"
    assert [line.split()[0] for line in lines[1:]] == ["Left_1", "Fancy_0", "Right_2"]
