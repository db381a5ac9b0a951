"""Rules that users register: their formula arrives in the graph, and mistakes are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.rules.own import remove_rule
from onnxlrp.tables import RuleTable, parse_table
from tests.support.evaluate import relative_l2, run_reference, to_float64
from tests.support.models import Net
from tests.support.replicas import dense, propagate, stabilise

Array = np.ndarray
RNG = np.random.default_rng(2)
KERNEL, BIAS, WEIGHT = RNG.normal(size=(3, 2, 3, 3)), RNG.normal(size=3), RNG.normal(size=(3, 4))
WEIGHT[:, 1] = [-0.1, 0.7, 0.9]
X = RNG.normal(size=(1, 2, 5, 5))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for name in ("mine", "mine-too"):
        remove_rule(name)


def table(text: str) -> RuleTable:
    return parse_table(text, name="test", source="test.toml")


def network() -> onnx.ModelProto:
    net = Net(np.float64)
    x = net.input("x", ["n", 2, 5, 5])
    hidden = net.op("Relu", net.op("Conv", x, net.constant(KERNEL), net.constant(BIAS), pads=[1] * 4))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", hidden))
    return net.model(net.op("MatMul", pooled, net.constant(WEIGHT)))


def run(rules: Any, model: onnx.ModelProto | None = None, **options: Any) -> dict[str, Array]:
    emitted = onnxlrp.convert(model or network(), rules=rules, target=1, **options)
    onnx.checker.check_model(emitted, full_check=True)
    return run_reference(to_float64(emitted), {"x": X})


def test_a_rule_in_terms_of_forward_and_adjoint_is_the_built_in_one() -> None:
    @onnxlrp.register_rule("mine", kinds=("linear", "average"), parameters={"epsilon": 1e-6}, source="Bach et al. 2015")
    def epsilon(step: onnxlrp.LinearStep, relevance: str, p: Any) -> str:
        b, z = step.b, step.forward(step.x)
        z = z if step.bias is None else b.add(z, step.bias)
        return b.mul(step.x, step.adjoint(b.div(relevance, step.stabilised(z, p["epsilon"]))))

    found = run(table('[[rule]]\nrule = "mine"\nepsilon = 0.01'))
    expected = run(table('[[rule]]\nkind = ["linear", "average"]\nrule = "epsilon"\nepsilon = 0.01'))
    assert relative_l2(found["x_relevance"], expected["x_relevance"]) < 1e-9


@pytest.mark.parametrize("weights", ["plus", "minus", "abs", "square", "ones"])
def test_weights_can_be_changed(weights: Any) -> None:
    """R_i = x_i sum_j v_ij R_j / st(sum_k v_kj x_k) with the weights v in place of w, on the dense matrix."""

    @onnxlrp.register_rule("mine")
    def changed(step: onnxlrp.LinearStep, relevance: str, p: Any) -> str:
        d = step.stabilised(step.forward(step.x, weights), 0.5)
        return step.b.mul(step.x, step.adjoint(step.b.div(relevance, d), weights))

    entries = '[[rule]]\nop = "Conv"\nrule = "mine"\n[[rule]]\nkind = "linear"\nrule = "epsilon"'
    found = run(table(entries), relevance_of=["conv0"])
    kernel = {
        "plus": np.maximum(KERNEL, 0),
        "minus": np.minimum(KERNEL, 0),
        "abs": np.abs(KERNEL),
        "square": KERNEL**2,
        "ones": np.ones_like(KERNEL),
    }[weights]
    op = dense(lambda x: convolved(x, kernel), (2, 5, 5))
    s = found["conv0_relevance"].ravel() / stabilise(op.weight @ X.ravel(), 0.5)
    assert relative_l2(found["x_relevance"].ravel(), X.ravel() * (op.weight.T @ s)) < 1e-9


def convolved(x: Array, kernel: Array) -> Array:
    patches = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
    return np.einsum("cijkl,ockl->oij", patches, kernel)


def test_weights_may_be_any_function_of_the_weights() -> None:
    """gamma for inputs and outputs that are not negative, as published first."""

    @onnxlrp.register_rule("mine", parameters={"gamma": 0.25})
    def gamma(step: onnxlrp.LinearStep, relevance: str, p: Any) -> str:
        b = step.b

        def favoured(b: Any, w: str) -> str:
            return b.add(w, b.scale(b.positive(w), p["gamma"]))

        d = step.stabilised(step.forward(step.x, favoured))
        return b.mul(step.x, step.adjoint(b.div(relevance, d), favoured))

    rest = '[[rule]]\nkind = "linear"\nrule = "epsilon"'
    found = run(table(f'[[rule]]\nop = "MatMul"\nrule = "mine"\ngamma = 0.5\n{rest}'), relevance_of=["flatten3"])
    hidden = np.maximum(convolved(X[0], KERNEL) + BIAS[:, None, None], 0).mean(axis=(1, 2))
    seed = np.eye(4)[1] * (hidden @ WEIGHT)
    op = dense(lambda x: x @ WEIGHT, (3,))
    wanted = propagate(op, "gamma", {"gamma": 0.5, "epsilon": 1e-6, "bias": "ignore"}, hidden, seed)
    assert (hidden @ WEIGHT)[1] > 0, "the published form is for outputs that are not negative"
    assert relative_l2(found["flatten3_relevance"][0], wanted) < 1e-9


def test_sums_products_and_activations_have_rules_too() -> None:
    net = Net(np.float64)
    x = net.input("x", ["n", 3])
    dense_, gate = (net.op("MatMul", x, net.constant(RNG.normal(size=(3, 3)))) for _ in range(2))
    product = net.op("Mul", dense_, net.op("Sigmoid", gate))
    model = net.model(net.op("Add", product, x))

    @onnxlrp.register_rule("mine", kinds=["sum"])
    def first_takes_all(step: onnxlrp.LinearStep, relevance: str, p: Any) -> dict[str, str]:
        return {step.inputs[0]: relevance}

    @onnxlrp.register_rule("mine-too", kinds=["product"])
    def thirds(step: onnxlrp.ProductStep, relevance: str, p: Any) -> dict[str, str]:
        return {step.first: step.b.scale(relevance, 1 / 3), step.second: step.b.scale(relevance, 2 / 3)}

    rules = '[[rule]]\nrule = "mine"\n[[rule]]\nrule = "mine-too"\n[[rule]]\nkind = "linear"\nrule = "epsilon"'
    values = {"x": RNG.normal(size=(1, 3))}
    emitted = onnxlrp.convert(
        model, rules=table(rules), target=1, relevance_of=[product, dense_, "sigmoid2"], ledger=True
    )
    found = run_reference(to_float64(emitted), values)
    whole = found[f"{product}_relevance"]
    assert np.allclose(whole, found[model.graph.output[0].name] * np.eye(3)[1])
    assert np.allclose(found[f"{dense_}_relevance"], whole / 3)
    assert np.allclose(found["sigmoid2_relevance"], whole * 2 / 3)
    rows = found["lrp_ledger"]
    assert np.allclose(rows[:, 0], rows[:, 1:6].sum(axis=1), atol=1e-9)

    @onnxlrp.register_rule("mine", kinds=["activation"], replace=True)
    def derivative(step: onnxlrp.ActivationStep, relevance: str, p: Any) -> str:
        b = step.b
        return b.mul(step.x, step.derivative(b.quotient(relevance, step.y)))

    gradient = '[[rule]]\nkind = ["linear", "sum", "product"]\nrule = "gradient"'
    for rule in ("mine", "gradient"):
        text = f'[[rule]]\nkind = "activation"\nrule = "{rule}"\n{gradient}'
        maps = run_reference(to_float64(onnxlrp.convert(model, rules=table(text), target=1)), values)
        expected = maps["x_relevance"] if rule == "mine" else expected  # noqa: F821
    assert relative_l2(maps["x_relevance"], expected) < 1e-9


def test_what_a_rule_does_not_pass_on_is_in_the_ledger() -> None:
    @onnxlrp.register_rule("mine")
    def a_third(step: onnxlrp.LinearStep, relevance: str, p: Any) -> str:
        b = step.b
        d = step.stabilised(step.forward(step.x), 0.0)
        return b.scale(b.mul(step.x, step.adjoint(b.div(relevance, d))), 1 / 3)

    plan = onnxlrp.plan(network(), rules=table('[[rule]]\nrule = "mine"'), target=1)
    rows = run(table('[[rule]]\nrule = "mine"'), ledger=True)["lrp_ledger"]
    at = next(i for i, step in enumerate(plan.steps) if step.operator == "MatMul")
    assert np.isclose(rows[at, 4], rows[at, 0] * 2 / 3)
    assert np.allclose(rows[:, 0], rows[:, 1:6].sum(axis=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "epsilon"}, "there is a rule 'epsilon' already"),
        ({"name": "z+"}, "there is a rule 'z+' already"),
        ({"name": "epsilon", "replace": True}, "there is a rule 'epsilon' already"),
        ({"name": "my rule"}, "is no name for a rule"),
        ({"name": "mine", "kinds": ["linear", "product"]}, "they must be of one of: linear, affine"),
        ({"name": "mine", "kinds": []}, "for kinds none"),
        ({"name": "mine", "kinds": ["layer"]}, "for kinds layer"),
        ({"name": "mine", "parameters": {"op": 1}}, "which is a condition of rule tables"),
        ({"name": "mine", "parameters": {"size": "large"}}, "state a number or an onnxlrp.Parameter"),
    ],
)
def test_what_cannot_be_registered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(onnxlrp.UsageError) as error:
        onnxlrp.register_rule(**options)
    assert message in str(error.value)


def test_a_function_of_other_arguments_is_refused() -> None:
    with pytest.raises(onnxlrp.UsageError, match=r"function of rule mine must take \(step, relevance, parameters\)"):
        onnxlrp.register_rule("mine")(lambda step, relevance: relevance)


def test_a_name_is_given_once_unless_it_is_to_be_replaced() -> None:
    onnxlrp.register_rule("mine")(lambda step, relevance, p: relevance)
    with pytest.raises(onnxlrp.UsageError, match="there is a rule 'mine' already"):
        onnxlrp.register_rule("mine")
    onnxlrp.register_rule("mine", replace=True)(lambda step, relevance, p: relevance)


def test_parameters_of_a_table_are_checked_as_those_of_built_in_rules() -> None:
    shape = onnxlrp.Parameter("round", "form of it", kind="choice", choices=("round", "square"))
    onnxlrp.register_rule("mine", parameters={"size": 1.0, "shape": shape})(lambda step, relevance, p: relevance)
    assert table('[[rule]]\nrule = "mine"\nsize = 2').entries[0].parameters == {"size": 2.0, "shape": "round"}
    for text, message in (
        ("sise = 2", "rule mine has no parameter 'sise'; did you mean 'size'"),
        ('size = "big"', "size must be a finite number"),
        ('shape = "flat"', "shape must be one of round, square"),
        ('kind = "sum"', "rule mine cannot treat steps of kind 'sum', only linear"),
    ):
        with pytest.raises(onnxlrp.UsageError) as error:
            table(f'[[rule]]\nrule = "mine"\n{text}')
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda step, r, p: None, "returns None; it must return the relevance of"),
        (lambda step, r, p: {"nowhere": r}, "it must return the relevance of flatten3"),
        (lambda step, r, p: 1 / 0, "rule mine at node_matmul4 fails: ZeroDivisionError"),
        (lambda step, r, p: step.forward(step.x, "cubed"), "has no weights 'cubed'"),
    ],
)
def test_mistakes_of_a_rule_are_named_with_the_step(rule: Any, message: str) -> None:
    onnxlrp.register_rule("mine")(rule)
    with pytest.raises(onnxlrp.ConversionError) as error:
        run(table('[[rule]]\nrule = "mine"'))
    assert message in str(error.value)
