"""Operators that a rule table declares: passed through, stopped at, or read as the function that stands for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import onnxlrp
from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.tables import RuleTable, load_table, parse_table, preset_text
from tests.graph.written import Array, normal
from tests.support.evaluate import run_onnxruntime, to_type

HEAD = '<ir_version: 10, opset_import: ["" : 21, "my" : 1, "f" : 1]> g'
W1, W2 = normal(4, 5, seed=1), normal(5, 3, seed=2)


class Norm(OpRun):
    """x / 2, or the second input; and the first input doubled."""

    op_domain = "my"

    def _run(self, x: Array, other: Array | None = None, axis: int = 0) -> tuple[Array, Array]:
        return np.asarray(x / 2 if other is None else other), 2 * x


class Act(OpRun):
    """a * tanh(x) + b * x, which `FUNCTION` says as well."""

    op_domain = "my"

    def _run(self, x: Array, a: float = 1.0) -> tuple[Array]:
        return (np.asarray(a * np.tanh(x) + x, x.dtype),)


FUNCTION = """<domain: "f", opset_import: ["" : 21, "f" : 1]> act <a: float = 1.0> (x) => (y) {
    t = f.scaled<a: float = @a>(x)  y = Add(t, x) }
<domain: "f", opset_import: ["" : 20]> scaled <a: float> (x) => (y) {
    t = Tanh(x)  c = Constant<value_float: float = @a>()  y = Mul(t, c) }"""
WRITTEN = "t = Tanh(h)  c = Constant<value_float = 0.5>()  s = Mul(t, c)  a = Add(s, h)"


def model(nodes: str, functions: str = "", head: str = "(float[N,4] x) => (float[N,3] y)") -> onnx.ModelProto:
    found = parser.parse_model(f"{HEAD} {head} {{ {nodes} }} {functions}")
    for name, value in (("w1", W1), ("w2", W2)):
        found.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return found


def with_types(found: onnx.ModelProto, **widths: int) -> onnx.ModelProto:
    """The model with what it records of inner tensors [N, width]."""
    made = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", w]) for n, w in widths.items())
    found.graph.value_info.extend(made)
    return found


def table(declared: str, rule: str = "z", files: dict[str, bytes] | None = None) -> RuleTable:
    text = f'[[operator]]\ndomain = "my"\n{declared}\n[[rule]]\nrule = "{rule}"\n[[rule]]\nrule = "epsilon"\n'
    return parse_table(text, name="mine", source="mine.toml", files=files or {})


def relevance(converted: onnx.ModelProto, x: Array, name: str = "x_relevance") -> Array:
    evaluator = ReferenceEvaluator(converted, new_ops=[Norm, Act])
    return np.asarray(evaluator.run([name], {"x": x})[0])


PASS = 'op = "Norm"\ntreat = "pass"'
NORMED = model("h = MatMul(x, w1)  [norm] n = my.Norm(h)  y = MatMul(n, w2)")
PLAIN = model("h = MatMul(x, w1)  n = Identity(h)  y = MatMul(n, w2)")


def test_pass_hands_relevance_to_the_input_unchanged() -> None:
    x = normal(2, 4, seed=3)
    found = relevance(onnxlrp.convert(NORMED, rules=table(PASS), target=1), x)
    # With h halved on the way, the relevance of h is half of what it is without the operator, unit by unit.
    expected = relevance(onnxlrp.convert(PLAIN, rules=table(PASS), target=1), x) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rules", ["gradient-x-input", "guided-backprop"])
def test_pass_is_meant_whatever_the_table_says_of_activations(rules: str) -> None:
    text = f'{preset_text(rules)}\n[[operator]]\ndomain = "my"\n{PASS}\n'
    made = parse_table(text, name="mine", source="mine.toml")
    (step,) = [s for s in onnxlrp.plan(NORMED, rules=made, target=1).steps if s.nodes == ("norm",)]
    assert (step.operator, step.kind, step.rule) == ("Norm", "declared", "pass")
    assert step.reason == f"declared on line {len(text.splitlines()) - 3}: passes to input 0"


def test_pass_may_name_another_input_and_give_a_reason() -> None:
    two = model("h = MatMul(x, w1)  [norm] n, k = my.Norm(w1, h)  y = MatMul(n, w2)")
    made = table(f'{PASS}\ninput = 1\nreason = "it shifts"')
    (step,) = [s for s in onnxlrp.plan(two, rules=made, target=1).steps if s.nodes == ("norm",)]
    assert step.reason == "declared on line 1: passes to input 1; it shifts"
    x = normal(2, 4, seed=3)
    expected = relevance(onnxlrp.convert(PLAIN, rules=made, target=1), x)
    np.testing.assert_allclose(relevance(onnxlrp.convert(two, rules=made, target=1), x), expected, rtol=1e-5)


def test_shapes_and_types_follow_through_a_passed_operator() -> None:
    """Without them a MatMul behind it could not be treated."""
    twice = model("h = MatMul(x, w1)  n = my.Norm(h)  r = Relu(n)  m = my.Norm(r)  y = MatMul(m, w2)")
    converted = onnxlrp.convert(twice, rules=table(PASS), target=0)
    assert relevance(converted, normal(2, 4, seed=3)).shape == (2, 4)


def test_a_further_output_of_a_passed_operator_hands_nothing_back() -> None:
    both = model("h = MatMul(x, w1)  [norm] n, k = my.Norm(h)  q = Add(n, k)  y = MatMul(q, w2)")
    both = with_types(both, k=5)
    plan = onnxlrp.plan(both, rules=table(PASS), target=1)
    assert [s.rule for s in plan.steps if s.operator == "Norm"] == ["pass"]
    assert any("line 1 of the rule table declares only what passes from the first output" in n for n in plan.notes)


def test_stop_ends_relevance_for_the_stated_reason() -> None:
    side = with_types(model("h = MatMul(x, w1)  [norm] n = my.Norm(h)  q = Add(n, h)  y = MatMul(q, w2)"), n=5)
    made = table('op = "Norm"\ntreat = "stop"\nreason = "it only counts"')
    plan = onnxlrp.plan(side, rules=made, target=1)
    assert "norm (my.Norm): relevance ends: it only counts" in plan.notes
    x = normal(2, 4, seed=3)
    found = relevance(onnxlrp.convert(side, rules=made, target=1), x)
    # h and h / 2 are summed: what h / 2 contributed ends there, and h keeps what it would have alone.
    expected = relevance(onnxlrp.convert(PLAIN, rules=made, target=1), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_target_that_only_a_stopped_operator_reaches_cannot_be_explained() -> None:
    made = table('op = "Norm"\ntreat = "stop"\nreason = "it only counts"')
    with pytest.raises(ConversionError, match="does not depend on any float input"):
        onnxlrp.convert(NORMED, rules=made)


FUNCTION_OF = 'op = "Act"\nfunction = "f::act"'
ACTED = "h = MatMul(x, w1)  [act] a = my.Act<a = 0.5>(h)  y = MatMul(a, w2)"


@pytest.mark.parametrize("rule", ["z", "gradient"])
@pytest.mark.parametrize("where", ["in the model", "in a file"])
def test_a_function_is_read_in_place_of_the_operator(where: str, rule: str, tmp_path: Path) -> None:
    inside = where == "in the model"
    acted = model(ACTED, FUNCTION if inside else "")
    made = table(FUNCTION_OF, rule)
    if not inside:
        (tmp_path / "functions.onnx").write_bytes(model(ACTED, FUNCTION).SerializeToString())
        (tmp_path / "mine.toml").write_text(made.text.replace('"f::act"', '"f::act"\nfile = "functions.onnx"'))
        made = load_table(tmp_path / "mine.toml")
    straight = model(f"h = MatMul(x, w1)  {WRITTEN}  y = MatMul(a, w2)")
    x = normal(2, 4, seed=3)
    converted = onnxlrp.convert(acted, rules=made, target=1)
    expected = relevance(onnxlrp.convert(straight, rules=made, target=1), x)
    np.testing.assert_allclose(relevance(converted, x), expected, rtol=1e-5, atol=1e-7)
    assert "Act" in [node.op_type for node in converted.graph.node], "the model keeps its node"


def test_a_function_may_have_branches_and_stand_for_several_nodes() -> None:
    body = """<domain: "f", opset_import: ["" : 21]> act <a: float = 1.0> (x) => (y) {
        s = ReduceSum<keepdims = 0>(x)  z = Constant<value_float = -100.0>()  c = Greater(s, z)
        y = If (c) <then_branch = p () => (float[N,5] u) { t = Tanh(x)  u = Add(t, x) },
                    else_branch = q () => (float[N,5] v) { v = Neg(x) }> }"""
    acted = model("h = MatMul(x, w1)  a = my.Act(h)  b = my.Act(a)  y = MatMul(b, w2)", body)
    straight = model(
        "h = MatMul(x, w1)  t = Tanh(h)  a = Add(t, h)  u = Tanh(a)  b = Add(u, a)  y = MatMul(b, w2)",
    )
    x = normal(2, 4, seed=3)
    made = table(FUNCTION_OF)
    found = relevance(onnxlrp.convert(acted, rules=made, target=1), x)
    expected = relevance(onnxlrp.convert(straight, rules=made, target=1), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_rule_for_a_declared_operator_is_for_the_parts_of_its_function() -> None:
    text = (
        f'[[operator]]\ndomain = "my"\n{FUNCTION_OF}\n[[rule]]\nop = "Act"\nrule = "gradient"\n[[rule]]\nrule = "z"\n'
    )
    made = parse_table(text, name="mine", source="mine.toml")
    plan = onnxlrp.plan(model(ACTED, FUNCTION), rules=made, target=1)
    assert [s.rule for s in plan.steps if s.operator in ("Tanh", "Add", "Mul")] == ["gradient"] * 3
    assert not plan.warnings


def test_a_declared_operator_inside_a_branch_is_treated_there() -> None:
    nodes = """h = MatMul(x, w1)  n = If (c) <then_branch = t () => (float[N,5] u) { [inner] u = my.Norm(h) },
        else_branch = e () => (float[N,5] v) { v = Neg(h) }>  y = MatMul(n, w2)"""
    branching = model(nodes, head="(float[N,4] x, bool c) => (float[N,3] y)")
    steps = [i for s in onnxlrp.plan(branching, rules=table(PASS), target=1).steps for i in s.inner]
    assert ("Norm", "declared") in [(s.operator, s.kind) for s in steps]


#: Declarations that do not fit the node, and what is said of it.
UNFIT = {
    "no such input": (NORMED, f"{PASS}\ninput = 2", "norm (my.Norm): it has no input 2, to which relevance"),
    "another shape": (
        model("h = MatMul(x, w1)  [norm] y = my.Norm(h)"),
        PASS,
        "unchanged from its output to its input 0, but they have the shapes [N, 3] and [N, 5]",
    ),
    "no such function": (model(ACTED), FUNCTION_OF, "act (my.Act): there is no function f::act"),
    "an attribute": (
        model(ACTED.replace("a = 0.5", "b = 1"), FUNCTION),
        FUNCTION_OF,
        "it has the attribute 'b', which function f::act does not take",
    ),
    "inputs": (
        model(ACTED.replace("(h)", "(h, h)"), FUNCTION),
        FUNCTION_OF,
        "it has 2 inputs, and function f::act has 1",
    ),
    "itself": (
        model(ACTED, '<domain: "f", opset_import: ["" : 21, "my" : 1]> act <a> (x) => (y) { y = my.Act(x) }'),
        FUNCTION_OF,
        "function f::act, which stands for it, uses the operator itself",
    ),
}


@pytest.mark.parametrize(("net", "declared", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_a_declaration_that_does_not_fit_is_refused(net: onnx.ModelProto, declared: str, message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        onnxlrp.convert(net, rules=table(declared))
    assert message in str(caught.value)
    assert "correct its declaration in the rule table" in str(caught.value)


def test_a_function_of_a_newer_opset_than_the_model_is_refused() -> None:
    newer = model(ACTED, '<domain: "f", opset_import: ["" : 23]> act <a> (x) => (y) { y = Neg(x) }')
    made = table(f'{FUNCTION_OF}\nfile = "f.onnx"', files={"f.onnx": newer.SerializeToString()})
    with pytest.raises(ConversionError, match="function f::act is of a newer opset than the model, which has 21"):
        onnxlrp.convert(model(ACTED), rules=made)


def test_a_file_that_is_no_model_is_named() -> None:
    made = table(f'{FUNCTION_OF}\nfile = "f.onnx"', files={"f.onnx": b"no model"})
    with pytest.raises(UsageError, match=r"mine\.toml line 1: f\.onnx is not an ONNX model with functions"):
        onnxlrp.convert(model(ACTED), rules=made)


def test_a_declared_operator_that_the_model_does_not_have_is_a_warning() -> None:
    plan = onnxlrp.plan(PLAIN, rules=table(PASS), target=1)
    assert plan.warnings[0] == "mine.toml line 1: the declared operator my.Norm is not in the model"


def test_all_unknown_operators_are_named_at_once() -> None:
    two = model("h = MatMul(x, w1)  [one] n = my.Norm(h)  [two] a = my.Act(n)  y = MatMul(a, w2)")
    with pytest.raises(ConversionError) as caught:
        onnxlrp.convert(two)
    assert "one (my.Norm): no treatment is known" in str(caught.value)
    assert "two (my.Act): no treatment is known" in str(caught.value)
    assert "declare it in the rule table ([[operator]])" in str(caught.value)


def test_an_unknown_operator_beside_the_way_disturbs_nothing() -> None:
    beside = model(
        "h = MatMul(x, w1)  k = my.Norm(h)  y = MatMul(h, w2)", head="(float[N,4] x) => (float[N,3] y, float[N,5] k)"
    )
    x = normal(2, 4, seed=3)
    found = relevance(onnxlrp.convert(beside, rules="epsilon", target=1), x)
    expected = relevance(onnxlrp.convert(PLAIN, rules="epsilon", target=1), x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def runnable() -> onnx.ModelProto:
    """A model that onnxruntime runs: the operator is its own, and declared all the same."""
    return model(
        "h = MatMul(x, w1)  [act] a = com.microsoft.QuickGelu<alpha = 0.5>(h)  y = MatMul(a, w2)",
        """<domain: "f", opset_import: ["" : 21]> quick <alpha: float> (x) => (y) {
            c = Constant<value_float: float = @alpha>()  s = Mul(x, c)  g = Sigmoid(s)  y = Mul(x, g) }""",
    )


def runnable_table(rule: str = "z") -> RuleTable:
    text = (
        f'[[operator]]\nop = "QuickGelu"\ndomain = "com.microsoft"\nfunction = "f::quick"\n[[rule]]\nrule = "{rule}"\n'
    )
    return parse_table(text, name="mine", source="mine.toml")


def test_a_converted_model_remembers_the_functions_that_its_table_named() -> None:
    """Its own are gone by then: they were inlined."""
    converted = onnxlrp.convert(runnable(), rules=runnable_table(), target=1)
    assert not converted.functions
    report = onnxlrp.verify(converted, {"x": normal(2, 4, seed=3)})
    assert report.passed, report


def test_a_function_in_a_float16_model_is_read_in_its_type() -> None:
    wide, narrow = (to_type(runnable(), kind) for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16))
    for function in narrow.functions:
        # A number in an attribute is float32; what it meets is not.
        function.node.insert(1, onnx.helper.make_node("CastLike", ["c", "x"], ["k"]))
        function.node[2].input[1] = "k"
    x = normal(2, 4, seed=3)
    maps = [
        run_onnxruntime(onnxlrp.convert(m, rules=runnable_table("gradient"), target=1), {"x": x.astype(t)})
        for m, t in ((wide, np.float32), (narrow, np.float16))
    ]
    assert maps[1]["x_relevance"].dtype == np.float32
    np.testing.assert_allclose(maps[1]["x_relevance"], maps[0]["x_relevance"], rtol=0.02, atol=0.02)
