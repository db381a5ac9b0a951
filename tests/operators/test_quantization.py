"""Quantised networks: relevance passes straight through, as if the real numbers had never been rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlrp
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient
from tests.support.models import Net
from tests.support.quantised import FORMATS, SHAPE, float_network, quantise, straight

Array = np.ndarray
DATA = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)
SEED = np.random.default_rng(8).normal(size=(1, 5)).astype(np.float32)


@pytest.fixture(scope="module", params=FORMATS)
def quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return quantise(float_network(), request.param, tmp_path_factory.mktemp(request.param))


def _relevance(model: onnx.ModelProto, rules: str) -> Array:
    emitted = onnxlrp.convert(model, rules=rules, target="seed")
    # Optimised, onnxruntime runs QDQ as integer kernels, whose results may differ by one step from the floats'.
    return run_onnxruntime(emitted, {"x": DATA, "lrp_seed": SEED}, optimised=False)["x_relevance"]


def test_the_derivative_is_that_of_the_network_with_its_rounding_held_constant(quantised: onnx.ModelProto) -> None:
    replica = straight(quantised, DATA)
    gradient = central_gradient(lambda at: float((SEED * replica(at["x"])).sum()), {"x": DATA.astype(float)}, "x")
    assert relative_l2(_relevance(quantised, "gradient-x-input"), DATA * gradient) < 1e-5


def _dense_pair() -> onnx.ModelProto:
    """Two dense layers with a Relu between them; the data and the hidden values are rounded to integers."""
    rng = np.random.default_rng(6)
    net = Net(np.float32)

    def rounded(t: str, scale: float, zero: int) -> str:
        code = net.constant(np.array(scale)), net.raw(np.array(zero, np.uint8))
        return net.op("DequantizeLinear", net.op("QuantizeLinear", t, *code), *code)

    a = rounded(net.input("x", ["n", 6]), 0.03, 128)
    hidden = net.op("Gemm", a, net.constant(rng.normal(size=(6, 5)), "w1"), net.constant(rng.normal(size=5), "b1"))
    h = rounded(net.op("Relu", hidden), 0.05, 0)
    return net.model(net.op("Gemm", h, net.constant(rng.normal(size=(5, 3)), "w2"), net.constant(np.ones(3), "b2")))


def test_the_epsilon_rule_works_on_the_rounded_values() -> None:
    """R = a * (w (R' / (z + epsilon sgn z))) layer by layer, unchanged through rounding and Relu."""
    model = _dense_pair()
    w = {t.name: onnx.numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    x, seed = (
        np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32),
        np.random.default_rng(2).normal(size=(4, 3)),
    )
    a = 0.03 * np.clip(np.round(x / np.float32(0.03)), -128, 127)
    z1 = a @ w["w1"] + w["b1"]
    h = 0.05 * np.clip(np.round(np.maximum(z1, 0) / 0.05), 0, 255)
    z2 = h @ w["w2"] + w["b2"]

    def epsilon(values: Array, weight: Array, z: Array, r: Array) -> Array:
        return values * ((r / (z + 1e-6 * np.where(z >= 0, 1, -1))) @ weight.T)

    expected = epsilon(a, w["w1"], z1, epsilon(h, w["w2"], z2, seed * z2))
    emitted = onnxlrp.convert(model, rules="epsilon", target="seed")
    found = run_onnxruntime(emitted, {"x": x, "lrp_seed": seed.astype(np.float32)})["x_relevance"]
    assert relative_l2(found, expected) < 1e-4


@pytest.mark.parametrize("rules", ["gradient-x-input", "default", "epsilon-plus"])
def test_relevance_is_close_to_that_of_the_float_network(quantised: onnx.ModelProto, rules: str) -> None:
    assert cosine(_relevance(quantised, rules), _relevance(float_network(), rules)) > 0.99


@pytest.mark.parametrize("rules", ["gradient-x-input", "epsilon", "default"])
def test_the_ledger_closes(quantised: onnx.ModelProto, rules: str) -> None:
    report = onnxlrp.verify(quantised, {"x": DATA}, rules=rules)
    checks = {check.name: check for check in report.checks}
    assert checks["ledger"].passed, report
    assert all(check.passed for name, check in checks.items() if name.startswith("forward"))


# -- weights behind DequantizeLinear -----------------------------------------------------------------------------


def _weights_only(channels: int, *, quantised: bool) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu; the kernel is stored as integers, or as the floats that these stand for."""
    rng = np.random.default_rng(5)
    integers = rng.integers(-127, 128, size=(channels, channels, 3, 3)).astype(np.int8)
    scales = rng.uniform(1e-4, 1e-3, size=channels).astype(np.float32)
    net = Net(np.float32)
    x = net.input("x", ["n", channels, 5, 5])
    if quantised:
        kernel = net.op("DequantizeLinear", net.raw(integers), net.constant(scales), axis=0)
    else:
        kernel = net.constant(integers * scales[:, None, None, None])
    statistics = [net.constant(rng.uniform(0.5, 1.5, size=channels)) for _ in range(4)]
    y = net.op("BatchNormalization", net.op("Conv", x, kernel, pads=[1, 1, 1, 1]), *statistics)
    return net.model(net.op("Relu", y))


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus", "epsilon-alpha2-beta1", "deep-taylor"])
def test_a_weight_that_is_stored_as_integers_is_a_weight(rules: str) -> None:
    x = np.random.default_rng(6).normal(size=(2, 4, 5, 5)).astype(np.float32)
    seed = np.random.default_rng(7).normal(size=(2, 4, 5, 5)).astype(np.float32)
    found = []
    for quantised in (True, False):
        model = _weights_only(4, quantised=quantised)
        assert any("BatchNormalization" in s.operator and "Conv" in s.operator for s in onnxlrp.plan(model).steps)
        emitted = onnxlrp.convert(model, rules=rules, target="seed")
        found.append(run_onnxruntime(emitted, {"x": x, "lrp_seed": seed})["x_relevance"])
    assert relative_l2(*found) < 1e-5


def test_a_weight_that_is_stored_as_integers_is_not_copied() -> None:
    model = _weights_only(128, quantised=True)
    emitted = onnxlrp.convert(model, rules="epsilon-alpha2-beta1")
    assert emitted.ByteSize() - model.ByteSize() < 16_384 < model.ByteSize() / 8


# -- where relevance starts --------------------------------------------------------------------------------------


def test_a_head_is_stepped_over_behind_its_rounding(quantised: onnx.ModelProto) -> None:
    """Softmax, QuantizeLinear, DequantizeLinear at the end of a network."""
    headed = onnx.ModelProto()
    headed.CopyFrom(quantised)
    scale, zero = (onnx.numpy_helper.from_array(v, n) for n, v in (("s", np.float32(1 / 255)), ("z", np.uint8(0))))
    headed.graph.initializer.extend([scale, zero])
    y = headed.graph.output[0].name
    headed.graph.node.extend(
        [
            onnx.helper.make_node("Softmax", [y], ["probabilities"], name="the head", axis=-1),
            onnx.helper.make_node("QuantizeLinear", ["probabilities", "s", "z"], ["rounded"]),
            onnx.helper.make_node("DequantizeLinear", ["rounded", "s", "z"], ["shown"]),
        ]
    )
    headed.graph.output[0].name = "shown"
    plan = onnxlrp.plan(headed, rules="epsilon")
    assert any("the head" in note and "logits" in note for note in plan.notes)
    assert relative_l2(_relevance(headed, "epsilon"), _relevance(quantised, "epsilon")) < 1e-6


def test_a_network_that_returns_integers_is_explained_from_the_numbers_they_stand_for(tmp_path: Path) -> None:
    model = quantise(float_network(), "qoperator", tmp_path)
    integers = onnx.ModelProto()
    integers.CopyFrom(model)
    last = integers.graph.node.pop()
    assert last.op_type == "DequantizeLinear"
    integers.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.INT8, None))
    plan = onnxlrp.plan(integers, rules="epsilon")
    assert any("real numbers that it rounds" in note for note in plan.notes)
    assert relative_l2(_relevance(integers, "gradient-x-input"), _relevance(model, "gradient-x-input")) < 1e-6
