"""Elementary functions: the exact derivative where there is one, and 0 where it would be infinite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import GRADIENT, Example, expect_derivative, expect_derivatives
from tests.support.case import Case
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

SHAPE = (2, 3, 4)


def on(op: str, scale: float = 1.0, shift: float = 0.0, **attributes: Any) -> Example:
    """A function of scale * a + shift, for a between -2 and 2."""

    def build(net: Net, a: str) -> str:
        moved = net.op("Add", net.op("Mul", a, net.constant(scale)), net.constant(shift))
        return net.op(op, moved, **attributes)

    return Example(SHAPE, build, 3)


FUNCTIONS: Mapping[str, Example] = {
    "sin": on("Sin"),
    "cos": on("Cos"),
    "tan": on("Tan", 0.6),
    "asin": on("Asin", 0.45),
    "acos": on("Acos", 0.45),
    "atan": on("Atan"),
    "sinh": on("Sinh"),
    "cosh": on("Cosh"),
    "asinh": on("Asinh"),
    "acosh": on("Acosh", shift=3.5),
    "atanh": on("Atanh", 0.45),
    "exp": on("Exp"),
    "log": on("Log", shift=3.0),
    "sqrt": on("Sqrt", shift=3.0),
    "reciprocal": on("Reciprocal", shift=3.0),
    "abs": on("Abs"),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", FUNCTIONS)
def test_derivatives(case: str, dynamic: bool) -> None:
    expect_derivative(FUNCTIONS[case], dynamic=dynamic, tolerance=1e-6)


def binary(op: str, *shapes: tuple[int, ...], shifts: tuple[float, float] = (0.0, 0.0), **attributes: Any) -> Case:
    """Both operands carry relevance, after they were moved by `shifts`."""

    def build(net: Net, *operands: str) -> str:
        moved = [net.op("Add", x, net.constant(s)) for x, s in zip(operands, shifts, strict=True)]
        return net.op(op, *moved, **attributes)

    return Case(shapes, build, max(map(len, shapes)))


BINARY: Mapping[str, Case] = {
    "pow": binary("Pow", (2, 3), (2, 3), shifts=(3.0, 0.0)),
    "pow-exponent-is-broadcast": binary("Pow", (2, 3), (3,), shifts=(3.0, 0.0)),
    "pow-base-is-broadcast": binary("Pow", (2, 1), (2, 3), shifts=(3.0, 0.0)),
    "pow-itself": Case(((5,),), lambda net, a: net.op("Pow", *[net.op("Add", a, net.constant(3.0))] * 2), 1),
    "exponential-of-constant": Case(((2, 3),), lambda net, a: net.op("Pow", net.constant(1.7), a), 2),
    "mod": binary("Mod", (2, 3), (2, 3), shifts=(0.4, 3.1)),
    "mod-fmod": binary("Mod", (2, 3), (1, 3), shifts=(7.4, 3.0), fmod=1),
    "fmod-of-negatives": binary("Mod", (2, 3), (2, 3), shifts=(-7.4, -3.1), fmod=1),
    "constant-modulo-data": Case(
        ((2, 3),), lambda net, a: net.op("Mod", net.constant(7.3), net.op("Add", a, net.constant(2.9))), 2
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", BINARY)
def test_derivatives_by_both_operands(case: str, dynamic: bool) -> None:
    expect_derivatives(BINARY[case], dynamic=dynamic, tolerance=1e-6)


@pytest.mark.parametrize("exponent", [-1.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_powers_of_constant_exponent(exponent: float) -> None:
    shift = 0.0 if exponent.is_integer() and exponent > 0 else 3.0

    def build(net: Net, a: str) -> str:
        return net.op("Pow", net.op("Add", a, net.constant(shift)), net.constant(exponent))

    expect_derivative(Example((5,), build, 1), tolerance=1e-6)


@pytest.mark.parametrize("op", ["Pow", "Mod"])
def test_relevance_goes_to_the_first_operand_alone(op: str) -> None:
    case = Case(((2, 3), (2, 3)), lambda net, a, b: net.op(op, a, b), 2, low=0.3)
    explained = explain_seeded(case.model(), "epsilon", case.feeds())
    assert relative_l2(explained.relevance["a"], explained.seeded) < 1e-12
    assert not explained.relevance["b"].any()


#: Inputs at which the slope is infinite, and what is said of it there.
EDGES: Mapping[str, tuple[float, ...]] = {
    "Sqrt": (0.0,),
    "Asin": (-1.0, 1.0),
    "Acos": (-1.0, 1.0),
    "Acosh": (1.0,),
}


@pytest.mark.parametrize("op", EDGES)
def test_infinite_slopes_are_taken_as_zero(op: str) -> None:
    net = Net(np.float32)
    net_output = net.op("Mul", net.op(op, net.input("a", (len(EDGES[op]),))), net.constant(3.0))
    emitted = onnxlrp.convert(net.model(net_output), rules=GRADIENT, target="seed")
    a = np.array(EDGES[op], np.float32)
    relevance = run_onnxruntime(emitted, {"a": a, "lrp_seed": np.ones_like(a)})["a_relevance"]
    assert (relevance == 0).all()


@pytest.mark.parametrize("exponent", [0.0, 0.5, -0.0, 1.0, 2.0])
def test_powers_of_zero(exponent: float) -> None:
    """n x^(n-1) at 0: 1 for n = 1, and 0 otherwise; as the multiplier, for R is 0 at 0 in any case."""
    net = Net(np.float32)
    shifted = net.op("Add", net.input("a", (2,)), net.constant(-1.0))
    emitted = onnxlrp.convert(net.model(net.op("Pow", shifted, net.constant(exponent))), rules=GRADIENT, target="seed")
    feeds = {"a": np.ones(2, np.float32), "lrp_seed": np.array([1, -2], np.float32)}
    relevance = run_onnxruntime(emitted, feeds)["a_relevance"]
    np.testing.assert_allclose(relevance, [1, -2] if exponent == 1.0 else [0, 0], atol=1e-6)


def test_slopes_of_large_and_small_values() -> None:
    """cosh, sinh and the inverses of powers far out, in float32: compared with float64 formulas."""
    formulas: Mapping[str, tuple[Any, list[float]]] = {
        "Sinh": (np.cosh, [80.0, -80.0, 1e-4]),
        "Cosh": (np.sinh, [80.0, -80.0, 1e-4]),
        "Log": (lambda x: 1 / x, [1e-30, 1e30, 1.0]),
        "Sqrt": (lambda x: 0.5 / np.sqrt(x), [1e-30, 1e30, 1.0]),
        "Asinh": (lambda x: 1 / np.sqrt(1 + x * x), [1e4, -1e4, 1e-4]),
        "Tanh": (lambda x: 1 - np.tanh(x) ** 2, [1e4, 0.0, 1e-4]),
    }
    for op, (slope, values) in formulas.items():
        net = Net(np.float32)
        model = net.model(net.op(op, net.input("a", (3,))))
        a = np.array(values, np.float32)
        feeds = {"a": a, "lrp_seed": np.ones_like(a)}
        relevance = run_onnxruntime(onnxlrp.convert(model, rules=GRADIENT, target="seed"), feeds)["a_relevance"]
        np.testing.assert_allclose(relevance, a.astype(np.float64) * slope(a.astype(np.float64)), rtol=1e-4)


@pytest.mark.parametrize("op", ["Sin", "Cos", "Sinh", "Tan", "Atan", "Acosh", "Asinh"])
def test_rules_pass_relevance_through(op: str) -> None:
    net = Net()
    a = np.abs(distinct(2, 3, seed=1)) + (1.0 if op == "Acosh" else 0.0)
    explained = explain_seeded(net.model(net.op(op, net.input("a", (2, 3)))), "epsilon", {"a": a})
    assert relative_l2(explained.relevance["a"], explained.seeded) < 1e-12
