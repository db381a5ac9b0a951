"""Inputs of whole numbers that stand for themselves: pixels in uint8, integer columns of a table.

The replica is the same network with floats as its input.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxlrp
from onnxlrp.errors import ConversionError, UsageError
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64

Array = np.ndarray
_HEADER = '<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]>'
_RNG = np.random.default_rng(6)
WEIGHTS = {
    "kernel": _RNG.normal(size=(4, 3, 3, 3)) / 50,
    "bias": _RNG.normal(size=4),
    "w": _RNG.normal(size=(3, 4)),
    "b": _RNG.normal(size=4),
    "scale": np.array(0.02),
    "zero": np.array(100, np.uint8),
    "mean": _RNG.normal(size=(1, 3, 1, 1)),
    "axes": np.array([2, 3]),
    "one": np.array([1]),
    "three": np.array([3]),
    "shift": np.array([5], np.int32),
    "step": np.array([5.0]),
    "narrow": np.array([5], np.uint8),
    "order": np.array([2, 0, 1]),
    "table": _RNG.normal(size=(9, 3)),
}
PIXELS = _RNG.integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
ROWS = _RNG.integers(-5, 6, (2, 3))
_NET = "c = Conv(s, kernel, bias) r = Relu(c) y = ReduceMean <keepdims = 0> (r, axes)"
_DENSE = "h = MatMul(f, w) g = Add(h, b) y = Relu(g)"


def _model(inputs: str, nodes: str) -> onnx.ModelProto:
    model = parser.parse_model(f"{_HEADER} g ({inputs}) => (float[N,4] y) {{ {nodes} }}")
    used = {name for node in model.graph.node for name in node.input}
    for name, value in ((n, v) for n, v in WEIGHTS.items() if n in used):
        narrow = value.astype(np.float32) if value.dtype == np.float64 else value
        model.graph.initializer.append(numpy_helper.from_array(narrow, name))
    return model


def _relevance(model: onnx.ModelProto, rules: str, feeds: dict[str, Array], **options: object) -> dict[str, Array]:
    emitted = onnxlrp.convert(model, rules=rules, target="seed", **options)  # type: ignore[arg-type]
    onnx.checker.check_model(emitted, full_check=True)
    seed = np.random.default_rng(1).normal(size=(2, 4))
    wide = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    narrow_feeds = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}
    narrow = run_onnxruntime(emitted, {**narrow_feeds, "lrp_seed": seed.astype(np.float32)})
    for name in narrow:
        assert relative_l2(narrow[name], wide[name]) < 1e-4
    return {k.removesuffix("_relevance"): v for k, v in wide.items() if k.endswith("_relevance")}


@pytest.mark.parametrize("rules", ["gradient-x-input", "epsilon", "epsilon-plus"])
def test_pixels_that_are_moved_and_scaled_in_the_graph(rules: str) -> None:
    pixels = _model(
        "uint8[N,6,6,3] x", f"t = Transpose <perm = [0, 3, 1, 2]> (x) f = Cast <to = 1> (t) s = Sub(f, mean) {_NET}"
    )
    floats = _model("float[N,6,6,3] x", f"t = Transpose <perm = [0, 3, 1, 2]> (x) s = Sub(t, mean) {_NET}")
    found = _relevance(pixels, rules, {"x": PIXELS})
    wanted = _relevance(floats, rules, {"x": PIXELS.astype(np.float64)})
    assert relative_l2(found["x"], wanted["x"]) < 1e-9
    assert found["x"].shape == PIXELS.shape


def test_quantised_pixels_count_as_the_numbers_that_they_stand_for() -> None:
    quantised = _model("uint8[N,3,6,6] x", f"s = DequantizeLinear(x, scale, zero) {_NET}")
    pixels = PIXELS.transpose(0, 3, 1, 2)
    found = _relevance(quantised, "epsilon", {"x": pixels})
    real = (pixels.astype(np.float64) - 100) * np.float32(0.02)
    wanted = _relevance(_model("float[N,3,6,6] s", _NET), "epsilon", {"s": real})
    assert relative_l2(found["x"], wanted["s"]) < 1e-6


def test_columns_that_are_put_together_and_picked() -> None:
    columns = _model(
        "int64[N,1] u, int64[N,2] v",
        f"x = Concat <axis = 1> (u, v) p = Gather <axis = 1> (x, order) f = Cast <to = 1> (p) {_DENSE}",
    )
    found = _relevance(columns, "epsilon", {"u": ROWS[:, :1], "v": ROWS[:, 1:]})
    wanted = _relevance(
        _model("float[N,3] x", f"f = Gather <axis = 1> (x, order) {_DENSE}"), "epsilon", {"x": ROWS.astype(np.float64)}
    )
    assert relative_l2(np.concatenate([found["u"], found["v"]], 1), wanted["x"]) < 1e-9


def test_numbers_that_become_floats_twice_get_the_sum() -> None:
    parts = "q, z = Split <axis = 1, num_outputs = 2> (x)"
    made = f"a = Cast <to = 1> (x) {parts} d = Cast <to = 1> (z) f = Add(a, d)"
    twice = _model("int64[N,3] x", f"{made} {_DENSE}")
    floats = _model("float[N,3] x", f"{parts} f = Add(x, z) {_DENSE}")
    found = _relevance(twice, "epsilon", {"x": ROWS})
    wanted = _relevance(floats, "epsilon", {"x": ROWS.astype(np.float64)})
    assert relative_l2(found["x"], wanted["x"]) < 1e-9


def test_sums_and_products_of_wide_numbers_are_those_of_floats() -> None:
    """One way goes straight to floats, the other through arithmetic: both are accounted for."""
    made = "i = Cast <to = 6> (x) s = Sub(i, shift) p = Mul(s, i) n = Neg(p) a = Cast <to = 1> (n)"
    pixels = _model("uint8[N,3] x", f"{made} d = Cast <to = 1> (x) f = Add(a, d) {_DENSE}")
    floats = _model("float[N,3] x", f"s = Sub(x, step) p = Mul(s, x) a = Neg(p) f = Add(a, x) {_DENSE}")
    assert not onnxlrp.plan(pixels).notes
    for rules in ("gradient-x-input", "epsilon"):
        found = _relevance(pixels, rules, {"x": PIXELS[:, 0, 0]})
        wanted = _relevance(floats, rules, {"x": PIXELS[:, 0, 0].astype(np.float64)})
        assert relative_l2(found["x"], wanted["x"]) < 1e-9


@pytest.mark.parametrize(
    "nodes",
    [
        "i = Cast <to = 6> (x) s = Div(i, shift) a = Cast <to = 1> (s)",
        "s = Sub(x, narrow) a = Cast <to = 1> (s)",  # 3 - 5 is 254 there
    ],
)
def test_what_no_float_computes_is_said(nodes: str) -> None:
    mixed = _model("uint8[N,3] x", f"{nodes} d = Cast <to = 1> (x) f = Add(a, d) {_DENSE}")
    (note,) = onnxlrp.plan(mixed).notes
    assert note.startswith("input x: ") and "Cast" in note and "not explained" in note
    alone = _model("uint8[N,3] x", f"{nodes} f = Identity(a) {_DENSE}")
    with pytest.raises(ConversionError, match="does not depend on any float input"):
        onnxlrp.plan(alone)


def test_shapes_and_truths_of_an_input_are_not_missed() -> None:
    made = "n = Shape(x) z = Size(x) q = Cast <to = 1> (z) c = Greater(x, narrow) m = Cast <to = 1> (c)"
    model = _model("uint8[N,3] x", f"{made} d = Cast <to = 1> (x) e = Mul(d, q) f = Mul(e, m) {_DENSE}")
    assert not any(note.startswith("input") for note in onnxlrp.plan(model).notes)


def test_integer_features_of_a_linear_model() -> None:
    """Operators of ai.onnx.ml take whole numbers as they are. (onnx.reference scales them to whole numbers.)"""
    scaled = "f = ai.onnx.ml.Scaler <offset = [1.0, 2.0, -1.0], scale = [0.5, 0.25, 2.0]> (x)"
    seed = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    found, wanted = (
        run_onnxruntime(
            onnxlrp.convert(_model(f"{kind}[N,3] x", f"{scaled} {_DENSE}"), rules="epsilon", target="seed"),
            {"x": ROWS.astype(dtype), "lrp_seed": seed},
        )["x_relevance"]
        for kind, dtype in (("int64", np.int64), ("float", np.float32))
    )
    assert np.abs(wanted).max() > 0.1
    assert relative_l2(found, wanted) < 1e-6


_MASKED = (
    f"e = Gather(table, ids) m = Cast <to = 1> (mask) k = Mul(e, m) f = ReduceSum <keepdims = 0> (k, one) {_DENSE}"
)


def test_whole_numbers_beside_tokens_are_explained_only_where_they_are_named() -> None:
    """They are masks most often."""
    model = _model("int64[N,S] ids, int64[N,S,1] mask", _MASKED)
    plan = onnxlrp.plan(model)
    assert plan.explained_inputs == ("ids",)
    assert any("input mask" in note and "--input" in note for note in plan.notes)
    assert onnxlrp.plan(model, inputs=("mask", "ids")).explained_inputs == ("mask", "ids")
    ids, mask = np.array([[1, 2], [3, 3]]), np.array([[[1], [1]], [[1], [0]]])
    found = _relevance(model, "gradient-x-input", {"ids": ids, "mask": mask}, inputs=("mask",))
    floats = _model("int64[N,S] ids, float[N,S,1] m", _MASKED.replace("m = Cast <to = 1> (mask)", ""))
    wanted = _relevance(floats, "gradient-x-input", {"ids": ids, "m": mask.astype(np.float64)}, inputs=("m",))
    assert relative_l2(found["mask"], wanted["m"]) < 1e-9


def test_truth_values_are_not_explained() -> None:
    model = _model("bool[N,3] x, float[N,3] z", f"c = Cast <to = 1> (x) f = Mul(c, z) {_DENSE}")
    with pytest.raises(UsageError, match="'x' is neither made of floats, nor are floats made of it"):
        onnxlrp.plan(model, inputs=("x",))
