"""Attention in its forms: the derivative by every operand, masks that leave nothing finite out, and shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.examples import GRADIENT, expect_derivatives
from tests.support.case import Case
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray
Q, K, V = (1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 2)
BOOL_MASK = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 0, 0, 0]], bool)


def attended(*shapes: tuple[int, ...], opset: int = 24, mask: Any = None, valid: Any = None, **attributes: Any) -> Case:
    """Q, K, V and perhaps past keys and values are inputs; the mask is a constant, or the fourth input."""

    def build(net: Net, q: str, k: str, v: str, *rest: str) -> str:
        given = [q, k, v]
        past = list(rest)
        if mask is not None or len(past) in (1, 3):
            given.append(past.pop(0) if mask is None else net.constant(mask))
        elif past or valid is not None:
            given.append("")
        given += past
        if valid is not None:
            given += ["", "", net.constant(np.array(valid, np.int64))]
        return net.op("Attention", *given, **attributes)

    return Case(shapes, build, len(shapes[0]), opset=opset, frozen=(1, 3))


def flat(heads: int, keys: int, **attributes: Any) -> Case:
    shapes = [(2, 3, 4 * heads), (2, 5, 4 * keys), (2, 5, 2 * keys)]
    case = attended(*shapes, q_num_heads=heads, kv_num_heads=keys, **attributes)
    return Case(case.shapes, case.build, 3, opset=case.opset, frozen=(2,))


CASES: Mapping[str, Case] = {
    "plain": attended(Q, K, V),
    "opset-23": attended(Q, K, V, opset=23),
    "scaled": attended(Q, K, V, scale=0.3),
    "causal": attended(Q, K, V, is_causal=1),
    "soft-capped": attended(Q, K, V, softcap=0.8),
    "mask-of-booleans": attended(Q, K, V, mask=BOOL_MASK),
    "mask-of-numbers": attended(Q, K, V, mask=distinct(3, 5, seed=8)),
    "mask-of-infinities": attended(Q, K, V, mask=np.where(BOOL_MASK, 0.3, -np.inf)),
    "mask-from-data": attended(Q, K, V, (3, 5)),
    "mask-shorter-than-keys": attended(Q, K, V, mask=distinct(3, 4, seed=8)),
    "mask-and-causal": attended(
        Q, K, V, mask=np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 1, 1, 1]], bool), is_causal=1
    ),
    "shared-keys": attended((1, 4, 3, 4), K, V),
    "flat": flat(2, 2),
    "flat-shared-keys-causal": flat(4, 2, is_causal=1),
    "past": attended(Q, K, V, (1, 2, 2, 4), (1, 2, 2, 2), is_causal=1),
    "valid-keys": attended((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 2), valid=[4, 5], is_causal=1),
    "window": attended(Q, K, V, opset=25, left_window_size=1, right_window_size=0),
}


@pytest.mark.parametrize("case", CASES)
def test_derivatives(case: str) -> None:
    expect_derivatives(CASES[case], tolerance=1e-6)


@pytest.mark.parametrize(
    "case", ["plain", "causal", "mask-of-booleans", "shared-keys", "flat-shared-keys-causal", "past"]
)
def test_lengths_may_be_open(case: str) -> None:
    expect_derivatives(CASES[case], dynamic=True, tolerance=1e-6)


@pytest.mark.parametrize("mode", range(4))
def test_derivatives_of_the_scores(mode: int) -> None:
    def build(net: Net, *operands: str) -> str:
        # onnx.reference hands on capped scores as the raw ones.
        cap = {"softcap": 0.9} if mode else {}
        y = net.op("Attention", *operands, outputs=4, qk_matmul_output_mode=mode, **cap)
        return net.op("Add", f"{y}_3", net.op("ReduceSum", y))

    expect_derivatives(Case((Q, K, V), build, 4, opset=24), tolerance=1e-6)


@pytest.mark.parametrize("output", [1, 2])
def test_derivatives_of_the_keys_and_values_that_are_handed_on(output: int) -> None:
    def build(net: Net, q: str, k: str, v: str, pk: str, pv: str) -> str:
        return net.op("Neg", f"{net.op('Attention', q, k, v, '', pk, pv, outputs=3)}_{output}")

    names = ("b", "d") if output == 1 else ("c", "e")
    case = Case((Q, K, V, (1, 2, 2, 4), (1, 2, 2, 2)), build, 4, opset=24)
    explained = explain_seeded(case.model(), GRADIENT, case.feeds())
    past, new = (case.feeds()[n] for n in reversed(names))
    expected = -np.concatenate([past, new], axis=2) * explained.seed
    found = [explained.relevance[n] for n in reversed(names)]
    assert relative_l2(np.concatenate(found, axis=2), expected) < 1e-12


def test_a_query_without_keys_receives_and_gives_nothing() -> None:
    mask = np.array([[True] * 5, [False] * 5, [True] * 5])
    case = attended(Q, K, V, mask=mask)
    explained = explain_seeded(case.model(), GRADIENT, case.feeds())
    assert not explained.y[:, :, 1].any()
    assert all(np.isfinite(r).all() for r in explained.relevance.values())
    assert not explained.relevance["a"][:, :, 1].any()


def _written_out(mask: Array | None) -> ModelProto:
    """Attention in primitive nodes, as exporters write it."""
    net = Net()
    q, k, v = (net.input(n, s) for n, s in zip("abc", (Q, K, V), strict=True))
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), net.constant(0.5))
    if mask is not None:
        scores = net.op("Add", scores, net.constant(mask))
    return net.model(net.op("MatMul", net.op("Softmax", scores), v))


@pytest.mark.parametrize("rules", ["epsilon", GRADIENT])
@pytest.mark.parametrize("masked", [False, True])
def test_one_operator_and_its_primitive_nodes_give_the_same_map(rules: str, masked: bool) -> None:
    mask = np.where(BOOL_MASK, 0.0, -np.inf) if masked else None
    case = attended(Q, K, V, mask=mask)
    one, other = (explain_seeded(m, rules, case.feeds()) for m in (case.model(), _written_out(mask)))
    for name in case.names:
        assert np.isfinite(other.relevance[name]).all()
        assert relative_l2(one.relevance[name], other.relevance[name]) < 1e-9


@pytest.mark.parametrize("rules", ["default", "epsilon", GRADIENT])
def test_masks_by_infinity_leave_float32_finite(rules: str) -> None:
    """A mask that is a graph input, added to scores: what no query may look at is minus infinity."""
    net = Net(np.float32)
    q, k, v = (net.input(n, s) for n, s in zip("abc", (Q, K, V), strict=True))
    mask = net.input("mask", (3, 5))
    scores = net.op("Add", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), mask)
    model = net.model(net.op("MatMul", net.op("Softmax", scores), v))
    emitted = onnxlrp.convert(model, rules=rules, target="seed", inputs=("a", "b", "c"))
    feeds = {n: distinct(*s, seed=i).astype(np.float32) for i, (n, s) in enumerate(zip("abc", (Q, K, V), strict=True))}
    feeds["mask"] = np.where(BOOL_MASK, 0.0, -np.inf).astype(np.float32)
    found = run_onnxruntime(emitted, {**feeds, "lrp_seed": np.ones((1, 2, 3, 2), np.float32)})
    for name in "abc":
        assert np.isfinite(found[f"{name}_relevance"]).all()
        assert found[f"{name}_relevance"].any()


@pytest.mark.parametrize("at_run_time", [False, True])
def test_rows_that_a_network_sorts_out_itself_stay_finite(at_run_time: bool) -> None:
    """A row of which everything is masked has no softmax; networks put zeros in its place."""
    mask = np.where(BOOL_MASK, 0.0, -np.inf)
    mask[1] = -np.inf
    net = Net(np.float32)
    q, k, v = (net.input(n, s) for n, s in zip("abc", (Q, K, V), strict=True))
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), net.constant(0.5))
    if at_run_time:
        seen = net.input("seen", mask.shape, np.bool_)
        added = net.op("CastLike", net.op("Where", seen, net.constant(0.0), net.constant(-np.inf)), scores)
    else:
        added = net.constant(mask)
    probabilities = net.op("Softmax", net.op("Add", scores, added))
    guarded = net.op("Where", net.constant(np.isneginf(mask).all(1)[:, None]), net.constant(0.0), probabilities)
    emitted = onnxlrp.convert(net.model(net.op("MatMul", guarded, v)), rules=GRADIENT, target="seed")
    one = attended(Q, K, V, mask=mask)
    explained = explain_seeded(one.model(), GRADIENT, one.feeds())
    feeds = {n: x.astype(np.float32) for n, x in one.feeds().items()} | ({"seen": mask == 0} if at_run_time else {})
    found = run_onnxruntime(emitted, {**feeds, "lrp_seed": explained.seed.astype(np.float32)})
    for name in "abc":
        assert relative_l2(found[f"{name}_relevance"], explained.relevance[name]) < 1e-5


def test_the_ledger_closes_over_masks() -> None:
    """What an infinite mask keeps is nothing, and not no number."""
    model = _written_out(np.where(BOOL_MASK, 0.3, -np.inf))
    emitted = onnxlrp.convert(model, rules="epsilon", target="seed", ledger=True)
    feeds = {**CASES["plain"].feeds(), "lrp_seed": np.ones((1, 2, 3, 2))}
    ledger = reference(to_float64(emitted))(feeds)["lrp_ledger"]
    arrived, gone, mass = ledger[:, 0], ledger[:, 1:6].sum(axis=1), ledger[:, 6]
    assert np.isfinite(ledger).all() and mass.any()
    np.testing.assert_allclose(arrived, gone, atol=1e-9 * mass.max())


def test_weights_that_are_cleaned_of_nan_are_a_gate_like_others() -> None:
    """As exporters write it: without that, rules that give attention weights nothing would give them half."""
    net = Net()
    q, k, v = (net.input(n, s) for n, s in zip("abc", (Q, K, V), strict=True))
    weights = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])))
    clean = net.op("Where", net.op("IsNaN", weights), net.constant(0.0), weights)
    given = explain_seeded(net.model(net.op("MatMul", clean, v)), "cp-lrp", CASES["plain"].feeds())
    assert not given.relevance["a"].any() and not given.relevance["b"].any()
    np.testing.assert_allclose(given.relevance["c"].sum(), given.seeded.sum(), rtol=1e-9)


def test_masked_weights_that_are_cleaned_of_nan_are_not_computed_again() -> None:
    """The first query sees nothing (its softmax is no number), the second the lowest floats, the third all but one."""
    net = Net()
    q, k, v = (net.input(n, s) for n, s in zip("abc", (Q, K, V), strict=True))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    mask = np.zeros((3, 5))
    mask[0], mask[1], mask[2, 0] = -np.inf, np.finfo(np.float64).min, -np.inf
    weights = net.op("Softmax", net.op("Add", scores, net.constant(mask)))
    clean = net.op("Where", net.op("IsNaN", weights), net.constant(0.0), weights)
    model = net.model(net.op("MatMul", clean, v))
    emitted = onnxlrp.convert(model, rules="attnlrp", target="seed")
    assert [node.op_type for node in emitted.graph.node].count("Softmax") == 1
    feeds = CASES["plain"].feeds()
    given = explain_seeded(model, "attnlrp", feeds)

    a, b, c = (feeds[name] for name in "abc")
    weighed = np.exp(a @ b.swapaxes(2, 3)) * (mask[2] == 0)
    weighed /= weighed.sum(-1, keepdims=True)
    weighed[:, :, 0], weighed[:, :, 1] = 0, 0.2
    of_weights = given.seed / 2 @ c.swapaxes(2, 3)
    of_scores = weighed * (of_weights - (weighed * of_weights).sum(-1, keepdims=True)) / 2
    of_scores[:, :, :2] = 0  # nothing depends on scores that are lost beside their mask
    expected = {"a": a * (of_scores @ b), "b": b * (of_scores.swapaxes(2, 3) @ a)}
    expected["c"] = c * (weighed.swapaxes(2, 3) @ given.seed / 2)
    for name, relevance in expected.items():
        assert relative_l2(given.relevance[name], relevance) < 1e-9


def test_unknown_heads_are_refused() -> None:
    net = Net(np.float32, opset=23)
    q, k, v = (net.input(n, (1, h, 3, 4)) for n, h in zip("abc", ("hq", "hk", "hk"), strict=True))
    with pytest.raises(ConversionError, match="number of heads"):
        onnxlrp.convert(net.model(net.op("Attention", q, k, v), ranks=[4]), rules="epsilon")
