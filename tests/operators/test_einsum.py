"""Einsum of one, two and more operands, whatever the equation: whole derivatives, and what a layer it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxlrp
from tests.operators.examples import Example, expect_linear_map
from tests.operators.several import Several, applied, expect_closed_ledger, expect_gradient
from tests.support.evaluate import relative_l2
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net
from tests.support.replicas import Dense, propagate


def alone(equation: str, *shape: int, rank: int, free: tuple[int, ...] | None = None) -> Example:
    return Example(shape, lambda net, a: net.op("Einsum", a, equation=equation), rank, open_axes=free)


def layer(equation: str, shape: tuple[int, ...], weight: tuple[int, ...], rank: int, *, second: bool = True) -> Example:
    """Data and a constant, in this order or the other way round."""

    def build(net: Net, a: str) -> str:
        w = net.constant(distinct(*weight, seed=9))
        return net.op("Einsum", *((a, w) if second else (w, a)), equation=equation)

    return Example(shape, build, rank, open_axes=(0,))


LINEAR: Mapping[str, Example] = {
    "transposed": alone("ijk->kij", 2, 3, 4, rank=3),
    "summed": alone("ijk->ik", 2, 3, 4, rank=2),
    "summed-to-a-number": alone("ij->", 2, 3, rank=0),
    "implicit": alone("ba", 2, 3, rank=2),
    "trace": alone("ii->", 3, 3, rank=0, free=()),
    "diagonal": alone("bii->bi", 2, 3, 3, rank=2),
    "diagonal-summed": alone("iij->j", 3, 3, 2, rank=1),
    "ellipsis": alone("...ij->...ji", 2, 1, 3, 2, rank=4),
    "ellipsis-implicit": alone("...ij", 2, 3, 2, rank=3),
    "dense": layer("bi,oi->bo", (2, 3), (4, 3), 2),
    "dense-weight-first": layer("oi,bi->bo", (2, 3), (4, 3), 2, second=False),
    "heads": layer("bsi,hid->bhsd", (2, 3, 4), (2, 4, 2), 4),
    "batched-by-ellipsis": layer("...i,io->...o", (2, 3, 4), (4, 2), 3),
    "outer": layer("i,j->ij", (3,), (2,), 2),
    "summed-alone": layer("ij,k->k", (2, 3), (4,), 1),
    "diagonal-weight": layer("bi,ii->bi", (2, 3), (3, 3), 2),
    "ellipsis-of-one": layer("...i,...i->...", (1, 3, 4), (2, 1, 4), 2),
    "spaces": layer(" b i , i o -> b o ", (2, 3), (3, 2), 2),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", LINEAR)
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(LINEAR[case], dynamic=dynamic)


A, B, C = distinct(2, 3, seed=1), distinct(3, 4, seed=2), distinct(4, 2, seed=3)

SEVERAL: Mapping[str, Several] = {
    "matmul": Several({"a": A, "b": B}, applied("Einsum", equation="ij,jk->ik"), 2),
    "hadamard": Several({"a": A, "b": A + 0.3}, applied("Einsum", equation="ij,ij->ij"), 2),
    "dot": Several({"a": A, "b": A + 0.3}, applied("Einsum", equation="ij,ij"), 0),
    "attention": Several(
        {"a": distinct(1, 2, 3, 2, seed=1), "b": distinct(1, 2, 2, 2, seed=2)},
        applied("Einsum", equation="bhqd,bhkd->bhqk"),
        4,
    ),
    "broadcast-batch": Several(
        {"a": distinct(2, 3, 2, seed=1), "b": distinct(1, 2, 2, seed=2)},
        applied("Einsum", equation="...ij,...jk->...ik"),
        3,
    ),
    "broadcast-missing-axes": Several(
        {"a": distinct(2, 3, 2, seed=1), "b": distinct(2, 2, seed=2)},
        applied("Einsum", equation="...ij,...jk->...ik"),
        3,
        runs=False,
    ),
    "diagonals": Several(
        {"a": distinct(3, 3, seed=1), "b": distinct(3, 2, seed=2)},
        applied("Einsum", equation="ii,ij->j"),
        1,
        frozen=("a",),
    ),
    "three": Several({"a": A, "b": B, "c": C}, applied("Einsum", equation="ij,jk,kl->il"), 2),
    "three-in-a-ring": Several({"a": A, "b": B, "c": C}, applied("Einsum", equation="ij,jk,ki->"), 0),
    "three-one-constant": Several(
        {"a": A, "b": B}, lambda net, a, b: net.op("Einsum", a, net.constant(C), b, equation="ij,kl,jk->il"), 2
    ),
    "two-constants": Several(
        {"a": A}, lambda net, a: net.op("Einsum", a, net.constant(B), net.constant(C), equation="ij,jk,kl->il"), 2
    ),
    "with-itself": Several({"a": A}, lambda net, a: net.op("Einsum", a, a, equation="ij,kj->ik"), 2),
    "square-with-itself": Several(
        {"a": distinct(2, 2)}, lambda net, a: net.op("Einsum", a, a, equation="ij,jk->ik"), 2
    ),
    "cube": Several({"a": A}, lambda net, a: net.op("Einsum", a, a, a, equation="ij,ij,ij->i"), 1),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", SEVERAL)
def test_the_derivative(case: str, dynamic: bool) -> None:
    expect_gradient(SEVERAL[case], dynamic=dynamic)


@pytest.mark.parametrize("case", SEVERAL)
def test_the_ledger_closes(case: str) -> None:
    expect_closed_ledger(SEVERAL[case])


@pytest.mark.parametrize("rule", ["epsilon", "z-plus", "w-square", "flat"])
def test_with_a_constant_it_is_a_layer_with_weights(rule: str, tmp_path: pytest.TempPathFactory) -> None:
    case = LINEAR["heads"]
    model, a, w = case.model(), case.data, distinct(2, 4, 2, seed=9)
    rules = f'[[rule]]\nkind = "linear"\nrule = "{rule}"'
    explained = explain_seeded(model, rules, {"a": a}, tmp_path)
    rows = [np.einsum("bsi,hid->bhsd", unit.reshape(a.shape), w).ravel() for unit in np.eye(a.size)]
    op = Dense(np.stack(rows, axis=1), np.zeros(explained.y.size), a.shape, explained.y.shape)
    expected = propagate(op, rule, {}, a.ravel(), explained.seeded)
    assert relative_l2(explained.relevance["a"].ravel(), expected.ravel()) < 1e-9


def test_halves_of_a_product_of_two(tmp_path: pytest.TempPathFactory) -> None:
    case = SEVERAL["matmul"]
    rules = '[[rule]]\nkind = "product"\nrule = "half"'
    explained = explain_seeded(case.model(), rules, case.feeds(), tmp_path, inputs=("a", "b"))
    terms = A[:, :, None] * B[None] / explained.y[:, None] * explained.seeded[:, None] / 2
    assert relative_l2(explained.relevance["a"], terms.sum(axis=2)) < 1e-9
    assert relative_l2(explained.relevance["b"], terms.sum(axis=0)) < 1e-9


def test_three_operands_are_two_pairs_of_one_node() -> None:
    plan = onnxlrp.plan(SEVERAL["three"].model(), inputs=("a",))
    pairs = [step for step in plan.steps if step.operator == "Einsum"]
    assert len(pairs) == 2
    assert all("node_einsum0" in step.nodes[-1] for step in pairs)


@st.composite
def equations(draw: st.DrawFn) -> str:
    """Any equation of one to three operands over four letters, with repeated, summed and shared ones."""
    operands = draw(st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=3))
    letters = sorted(set("".join(operands)))
    result = draw(st.lists(st.sampled_from(letters), unique=True, max_size=3))
    return f"{','.join(operands)}->{''.join(result)}"


@settings(max_examples=60, deadline=None)
@given(equations())
def test_any_equation(equation: str) -> None:
    """In float64 alone: onnxruntime refuses some diagonals."""
    sizes = {"a": 2, "b": 3, "c": 1, "d": 2}
    operands = equation.partition("->")[0].split(",")
    data = {f"x{i}": distinct(*(sizes[c] for c in letters), seed=i) for i, letters in enumerate(operands)}
    case = Several(data, applied("Einsum", equation=equation), len(equation.partition("->")[2]), runs=False)
    expect_gradient(case, dynamic=len(equation) % 2 == 0, tolerance=1e-6)
    expect_closed_ledger(case)
