"""Operators that users register, in each of the three forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import onnxlrp
from onnxlrp.operators.extension import remove_operator
from onnxlrp.tables import parse_table
from tests.support.evaluate import relative_l2, to_float64

Array = np.ndarray
RNG = np.random.default_rng(4)
FIRST, SECOND = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 3))
X = RNG.normal(size=(2, 4))
DOMAIN = "mine"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for op in ("Reverse", "Glide", "Twice"):
        remove_operator(op, DOMAIN)


class Reverse(OpRun):
    """y = 2 x backwards along the last axis."""

    op_domain = DOMAIN

    def _run(self, x: Array, factor: float = 1.0) -> tuple[Array]:  # type: ignore[override]
        return (x[..., ::-1] * factor,)


class Glide(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Array) -> tuple[Array]:  # type: ignore[override]
        return (x / (1 + np.exp(-x)),)


def network(op: str, *, typed: bool = True, **attributes: Any) -> onnx.ModelProto:
    """dense -> the operator -> dense; `typed` tells whether the model says what the operator makes."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first"], ["h"], name="a"),
        onnx.helper.make_node(op, ["h"], ["own"], name="own", domain=DOMAIN, **attributes),
        onnx.helper.make_node("MatMul", ["own", "second"], ["y"], name="b"),
    ]
    weights = [onnx.numpy_helper.from_array(w, n) for w, n in ((FIRST, "first"), (SECOND, "second"))]
    values = [onnx.helper.make_tensor_value_info(n, 11, ["n", k]) for n, k in (("x", 4), ("y", 3), ("own", 4))]
    graph = onnx.helper.make_graph(nodes, "net", values[:1], values[1:2], weights, value_info=values[2:] * typed)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


class Evaluated:
    implementations: ClassVar = [Reverse, Glide]

    def __call__(self, model: onnx.ModelProto, rules: Any) -> Array:
        emitted = to_float64(onnxlrp.convert(model, rules=rules, target=1))
        return ReferenceEvaluator(emitted, new_ops=self.implementations).run(["x_relevance"], {"x": X})[0]  # type: ignore[no-any-return]


run = Evaluated()


def register_reverse(**more: Any) -> None:
    def there_and_back(b: Any, node: Any, x: str) -> str:
        backwards = b.op("Slice", x, b.integers([-1]), b.integers([-(2**31)]), b.integers([-1]), b.integers([-1]))
        return b.scale(backwards, node.attribute("factor", 1.0))

    onnxlrp.register_operator("Reverse", domain=DOMAIN, linear=(there_and_back, there_and_back), **more)


@pytest.mark.parametrize("typed", [True, False])
def test_a_linear_operator_by_forward_and_adjoint(typed: bool) -> None:
    register_reverse()
    matrix = FIRST[:, ::-1] * 2 @ SECOND
    found = run(network("Reverse", typed=typed, factor=2.0), "gradient-x-input")
    assert relative_l2(found, X * matrix[:, 1]) < 1e-9


def test_rules_treat_it_as_any_other_linear_step() -> None:
    """z-plus through coefficients that are not negative: in proportion to the input's positive part."""
    register_reverse(coefficients="positive")
    table = parse_table(
        '[[rule]]\nop = "Reverse"\nrule = "z-plus"\n[[rule]]\nkind = "linear"\nrule = "z"', name="t", source="t.toml"
    )
    h = X @ FIRST
    own = h[:, ::-1]
    r = own * SECOND[:, 1]
    r = np.where(h > 0, r[:, ::-1], 0.0)
    expected = X * np.einsum("nj,ij->ni", r / h, FIRST)
    assert relative_l2(run(network("Reverse"), table), expected) < 1e-4  # what the stabiliser of z-plus leaves


@pytest.mark.parametrize("typed", [True, False])
def test_an_element_wise_function_by_its_derivative(typed: bool) -> None:
    def slope(b: Any, node: Any, x: str, y: str) -> str:
        gate = b.op("Sigmoid", x)
        return b.add(gate, b.mul(y, b.sub(b.scalar(1.0, x), gate)))

    onnxlrp.register_operator("Glide", domain=DOMAIN, derivative=slope)
    h = X @ FIRST
    gate = 1 / (1 + np.exp(-h))
    gradient = (gate + h * gate * (1 - gate)) * SECOND[:, 1] @ FIRST.T
    assert relative_l2(run(network("Glide", typed=typed), "gradient-x-input"), X * gradient) < 1e-9
    passed = X * ((h * gate * SECOND[:, 1] / h) @ FIRST.T)
    table = parse_table('[[rule]]\nkind = "linear"\nrule = "z"', name="t", source="t.toml")
    assert relative_l2(run(network("Glide", typed=typed), table), passed) < 1e-9


@pytest.mark.parametrize("typed", [True, False])
def test_an_operator_taken_apart(typed: bool) -> None:
    def parts(b: Any, node: Any) -> list[str]:
        x = node.inputs[0]
        return [b.mul(x, b.op("Sigmoid", x))]

    onnxlrp.register_operator("Glide", domain=DOMAIN, decompose=parts)
    h = X @ FIRST
    gate = 1 / (1 + np.exp(-h))
    gradient = (gate + h * gate * (1 - gate)) * SECOND[:, 1] @ FIRST.T
    assert relative_l2(run(network("Glide", typed=typed), "gradient-x-input"), X * gradient) < 1e-9


def test_it_is_listed_and_can_be_matched() -> None:
    from onnxlrp.operators import catalogue

    register_reverse(treatment="goes back to front")
    (entry,) = [e for e in catalogue() if e.domain == DOMAIN]
    assert (entry.op, entry.kind, entry.treatment) == ("Reverse", "average", "goes back to front")
    plan = onnxlrp.plan(network("Reverse"), rules="epsilon")
    assert [step.operator for step in plan.steps] == ["MatMul", "Reverse", "MatMul"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"op": "Relu", "domain": ""}, "operators of ai.onnx are known"),
        ({"op": "FusedGemm", "domain": "com.microsoft"}, "com.microsoft.FusedGemm is known already"),
        ({"op": "Glide", "domain": DOMAIN, "decompose": None}, "state one of decompose, linear and derivative, not 0"),
        ({"op": "Glide", "domain": DOMAIN, "derivative": len}, "not 2"),
        ({"op": "Glide", "domain": DOMAIN, "decompose": lambda b: b}, r"must take (b, node)"),
        ({"op": "Glide", "domain": DOMAIN, "decompose": None, "linear": len}, "linear is a pair"),
    ],
)
def test_what_cannot_be_registered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(onnxlrp.UsageError) as error:
        onnxlrp.register_operator(**{"decompose": lambda b, node: node.inputs[0], **options})
    assert message in str(error.value)


def test_a_name_is_given_once_unless_it_is_to_be_replaced() -> None:
    register_reverse()
    with pytest.raises(onnxlrp.UsageError, match=r"mine.Reverse is known already"):
        register_reverse()
    register_reverse(replace=True)


def test_mistakes_are_named() -> None:
    onnxlrp.register_operator("Glide", domain=DOMAIN, decompose=lambda b, node: node.inputs[1])
    with pytest.raises(onnxlrp.ConversionError, match=r"operator mine.Glide fails: IndexError"):
        run(network("Glide"), "epsilon")
    onnxlrp.register_operator("Glide", domain=DOMAIN, decompose=lambda b, node: 7, replace=True)  # type: ignore[arg-type,return-value]
    with pytest.raises(onnxlrp.ConversionError, match="taken apart into 7, not into tensors"):
        run(network("Glide"), "epsilon")
