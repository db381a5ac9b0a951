"""Rules for the steps of transformers, against their formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxlrp
from tests.support.evaluate import reference, relative_l2, run_reference, to_float64
from tests.support.gradients import central_gradient, distinct
from tests.support.models import Net

Array = np.ndarray
_WEIGHTS = {"query": 0.1, "key": 0.3, "value": 0.8, "gate": 0.35, "up": 0.9}


def _table(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(f'name = "mine"\n{text}')
    return file


def _dpa(folder: Path) -> Path:
    numbers = "\n".join(f"{k} = {v}" for k, v in _WEIGHTS.items())
    return _table(
        folder,
        f"""[[rule]]
kind = ["linear", "sum", "normalization"]
rule = "z"
[[rule]]
kind = "product"
rule = "dpa"
{numbers}
""",
    )


def _attention() -> Net:
    """softmax(q k^T / 2) v with three inputs, so that each path can be told from the others."""
    net = Net(np.float64)
    q, k, v = (net.input(n, [2, 3, 4]) for n in "qkv")
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), net.constant(np.array(0.5)))
    net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    return net


def test_each_path_of_attention_has_its_weight(tmp_path: Path) -> None:
    net = _attention()
    model = net.model("matmul4", ranks=[3])
    feeds = {n: distinct(2, 3, 4, seed=i) for i, n in enumerate("qkv")}
    seed = distinct(2, 3, 4, seed=9)
    emitted = onnxlrp.convert(model, rules=_dpa(tmp_path), target="seed")
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    forward = reference(model)
    worth = {"q": 0.1, "k": 0.3, "v": 0.8}
    for name in "qkv":
        gradient = central_gradient(lambda at: float((seed * forward(at)["matmul4"]).sum()), feeds, name)
        assert relative_l2(found[f"{name}_relevance"], worth[name] * feeds[name] * gradient) < 1e-8


def test_each_path_of_a_gated_layer_has_its_weight(tmp_path: Path) -> None:
    net = Net(np.float64)
    g, u = net.input("g", [2, 3]), net.input("u", [2, 3])
    model = net.model(net.op("Identity", net.op("Mul", net.op("Mul", g, net.op("Sigmoid", g)), u)), ranks=[2])
    feeds, seed = {"g": distinct(2, 3, seed=1), "u": distinct(2, 3, seed=2)}, distinct(2, 3, seed=3)
    emitted = onnxlrp.convert(model, rules=_dpa(tmp_path), target="seed")
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    y = seed * feeds["g"] / (1 + np.exp(-feeds["g"])) * feeds["u"]
    assert relative_l2(found["g_relevance"], 0.35 * y) < 1e-12
    assert relative_l2(found["u_relevance"], 0.9 * y) < 1e-12


def test_the_usual_weights_are_those_of_attnlrp() -> None:
    model = _attention().model("matmul4", ranks=[3])
    feeds = {n: distinct(2, 3, 4, seed=i) for i, n in enumerate("qkv")}
    maps = [
        run_reference(to_float64(onnxlrp.convert(model, rules=rules, target=(1, 2))), feeds)
        for rules in ("dpa", "attnlrp")
    ]
    for name in "qkv":
        assert relative_l2(maps[0][f"{name}_relevance"], maps[1][f"{name}_relevance"]) < 1e-12


def test_constant_attention_gives_the_values_everything() -> None:
    model = _attention().model("matmul4", ranks=[3])
    feeds, seed = {n: distinct(2, 3, 4, seed=i) for i, n in enumerate("qkv")}, distinct(2, 3, 4, seed=9)
    found = run_reference(
        to_float64(onnxlrp.convert(model, rules="cp-lrp", target="seed")), {**feeds, "lrp_seed": seed}
    )
    assert not found["q_relevance"].any()
    assert not found["k_relevance"].any()
    y = reference(model)(feeds)["matmul4"]
    assert np.isclose(found["v_relevance"].sum(), (seed * y).sum())


# -- sums ------------------------------------------------------------------------------------------------------------


def _sum_relevance(
    folder: Path, rule: str, terms: tuple[Array, ...], seed: Array, bias: Array | None = None
) -> list[Array]:
    net = Net(np.float64)
    names = [net.input("abc"[i], x.shape) for i, x in enumerate(terms)]
    constants = [] if bias is None else [net.constant(bias)]
    model = net.model(net.op("Identity", net.op("Sum", *names, *constants)), ranks=[seed.ndim])
    table = _table(folder, f'[[rule]]\nkind = "sum"\nrule = "{rule}"\n')
    feeds = dict(zip("abc", terms, strict=False))
    emitted = onnxlrp.convert(model, rules=table, target="seed")
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    report = onnxlrp.verify(model, feeds, rules=table)
    assert [c.name for c in report.checks if not c.passed and c.name != "batch independence"] == []
    return [found[f"{n}_relevance"] for n in feeds]


def _shares(rule: str, contributions: list[Array], z: Array) -> list[Array]:
    if rule == "absolute-ratio":
        weighted = [np.abs(c) for c in contributions]
    else:
        weighted = [(1.0 + 1.0 * (np.sign(c) == np.sign(z))) * c for c in contributions]
    total = sum(weighted)
    return [w / (total + 1e-6 * np.where(total >= 0, 1.0, -1.0)) for w in weighted]


@pytest.mark.parametrize("rule", ["res-lrp", "absolute-ratio"])
@pytest.mark.parametrize("with_bias", [False, True], ids=["alone", "bias"])
def test_a_sum_is_shared_by_the_formula(tmp_path: Path, rule: str, with_bias: bool) -> None:
    a, c = distinct(2, 3, 4, seed=1), distinct(3, 1, seed=2)
    bias = distinct(4, seed=3) if with_bias else None
    seed = distinct(2, 3, 4, seed=4)
    parts = [a, np.broadcast_to(c, a.shape)] + ([np.broadcast_to(bias, a.shape)] if bias is not None else [])
    z = np.asarray(sum(parts))
    relevance = seed * z
    shares = _shares(rule, parts, z)
    found = _sum_relevance(tmp_path, rule, (a, c), seed, bias)
    assert relative_l2(found[0], shares[0] * relevance) < 1e-9
    assert relative_l2(found[1], (shares[1] * relevance).sum((0, 2), keepdims=True)[0]) < 1e-9


def test_equal_shares_do_not_look_at_the_terms(tmp_path: Path) -> None:
    terms = tuple(distinct(2, 3, seed=i) for i in range(3))
    seed = distinct(2, 3, seed=7)
    for part in _sum_relevance(tmp_path, "equal", terms, seed):
        assert relative_l2(part, seed * np.asarray(sum(terms)) / 3) < 1e-12


def test_rescaled_branches_have_the_ratio_of_their_sums_and_the_sum_of_what_came(tmp_path: Path) -> None:
    a, c, seed = distinct(2, 3, 4, seed=1), distinct(2, 3, 4, seed=5), distinct(2, 3, 4, seed=4)
    z, bias = a + c, distinct(4, seed=3)
    relevance = seed * (z + bias)
    share = relevance / (z + 1e-6 * np.where(z >= 0, 1.0, -1.0))
    parts = [a * share, c * share]
    sums = [p.sum((1, 2), keepdims=True) for p in parts]
    total = relevance.sum((1, 2), keepdims=True) / sum(np.abs(s) for s in sums)
    found = _sum_relevance(tmp_path, "rescaled", (a, c), seed, bias)
    for got, part, own in zip(found, parts, sums, strict=True):
        assert relative_l2(got, part * np.sign(own) * total) < 1e-9
    assert np.allclose(sum(f.sum((1, 2)) for f in found), relevance.sum((1, 2)))


def test_res_lrp_stays_bounded_where_terms_cancel(tmp_path: Path) -> None:
    """|R_a| + |R_b| <= (1 + 2 / gamma) |R|, however nearly a + b is zero."""
    a = np.array([[1.0, -2.0, 0.5]])
    terms = (a, -a + np.array([[1e-4, -1e-5, 1e-3]]))
    seed = np.ones((1, 3))
    found = _sum_relevance(tmp_path, "res-lrp", terms, seed)
    whole = np.abs(sum(terms) * seed)
    assert (np.abs(found[0]) + np.abs(found[1]) <= 3.0 * whole + 1e-9).all()


def test_a_query_whose_keys_are_all_masked_depends_on_values_alone() -> None:
    """Beside the lowest float32 its scores are lost, so that nothing it gets comes from queries or keys."""
    net = Net(np.float32)
    q, k, v = (net.input(n, [2, 3, 4]) for n in "qkv")
    low = float(np.finfo(np.float32).min)
    mask = net.constant(np.array([[0, low, low], [0, 0, low], [low, low, low]], np.float32))
    scores = net.op("Add", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), mask)
    net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    model = net.model("matmul4", ranks=[3])
    feeds = {n: distinct(2, 3, 4, seed=i).astype(np.float32) for i, n in enumerate("qkv")}
    explained = onnxlrp.Explainer(model, rules="attnlrp", target=(2, slice(None))).explain(feeds)
    assert not explained.relevance["q"].any() and not explained.relevance["k"].any()
    np.testing.assert_allclose(explained.relevance["v"], feeds["v"] / 6, rtol=1e-5)
    report = onnxlrp.verify(model, feeds, rules="attnlrp", target=(2, slice(None)))
    assert report.passed
