"""Relevance on demand: nothing but zeros when nobody asks, the usual map when somebody does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.graph.view import captured_names
from tests.emit.linear_nets import NETS, LinearNet
from tests.graph.written import Array, classifier, network, normal
from tests.support.evaluate import run_onnxruntime

#: Ways to choose the target, with the input that each adds.
TARGETS: dict[str, dict[str, Any]] = {
    "argmax": {},
    "index": {"target": 1},
    "input": {"target": "input"},
    "seed": {"target": "seed"},
    "top": {"target": "top:2"},
    "axis": {"axis": 1},
}


def _asked(*flags: bool) -> Array:
    return np.array(flags)[:, None]


def _added(target: str) -> dict[str, Array]:
    if target == "input":
        return {"lrp_target": np.array([[0], [5], [3]])}
    return {"lrp_seed": normal(3, 6, seed=4)} if target == "seed" else {}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rules", ["default", "gradient-x-input"])
def test_off_gives_zeros_of_the_usual_shape_and_on_gives_the_usual_map(target: str, rules: str) -> None:
    model, feeds = classifier(), {"image": normal(3, 2, 8, 8, seed=20), **_added(target)}
    usual = run_onnxruntime(onnxlrp.convert(model, rules=rules, **TARGETS[target]), feeds)
    switched = onnxlrp.convert(model, rules=rules, on_demand=True, **TARGETS[target])
    onnx.checker.check_model(switched, full_check=True)
    off = run_onnxruntime(switched, {**feeds, "lrp_explain": _asked(False, False, False)})
    on = run_onnxruntime(switched, {**feeds, "lrp_explain": _asked(True, True, True)})
    assert off["image_relevance"].shape == usual["image_relevance"].shape
    assert off["image_relevance"].dtype == np.float32 and not off["image_relevance"].any()
    assert usual["image_relevance"].any()
    np.testing.assert_allclose(on["image_relevance"], usual["image_relevance"], rtol=1e-4, atol=1e-6)
    for result in (off, on):
        np.testing.assert_allclose(result["probabilities"], usual["probabilities"], rtol=1e-6, atol=1e-7)


def test_outputs_are_bit_identical_whether_asked_or_not() -> None:
    model, x = classifier(), normal(2, 2, 8, 8, seed=20)
    plain = run_onnxruntime(model, {"image": x}, optimised=False)
    switched = onnxlrp.convert(model, on_demand=True)
    for flag in (True, False):
        found = run_onnxruntime(switched, {"image": x, "lrp_explain": _asked(flag, flag)}, optimised=False)
        np.testing.assert_array_equal(found["probabilities"], plain["probabilities"])


@pytest.mark.parametrize("flags", [(True, False, False), (False, False, True)])
def test_one_sample_that_asks_is_enough_for_all(flags: tuple[bool, ...]) -> None:
    model, x = classifier(), normal(3, 2, 8, 8, seed=20)
    usual = run_onnxruntime(onnxlrp.convert(model), {"image": x})
    found = run_onnxruntime(onnxlrp.convert(model, on_demand=True), {"image": x, "lrp_explain": _asked(*flags)})
    np.testing.assert_allclose(found["image_relevance"], usual["image_relevance"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", NETS)
@pytest.mark.parametrize("target", ["argmax", "top:2"])
def test_zeros_have_the_shape_of_the_map_where_sizes_are_open(rank: str, target: str) -> None:
    net: LinearNet = NETS[rank]()
    converted = onnxlrp.convert(net.model, target=target, on_demand=True)
    shapes = [
        run_onnxruntime(converted, {"x": net.x, "lrp_explain": _asked(flag)})["x_relevance"].shape
        for flag in (False, True)
    ]
    assert shapes[0] == shapes[1]


def test_the_flag_is_a_boolean_with_the_batch_first() -> None:
    converted = onnxlrp.convert(classifier(), on_demand=True)
    (flag,) = [v for v in converted.graph.input if v.name == "lrp_explain"]
    tensor = flag.type.tensor_type
    assert tensor.elem_type == onnx.TensorProto.BOOL
    assert len(tensor.shape.dim) == 2 and tensor.shape.dim[1].dim_value == 1


def _branch(model: onnx.ModelProto) -> onnx.GraphProto:
    (switch,) = [n for n in model.graph.node if n.name == "lrp/explain"]
    return next(a.g for a in switch.attribute if a.name == "then_branch")


def test_nothing_that_depends_on_data_is_computed_for_relevance_outside_the_switch() -> None:
    """Otherwise an explanation that was not asked for would cost something."""
    model = onnxlrp.convert(classifier(), on_demand=True)
    own = {n.name for n in classifier().graph.node}
    outside = [n for n in model.graph.node if n.name.startswith("lrp/") and n.name not in own]
    data = {v.name for v in model.graph.input} - {"lrp_explain"}
    data |= {o for n in classifier().graph.node for o in n.output}
    touching = [n.name for n in outside if n.op_type != "If" and data.intersection(n.input)]
    assert touching == []


def test_the_branch_reads_inputs_and_weights_only_from_the_model_around_it() -> None:
    """Tensors read by a branch keep the runtime from using its fastest layouts for them."""
    model = onnxlrp.convert(classifier(), on_demand=True)
    forward = {o for n in classifier().graph.node for o in n.output}
    assert captured_names(_branch(model)) & forward == set()
    assert "image" in captured_names(_branch(model))


#: Forward passes with subgraphs beside the way of relevance; `h` and `x` are captured, `m` is a name of its own inside.
IF = """g (float[N,4] x, float[N,4] other, bool c) => (float[N,4] y)
{
  h = Relu(other)
  a = MatMul(x, w)
  i = If(c) <
    then_branch = t () => (float[N,4] p) { m = Neg(h) p = Mul(m, v) },
    else_branch = e () => (float[N,4] q) { m = Abs(h) r = If(c) <
        then_branch = tt () => (float[N,4] pp) { pp = Add(m, h) },
        else_branch = ee () => (float[N,4] qq) { qq = Sub(m, h) }> q = Mul(r, v) }>
  s = Add(a, i)
  y = Tanh(s)
}"""
LOOP = """g (float[N,4] x, float[N,4] other, bool c) => (float[N,4] y)
{
  h = Relu(other)
  a = MatMul(x, w)
  three = Constant<value = int64 {3}>()
  i = Loop(three, c, h) <body = b (int64 iter, bool going, float[N,4] carried) => (bool on, float[N,4] next)
    { on = Identity(going) m = Mul(carried, v) next = Add(m, h) }>
  s = Add(a, i)
  y = Tanh(s)
}"""


@pytest.mark.parametrize("text", [IF, LOOP], ids=["If", "Loop"])
@pytest.mark.parametrize("target", ["argmax", "top:3"])
@pytest.mark.parametrize("flag", [True, False])
def test_subgraphs_of_the_forward_pass_are_computed_again_too(text: str, target: str, flag: bool) -> None:
    model = network(text, w=normal(4, 4, seed=1), v=normal(4, seed=2))
    feeds = {"x": normal(2, 4, seed=3), "other": normal(2, 4, seed=4), "c": np.array(flag)}
    options: dict[str, Any] = {"inputs": ("x",), "target": target, "rules": "epsilon"}
    usual = run_onnxruntime(onnxlrp.convert(model, **options), feeds)
    switched = onnxlrp.convert(model, on_demand=True, **options)
    onnx.checker.check_model(switched, full_check=True)
    assert {"h", "i", "a", "s", "y"} & captured_names(_branch(switched)) == set()
    found = run_onnxruntime(switched, {**feeds, "lrp_explain": _asked(False, True)})
    np.testing.assert_allclose(found["y"], usual["y"], rtol=1e-6)
    np.testing.assert_allclose(found["x_relevance"], usual["x_relevance"], rtol=1e-4, atol=1e-6)
    assert usual["x_relevance"].any()
    off = run_onnxruntime(switched, {**feeds, "lrp_explain": _asked(False, False)})
    assert not off["x_relevance"].any()


def test_random_numbers_are_drawn_once() -> None:
    """Computed a second time they would be others, and the map that of another output."""
    model = network(
        """g (float[2,4] x) => (float[2,4] y, float[2,4] side)
        { side = Neg(x) noise = RandomNormalLike(x) a = Mul(x, w) y = Add(a, noise) }""",
        w=normal(4) * 1e-3,
    )
    converted = onnxlrp.convert(model, on_demand=True, outputs=("y",))
    for _ in range(5):
        found = run_onnxruntime(converted, {"x": np.ones((2, 4), np.float32), "lrp_explain": _asked(True)})
        explained = np.nonzero(found["x_relevance"])[1].tolist()
        assert explained == found["y"].argmax(axis=1).tolist()


@pytest.mark.parametrize("batch", ["3", "N"], ids=["static", "open"])
def test_an_input_that_receives_nothing_gets_zeros_either_way(batch: str) -> None:
    """The gate takes no relevance: its map is zeros, which depend on no data where the shape is static."""
    model = network(
        f"g (float[{batch},4] x, float[{batch},4] gate) => (float[{batch},4] y) {{ s = Sigmoid(gate) y = Mul(x, s) }}"
    )
    converted = onnxlrp.convert(model, on_demand=True)
    onnx.checker.check_model(converted, full_check=True)
    feeds = {"x": normal(3, 4), "gate": normal(3, 4, seed=1)}
    for flag in (True, False):
        found = run_onnxruntime(converted, {**feeds, "lrp_explain": _asked(flag)})
        assert found["gate_relevance"].shape == (3, 4) and not found["gate_relevance"].any()
        assert found["x_relevance"].any() == flag


def test_several_explained_outputs_share_one_switch() -> None:
    text = "g (float[N,4] x) => (float[N,4] y, float[N,4] z) { a = MatMul(x, w) y = Relu(a) z = Neg(a) }"
    model = network(text, w=normal(4, 4, seed=1))
    options: dict[str, Any] = {"outputs": ("y", "z"), "target": 2}
    feeds = {"x": normal(2, 4)}
    usual = run_onnxruntime(onnxlrp.convert(model, **options), feeds)
    switched = onnxlrp.convert(model, on_demand=True, **options)
    assert [n.op_type for n in switched.graph.node].count("If") == 1
    found = run_onnxruntime(switched, {**feeds, "lrp_explain": _asked(True)})
    for name in ("x_relevance_y", "x_relevance_z"):
        np.testing.assert_allclose(found[name], usual[name], rtol=1e-5, atol=1e-7)
