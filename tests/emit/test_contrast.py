"""Contrast, start, normalisation and scale of a rule table, with every kind of target; whole maps against numpy."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.tables import parse_table
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64

Array = np.ndarray
WEIGHTS = {
    "v": np.random.default_rng(1).normal(size=(5, 6)),
    "c": np.random.default_rng(2).normal(size=(6,)),
    "w": np.random.default_rng(3).normal(size=(6, 4)),
    "d": np.random.default_rng(4).normal(size=(4,)),
}
X = np.random.default_rng(5).normal(size=(3, 5))


@cache
def network(batch: str = "N") -> onnx.ModelProto:
    """Two dense layers with a Relu between them."""
    text = f"""
    <ir_version: 8, opset_import: ["" : 18]>
    g (double[{batch},5] x) => (double[{batch},4] y)
      {{ h = Gemm(x, v, c)  a = Relu(h)  y = Gemm(a, w, d) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in WEIGHTS.items())
    return model


def norm1(r: Array) -> Array:
    return r / (np.abs(r).sum(axis=1, keepdims=True) + 1e-9)


def layer(x: Array, w: Array, bias: Array, r: Array) -> Array:
    """Positive contributions x_i w_ij over |z_j|, twice, and of absolute sum 1."""
    s = r / (np.abs(x @ w + bias) + 1e-9)
    return norm1(2 * np.einsum("nij,nj->ni", np.maximum(x[:, :, None] * w, 0), s))


def one_pass(seed: Array) -> Array:
    """The map of one seed; the rule for every step, by hand."""
    h = X @ WEIGHTS["v"] + WEIGHTS["c"]
    r = layer(np.maximum(h, 0), WEIGHTS["w"], WEIGHTS["d"], norm1(seed))
    r = norm1(2 * r * (h > 0))
    return layer(X, WEIGHTS["v"], WEIGHTS["c"], r)


def against(chosen: Array, others: Array) -> Array:
    difference = one_pass(chosen) - one_pass(others)
    return difference / (np.abs(difference).max(axis=1, keepdims=True) + 1e-9)


def explained(model: onnx.ModelProto | None = None, feeds: dict[str, Array] | None = None, **options: object) -> Array:
    emitted = onnxlrp.convert(model or network(), rules="abslrp", relevance_type="float64", **options)
    return run_reference(to_float64(emitted), {"x": X, **(feeds or {})})["x_relevance"]


def logits() -> Array:
    return np.maximum(X @ WEIGHTS["v"] + WEIGHTS["c"], 0) @ WEIGHTS["w"] + WEIGHTS["d"]


def one_hot(classes: Array | list[int]) -> Array:
    return np.eye(4)[np.asarray(classes)]


def test_the_largest_against_all_others() -> None:
    hot = one_hot(logits().argmax(1))
    assert relative_l2(explained(), against(hot, 1 - hot)) < 1e-12


def test_an_index_and_a_span_against_all_others() -> None:
    hot = one_hot([2, 2, 2])
    assert relative_l2(explained(target=2), against(hot, 1 - hot)) < 1e-12
    pair = one_hot([0, 0, 0]) + one_hot([1, 1, 1])
    assert relative_l2(explained(target="0:2"), against(pair, 1 - pair)) < 1e-12


def test_a_class_for_each_sample() -> None:
    classes = np.array([[3], [0], [1]])
    hot = one_hot(classes[:, 0])
    assert relative_l2(explained(target="input", feeds={"lrp_target": classes}), against(hot, 1 - hot)) < 1e-12


def test_one_class_rather_than_another_is_the_contrast_of_the_two() -> None:
    expected = against(one_hot([1, 1, 1]), one_hot([3, 3, 3]))
    assert relative_l2(explained(target=1, rather_than=3), expected) < 1e-12


def test_a_seed_is_split_by_its_sign() -> None:
    seed = np.random.default_rng(8).normal(size=(3, 4))
    expected = against(np.maximum(seed, 0), np.maximum(-seed, 0))
    assert relative_l2(explained(target="seed", feeds={"lrp_seed": seed}), expected) < 1e-12


def test_a_seed_without_negative_values_has_no_contrast() -> None:
    seed = np.abs(np.random.default_rng(9).normal(size=(3, 4)))
    alone = one_pass(seed)
    found = explained(target="seed", feeds={"lrp_seed": seed})
    assert relative_l2(found, alone / np.abs(alone).max(axis=1, keepdims=True)) < 1e-6


def test_the_k_largest_each_against_all_others() -> None:
    order = np.argsort(-logits(), axis=1)[:, :3]
    maps = [against(one_hot(order[:, k]), 1 - one_hot(order[:, k])) for k in range(3)]
    assert relative_l2(explained(target="top:3"), np.stack(maps, axis=1)) < 1e-12


@pytest.mark.parametrize("batch", ["N", "3"])
def test_on_demand_and_with_any_batch(batch: str) -> None:
    hot = one_hot(logits().argmax(1))
    asked = np.ones((3, 1), bool)
    found = explained(network(batch), {"lrp_explain": asked}, on_demand=True)
    assert relative_l2(found, against(hot, 1 - hot)) < 1e-12
    assert not explained(network(batch), {"lrp_explain": ~asked}, on_demand=True).any()


def test_in_onnxruntime() -> None:
    hot = one_hot(logits().argmax(1))
    emitted = onnxlrp.convert(network(), rules="abslrp")
    assert relative_l2(run_onnxruntime(emitted, {"x": X})["x_relevance"], against(hot, 1 - hot)) < 1e-5


def test_the_second_pass_reads_the_same_forward_pass() -> None:
    """What does not depend on relevance is there once: the layers run once, their denominators are made once."""
    emitted = onnxlrp.convert(network(), rules="abslrp")
    once, twice = ([n.op_type for n in model.graph.node].count("Abs") for model in (_without_contrast(), emitted))
    assert twice <= once + 1  # of the scale
    assert [n.op_type for n in emitted.graph.node].count("ArgMax") == 1


def _without_contrast() -> onnx.ModelProto:
    table = parse_table(
        'start = "one"\nnormalize = "operand"\n[[rule]]\nrule = "absolute-magnitude"', name="t", source="t"
    )
    return onnxlrp.convert(network(), rules=table)


def test_inputs_that_are_not_negative_cost_one_transpose() -> None:
    """The layer behind the Relu has one, the layer that reads the signed input two."""
    gemms = [n for n in _without_contrast().graph.node if n.op_type == "Gemm" and n.name.startswith("lrp/")]
    assert len(gemms) == 3


def test_a_contrast_without_normalisation_is_linear() -> None:
    """contrast alone: the share of the target in its own logit, less the mean share of the others."""
    table = parse_table('contrast = "others"\n[[rule]]\nkind = "linear"\nrule = "z"\n', name="t", source="t")
    emitted = onnxlrp.convert(network(), rules=table, target=1, relevance_type="float64")
    found = run_reference(to_float64(emitted), {"x": X})["x_relevance"]
    seed = one_hot([1, 1, 1]) - (1 - one_hot([1, 1, 1])) / 3
    active = X @ WEIGHTS["v"] + WEIGHTS["c"] > 0
    expected = X * ((seed @ WEIGHTS["w"].T * active) @ WEIGHTS["v"].T)
    assert relative_l2(found, expected) < 1e-8


def test_the_plan_and_the_metadata_say_it() -> None:
    plan = onnxlrp.plan(network(), rules="abslrp")
    assert {k: plan.settings[k] for k in ("start", "contrast", "normalize", "scale")} == {
        "start": "one",
        "contrast": "others",
        "normalize": "operand",
        "scale": "max",
    }
    assert "contrast" not in onnxlrp.plan(network(), rules="epsilon").settings
    settings = {p.key: p.value for p in onnxlrp.convert(network(), rules="abslrp").metadata_props}
    assert '"contrast": "others"' in settings["onnxlrp.settings"]


def test_a_reconstruction_says_that_it_is_one() -> None:
    assert any("no parity" in note for note in onnxlrp.plan(network(), rules="relative-lrp").notes)
    settings = {p.key: p.value for p in onnxlrp.convert(network(), rules="relative-lrp").metadata_props}
    assert "reconstruction" in settings["onnxlrp.settings"]


@pytest.mark.parametrize("rules", ["abslrp", "abslrp-intline", "abslrp-reference", "relative-lrp"])
def test_verify_checks_what_holds_instead_of_conservation(rules: str) -> None:
    report = onnxlrp.verify(network(), rules=rules)
    assert report.passed
    mass = {"abslrp-intline": "mass of each sign kept by each step", "relative-lrp": "ledger"}
    assert mass.get(rules, "mass of 1 behind each step") in [check.name for check in report.checks]


@pytest.mark.parametrize("mask", [-np.inf, np.finfo(np.float32).min, -1e9])
@pytest.mark.parametrize("rules", ["abslrp", "abslrp-intline"])
def test_a_masked_key_is_as_if_it_were_not_there(rules: str, mask: float) -> None:
    """One query attends to tokens, the last of which is masked, or to those before it alone.

    The mask is put in by Where. An Add is a step of its own, whose terms count as far as they are positive.
    """
    random = np.random.default_rng(7)
    known = {name: random.normal(size=(4, 4)) for name in ("q", "k", "v", "w")} | {"c": random.normal(size=(4,))}
    known |= {"from": np.array([0]), "one": np.array([1]), "axis": np.array([1]), "end": np.array([9])}

    def attention(tokens: int, masked: bool) -> onnx.ModelProto:
        scores = "scores = Where(keep, raw, mask)" if masked else "scores = Identity(raw)"
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 18]> g (double[N,{tokens},4] x) => (double[N,4] y) {{
            first = Slice(x, from, one, axis)  rest = Slice(x, one, end, axis)
            a = MatMul(first, q)  b = MatMul(rest, k)  bt = Transpose<perm = [0, 2, 1]>(b)  raw = MatMul(a, bt)
            {scores}  p = Softmax<axis = -1>(scores)  e = MatMul(rest, v)  o = MatMul(p, e)
            s = Squeeze(o, axis)  y = Gemm(s, w, c) }}"""
        )
        given = {"keep": np.array([[[True, True, False]]]), "mask": np.array(mask)}
        tensors = known | (given if masked else {})
        model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in tensors.items())
        return onnxlrp.convert(model, rules=rules, relevance_type="float64")

    x = random.normal(size=(2, 4, 4))
    whole = run_reference(to_float64(attention(4, True)), {"x": x})["x_relevance"]
    short = run_reference(to_float64(attention(3, False)), {"x": x[:, :3]})["x_relevance"]
    assert relative_l2(whole[:, :3], short) < 1e-6
    assert not whole[:, 3].any()


def test_a_reconstruction_by_hand() -> None:
    """m = x * W^T R and one factor per layer and sample, from the logit of the target on."""

    def back(x: Array, w: Array, r: Array) -> Array:
        m = x * (r @ w.T)
        return m * np.abs(r).sum(axis=1, keepdims=True) / np.abs(m).sum(axis=1, keepdims=True)

    emitted = onnxlrp.convert(network(), rules="relative-lrp", target=2, relevance_type="float64")
    found = run_reference(to_float64(emitted), {"x": X})["x_relevance"]
    hidden = np.maximum(X @ WEIGHTS["v"] + WEIGHTS["c"], 0)
    r = back(hidden, WEIGHTS["w"], one_hot([2, 2, 2]) * logits())
    assert relative_l2(found, back(X, WEIGHTS["v"], r)) < 1e-8


@pytest.mark.parametrize("rules", ["abslrp", "abslrp-intline", "relative-lrp"])
def test_an_input_of_zeros_gives_a_map_of_zeros(rules: str) -> None:
    emitted = onnxlrp.convert(network(), rules=rules)
    assert not run_onnxruntime(emitted, {"x": np.zeros((2, 5))})["x_relevance"].any()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('contrast = "all"', "line 1: contrast must be one of none, others, not 'all'"),
        ('normalize = "l2"', "line 1: normalize must be one of none, operand, sign, not 'l2'"),
        ("scale = 1", "line 1: scale must be a string, not 1"),
        ('start = "zero"', "line 1: start must be one of output, one, not 'zero'"),
        ("note = 3", "line 1: note must be a string, not 3"),
    ],
)
def test_a_wrong_word_is_an_error_that_names_the_line(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_table(f'{line}\n[[rule]]\nrule = "epsilon"\n', name="t", source="t")


@pytest.mark.parametrize("rules", ["abslrp", "abslrp-intline", "abslrp-reference", "relative-lrp"])
def test_a_mask_of_minus_infinity_that_is_added_leaves_maps_finite(rules: str) -> None:
    random = np.random.default_rng(7)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,4] x) => (float[N,4] y) {
        t = Transpose<perm = [0, 2, 1]>(x)  raw = MatMul(x, t)  scores = Add(raw, mask)
        p = Softmax<axis = -1>(scores)  o = MatMul(p, x)  s = ReduceMean<keepdims = 0>(o, axis)  y = Gemm(s, w) }"""
    )
    mask = np.zeros((1, 3, 3), np.float32)
    mask[0, :, 2] = -np.inf
    tensors = {"mask": mask, "axis": np.array([1]), "w": random.normal(size=(4, 4)).astype(np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in tensors.items())
    x = random.normal(size=(2, 3, 4)).astype(np.float32)
    found = run_onnxruntime(onnxlrp.convert(model, rules=rules), {"x": x})["x_relevance"]
    assert np.isfinite(found).all() and found.any()
    assert onnxlrp.verify(model, rules=rules).passed
