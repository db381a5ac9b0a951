"""Relevance of token ids: that of the embeddings that they pick from a table, summed over their width."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxlrp
from onnxlrp.errors import UsageError
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64

Array = np.ndarray
_HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
_RNG = np.random.default_rng(4)
WEIGHTS = {
    "words": _RNG.normal(size=(9, 4)),
    "places": _RNG.normal(size=(6, 4)),
    "w": _RNG.normal(size=(4, 4)),
    "head": _RNG.normal(size=(4, 3)),
    "axis": np.array([1]),
    "flat": np.array([-1]),
    "low": np.array(-np.inf),
    "zero": np.array(0),
}
IDS, POSITIONS = np.array([[1, 7, 7, 3], [2, 0, 5, 5]]), np.array([[0, 1, 2, 3], [0, 1, 2, 3]])

_TAIL = "h = MatMul(e, w) t = Tanh(h) m = ReduceMean <keepdims = 0> (t, axis) y = MatMul(m, head)"


def _model(nodes: str, inputs: str = "int64[N,S] ids", **more: Array) -> onnx.ModelProto:
    model = parser.parse_model(f"{_HEADER} g ({inputs}) => (float[N,3] y) {{ {nodes} }}")
    for name, value in {**WEIGHTS, **more}.items():
        narrow = value.astype(np.float32) if value.dtype == np.float64 else value
        model.graph.initializer.append(numpy_helper.from_array(narrow, name))
    return model


def _relevance(model: onnx.ModelProto, rules: str, **feeds: Array) -> dict[str, Array]:
    emitted = onnxlrp.convert(model, rules=rules, target="seed")
    onnx.checker.check_model(emitted, full_check=True)
    seed = np.random.default_rng(1).normal(size=(2, 3))
    wide = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    narrow_feeds = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}
    narrow = run_onnxruntime(emitted, {**narrow_feeds, "lrp_seed": seed.astype(np.float32)})
    for name in narrow:
        assert relative_l2(narrow[name], wide[name]) < 1e-4
    return {k.removesuffix("_relevance"): v for k, v in wide.items() if k.endswith("_relevance")}


def _of_embedding(rules: str, embedding: Array) -> Array:
    """The same network with the embedding itself as its input."""
    return _relevance(_model(_TAIL, "float[N,S,4] e"), rules, e=embedding)["e"]


@pytest.mark.parametrize("rules", ["epsilon", "gradient-x-input"])
def test_ids_that_are_written_as_floats_are_ids(rules: str) -> None:
    """Keras exports make them whole in the graph."""
    model = _model(f"whole = Cast <to = 6> (ids) e = Gather(words, whole) {_TAIL}", "float[N,S] ids")
    found = _relevance(model, rules, ids=IDS.astype(np.float64))["ids"]
    expected = _of_embedding(rules, WEIGHTS["words"].astype(np.float32).astype(np.float64)[IDS]).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_float_input_that_is_also_used_as_it_is_keeps_its_own_relevance() -> None:
    nodes = f"whole = Cast <to = 6> (ids) e = Gather(words, whole) {_TAIL.replace('y = ', 'z = ')}"
    nodes += " part = MatMul(ids, own) y = Add(z, part)"
    own = np.random.default_rng(7).normal(size=(4, 3))
    found = _relevance(_model(nodes, "float[N,4] ids", own=own), "gradient-x-input", ids=IDS.astype(np.float64))["ids"]
    seed = np.random.default_rng(1).normal(size=(2, 3))
    np.testing.assert_allclose(found, IDS * (seed @ own.astype(np.float32).astype(np.float64).T), rtol=1e-6)


@pytest.mark.parametrize("rules", ["epsilon", "gradient-x-input"])
def test_a_token_has_the_relevance_of_its_embedding(rules: str) -> None:
    found = _relevance(_model(f"e = Gather(words, ids) {_TAIL}"), rules, ids=IDS)["ids"]
    expected = _of_embedding(rules, WEIGHTS["words"].astype(np.float32).astype(np.float64)[IDS]).sum(-1)
    assert found.shape == IDS.shape
    assert relative_l2(found, expected) < 1e-9


def test_words_and_positions_are_told_apart() -> None:
    model = _model(
        f"a = Gather(words, ids) b = Gather(places, positions) e = Add(a, b) {_TAIL}",
        "int64[N,S] ids, int64[N,S] positions",
    )
    found = _relevance(model, "gradient-x-input", ids=IDS, positions=POSITIONS)
    words, places = (WEIGHTS[n].astype(np.float32).astype(np.float64) for n in ("words", "places"))
    both = words[IDS] + places[POSITIONS]
    whole = _of_embedding("gradient-x-input", both)
    assert relative_l2(found["ids"], (whole / both * words[IDS]).sum(-1)) < 1e-9
    assert relative_l2(found["positions"], (whole / both * places[POSITIONS]).sum(-1)) < 1e-9


def test_two_lookups_by_the_same_ids_add_up() -> None:
    model = _model(f"a = Gather(words, ids) b = Gather(places, ids) e = Add(a, b) {_TAIL}")
    ids = IDS % 6
    found = _relevance(model, "gradient-x-input", ids=ids)["ids"]
    both = sum(WEIGHTS[n].astype(np.float32).astype(np.float64)[ids] for n in ("words", "places"))
    assert relative_l2(found, _of_embedding("gradient-x-input", np.asarray(both)).sum(-1)) < 1e-9


def test_ids_that_are_reshaped_before_the_lookup_keep_their_shape() -> None:
    nodes = "c = Cast <to = 6> (ids) f = Reshape(c, flat) g = Gather(words, f) s = Shape(ids) "
    nodes += f"four = Constant <value_ints = [4]> () t2 = Concat <axis = 0> (s, four) e = Reshape(g, t2) {_TAIL}"
    found = _relevance(_model(nodes), "epsilon", ids=IDS)["ids"]
    plain = _relevance(_model(f"e = Gather(words, ids) {_TAIL}"), "epsilon", ids=IDS)["ids"]
    assert relative_l2(found, plain) < 1e-9


def test_a_quantised_table_is_looked_up_all_the_same() -> None:
    table = np.random.default_rng(2).integers(-127, 127, (9, 4)).astype(np.int8)
    scale = np.array(0.02, np.float32)
    quantised = _model(f"q = Gather(small, ids) e = DequantizeLinear(q, scale) {_TAIL}", small=table, scale=scale)
    found = _relevance(quantised, "epsilon", ids=IDS)["ids"]
    assert (
        relative_l2(found, _of_embedding("epsilon", table.astype(np.float64)[IDS] * np.float64(scale)).sum(-1)) < 1e-9
    )


def test_a_table_that_is_also_the_output_layer_is_both() -> None:
    """Tied weights: what comes back through the output layer is not counted as a lookup."""
    nodes = "e = Gather(words, ids) h = MatMul(e, w) t = Tanh(h) m = ReduceMean <keepdims = 0> (t, axis) "
    nodes += "back = Transpose <perm = [1, 0]> (words) z = MatMul(m, back) "
    nodes += "first = Constant <value_ints = [0, 1, 2]> () y = Gather <axis = 1> (z, first)"
    tied = _relevance(_model(nodes), "epsilon", ids=IDS)["ids"]
    apart = _relevance(_model(nodes.replace("(words) z", "(copy) z"), copy=WEIGHTS["words"]), "epsilon", ids=IDS)["ids"]
    assert relative_l2(tied, apart) < 1e-9


_ATTENTION = """
  e = Gather(words, ids) k = Transpose <perm = [0, 2, 1]> (e) s = MatMul(e, k)
  pad = Equal(mask, zero) cols = Unsqueeze(pad, axis) masked = Where(cols, low, none) u = Add(s, masked)
  p = Softmax(u) c = MatMul(p, e) r = Slice(c, start, end, axis) q = Squeeze(r, axis) y = MatMul(q, head)
"""


@pytest.mark.parametrize("rules", ["epsilon", "gradient-x-input", "default"])
def test_padding_has_exactly_no_relevance_and_changes_nothing(rules: str) -> None:
    more = {"start": np.array([0]), "end": np.array([1]), "none": np.array(0.0)}
    model = _model(_ATTENTION, "int64[N,S] ids, int64[N,S] mask", **more)
    seeded = onnxlrp.convert(model, rules=rules, target=1)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    found = run_onnxruntime(seeded, {"ids": IDS, "mask": mask})["ids_relevance"]
    assert (found[mask == 0] == 0).all()
    assert np.isfinite(found).all()
    for sample, length in enumerate((3, 2)):
        alone = run_onnxruntime(
            seeded, {"ids": IDS[sample : sample + 1, :length], "mask": np.ones((1, length), np.int64)}
        )["ids_relevance"]
        assert relative_l2(found[sample, :length], alone[0]) < 1e-5
    report = onnxlrp.verify(model, {"ids": IDS, "mask": mask}, rules=rules)
    assert [c.name for c in report.checks if not c.passed] == []


def test_ids_that_are_not_looked_up_cannot_be_explained() -> None:
    flags = "k = Greater(ids, zero) f = Cast <to = 1> (k) e = Unsqueeze(f, flat)"
    model = _model(f"{flags} {_TAIL}", w=np.ones((1, 4)))
    with pytest.raises(UsageError, match="neither made of floats, nor"):
        onnxlrp.convert(model, inputs=["ids"])


@pytest.mark.parametrize("rules", ["epsilon", "default", "attnlrp", "gradient-x-input"])
@pytest.mark.parametrize("target", ["argmax", 1, "top:2"])
def test_logits_that_are_ruled_out_by_a_mask_lose_nothing(rules: str, target: str | int) -> None:
    """Some language models set the scores of forbidden tokens to -inf."""
    masked = _TAIL.replace("y = MatMul(m, head)", "z = MatMul(m, head) y = Add(z, forbidden)")
    plain = _model(f"e = Gather(words, ids) {_TAIL}")
    model = _model(f"e = Gather(words, ids) {masked}", forbidden=np.array([-np.inf, 0.0, 0.0]))
    found = run_onnxruntime(onnxlrp.convert(model, rules=rules, target=target), {"ids": IDS})["ids_relevance"]
    assert np.isfinite(found).all()
    if target == 1:
        expected = run_onnxruntime(onnxlrp.convert(plain, rules=rules, target=1), {"ids": IDS})["ids_relevance"]
        assert relative_l2(found, expected) < 1e-4


@pytest.mark.parametrize("rules", ["epsilon", "gradient-x-input"])
@pytest.mark.parametrize(
    "last",
    [
        "y = Mul(v, two)",
        "y = If(yes) <then_branch = t () => (float[N,3] a) { a = Exp(v) },"
        " else_branch = e () => (float[N,3] c) { c = Identity(v) }>",
    ],
)
def test_infinite_scores_stay_guarded_behind_a_factor_and_in_a_branch(rules: str, last: str) -> None:
    tail = _TAIL.replace("y = MatMul(m, head)", f"z = MatMul(m, head) u = Add(z, forbidden) v = Identity(u) {last}")
    more = {"forbidden": np.array([-np.inf, 0.0, 0.0]), "two": np.array(2.0), "yes": np.array(False)}
    model = _model(f"e = Gather(words, ids) {tail}", **more)
    found = run_onnxruntime(onnxlrp.convert(model, rules=rules), {"ids": IDS})["ids_relevance"]
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0
