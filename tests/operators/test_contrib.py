"""Operators of onnxruntime's optimiser: the derivative of each, against its formula in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.contrib import data, expect_derivative, one_operator
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient
from tests.support.models import Net

Array = np.ndarray
_RNG = np.random.default_rng(4)
W = _RNG.normal(size=(4, 5)).astype(np.float32)
BIAS = _RNG.normal(size=4).astype(np.float32)
GAMMA = (1 + 0.3 * _RNG.normal(size=4)).astype(np.float32)
SKIP = _RNG.normal(size=(2, 3, 4)).astype(np.float32)
_ERF = np.vectorize(math.erf)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + _ERF(x / math.sqrt(2)))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _layer_norm(x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-3) * GAMMA


def _rms_norm(x: Array) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-3) * GAMMA


ELEMENTWISE: Mapping[str, tuple[str, Mapping[str, Array], Callable[[Array], Array]]] = {
    "Gelu": ("x", {}, _gelu),
    "BiasGelu": ("x bias", {"bias": BIAS}, lambda x: _gelu(x + BIAS)),
    "FastGelu": ("x bias", {"bias": BIAS}, lambda x: _gelu_tanh(x + BIAS)),
    "QuickGelu": ("x", {}, lambda x: x * _sigmoid(1.702 * x)),
}


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_activations(op: str, opset: int) -> None:
    inputs, constants, f = ELEMENTWISE[op]
    expect_derivative(one_operator(op, (2, 3, 4), inputs, constants, opset=opset), data(2, 3, 4), f)


@pytest.mark.parametrize("opset", [18, 21])
def test_normalisation_behind_a_residual_addition(opset: int) -> None:
    constants = {"skip": SKIP, "gamma": GAMMA, "beta": BIAS, "bias": BIAS[::-1].copy()}
    shape, at = (2, 3, 4), {"opset": opset, "epsilon": 1e-3}
    skip = one_operator("SkipLayerNormalization", shape, "x skip gamma beta bias", constants, **at)
    expect_derivative(skip, data(*shape), lambda x: _layer_norm(x + SKIP + BIAS[::-1]) + BIAS)
    simple = one_operator("SkipSimplifiedLayerNormalization", shape, "x skip gamma bias", constants, **at)
    expect_derivative(simple, data(*shape), lambda x: _rms_norm(x + SKIP + BIAS[::-1]))
    alone = one_operator("SimplifiedLayerNormalization", shape, "x gamma", constants, domain="", axis=-1, **at)
    expect_derivative(alone, data(*shape), _rms_norm)


def test_the_sum_that_a_normalisation_hands_on_carries_relevance_too() -> None:
    node = onnx.helper.make_node(
        "SkipLayerNormalization",
        ["x", "skip", "gamma"],
        ["unit", "", "", "sum"],
        name="the node",
        domain="com.microsoft",
        epsilon=1e-3,
    )
    made = one_operator("Gelu", (2, 3, 4), "x", {"skip": SKIP, "gamma": GAMMA})
    del made.graph.node[:]
    made.graph.node.extend([node, onnx.helper.make_node("Add", ["unit", "sum"], ["y"])])
    expect_derivative(made, data(2, 3, 4), lambda x: _layer_norm(x + SKIP) + x + SKIP)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_fused_matmul(shape: tuple[int, ...], transposed: bool) -> None:
    weight = W.T.copy() if transposed else W
    made = one_operator("FusedMatMul", shape, "x w", {"w": weight}, transB=int(transposed), alpha=0.5)
    expect_derivative(made, data(*shape), lambda x: 0.5 * x @ W)


def test_fused_matmul_of_two_data_tensors() -> None:
    made = one_operator("FusedMatMul", (2, 3, 4), "x x", {}, transB=1, alpha=0.5)
    expect_derivative(made, data(2, 3, 4), lambda x: 0.5 * x @ x.swapaxes(1, 2))


def test_fused_gemm() -> None:
    constants = {"w": W.T.copy(), "b": np.arange(5, dtype=np.float32) / 5}
    made = one_operator(
        "FusedGemm", (3, 4), "x w b", constants, transB=1, alpha=0.5, activation="LeakyRelu", activation_alpha=0.2
    )

    def f(x: Array) -> Array:
        z = 0.5 * x @ W + constants["b"]
        return np.where(z > 0, z, 0.2 * z)

    expect_derivative(made, data(3, 4), f)


def test_fused_convolution_adds_and_activates() -> None:
    kernel, added = _RNG.normal(size=(3, 2, 1, 1)).astype(np.float32), _RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)
    constants = {"w": kernel, "b": BIAS[:3], "z": added}
    made = one_operator("FusedConv", (1, 2, 4, 4), "x w b z", constants, kernel_shape=[1, 1], activation="Relu")

    def f(x: Array) -> Array:
        return np.maximum(np.einsum("nihw,oi->nohw", x, kernel[:, :, 0, 0]) + BIAS[:3, None, None] + added, 0)

    expect_derivative(made, data(1, 2, 4, 4), f)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("one_position", [True, False])
def test_rotary_embedding(interleaved: int, one_position: bool) -> None:
    angles = np.outer(np.arange(6), [1.0, 0.3])
    tables = {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
    start = np.array([2]) if one_position else np.array([[2, 3, 4], [0, 5, 1]])
    places = np.array([[2, 3, 4]] * 2) if one_position else start
    made = one_operator(
        "RotaryEmbedding", (2, 3, 8), "x p cos sin", {"p": start, **tables}, num_heads=2, interleaved=interleaved
    )

    def f(x: Array) -> Array:
        heads = x.reshape(2, 3, 2, 4)
        pairs = heads.reshape(2, 3, 2, 2, 2) if interleaved else heads.reshape(2, 3, 2, 2, 2).swapaxes(3, 4)
        cos, sin = (np.asarray(tables[t], float)[places][:, :, None] for t in ("cos", "sin"))
        a, b = pairs[..., 0], pairs[..., 1]
        turned = np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
        return (turned if interleaved else turned.swapaxes(3, 4)).reshape(2, 3, 8)

    expect_derivative(made, data(2, 3, 8), f)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_weight_packed_in_blocks(bits: int, zeros: bool) -> None:
    rows, columns, block = 5, 40, 16
    steps = _RNG.integers(0, 2**bits, size=(rows, 3, block))
    scales = _RNG.uniform(0.01, 0.1, size=(rows, 3)).astype(np.float32)
    zero = _RNG.integers(0, 2**bits, size=(rows, 3)) if zeros else np.full((rows, 3), 2 ** (bits - 1))
    constants = {"b": _packed(steps, bits), "s": scales.ravel()}
    if zeros:
        constants["z"] = _packed(np.pad(zero, ((0, 0), (0, 1 if bits == 4 else 0))), bits).ravel()
    weight = ((steps - zero[..., None]) * scales[..., None].astype(float)).reshape(rows, -1)[:, :columns]
    made = one_operator(
        "MatMulNBits",
        (2, columns),
        "x b s z" if zeros else "x b s",
        constants,
        N=rows,
        K=columns,
        bits=bits,
        block_size=block,
    )
    expect_derivative(made, data(2, columns), lambda x: x @ weight.T)


def _packed(values: Array, bits: int) -> Array:
    if bits == 8:
        return values.astype(np.uint8)
    return (values[..., ::2] + 16 * values[..., 1::2]).astype(np.uint8)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_token_ids_that_pick_rows_of_a_table_in_blocks(bits: int, zeros: bool) -> None:
    """They are explained like those of the table of floats, which is not written."""
    rows, block = 7, 16
    steps = _RNG.integers(0, 2**bits, size=(rows, 2, block))
    scales = _RNG.uniform(0.01, 0.1, size=(rows, 2)).astype(np.float32)
    zero = _RNG.integers(0, 2**bits, size=(rows, 2)) if zeros else np.full((rows, 2), 2 ** (bits - 1))
    table = ((steps - zero[..., None]) * scales[..., None].astype(float)).reshape(rows, -1).astype(np.float32)
    weight = _RNG.normal(size=(32, 2)).astype(np.float32)
    constants = {"b": _packed(steps, bits).reshape(rows, -1), "s": scales, "z": _packed(zero, bits), "w": weight}
    packed = one_operator(
        "GatherBlockQuantized",
        (2, 3),
        "b x s z" if zeros else "b x s",
        constants,
        outputs="e",
        bits=bits,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    plain = one_operator("Gather", (2, 3), "t x", {"t": table, "w": weight}, outputs="e", domain="")
    ids = np.array([[1, 6, 2], [0, 0, 5]])
    found = []
    for made in (packed, plain):
        made.graph.node.append(onnx.helper.make_node("MatMul", ["e", "w"], ["h"]))
        made.graph.node.append(onnx.helper.make_node("Tanh", ["h"], ["y"]))
        made.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n", 3]))
        emitted = onnxlrp.convert(made, rules="epsilon", target="seed")
        seed = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
        found.append(run_onnxruntime(emitted, {"x": ids, "lrp_seed": seed}))
    assert relative_l2(found[0]["y"], found[1]["y"]) < 1e-6, "what onnxruntime computes"
    assert relative_l2(found[0]["x_relevance"], found[1]["x_relevance"]) < 1e-5
    used = {name for node in onnxlrp.convert(packed, rules="epsilon").graph.node for name in node.input}
    assert "b" in used and not any("GatherBlockQuantized/Sub" in name for name in used)


def test_embedding_with_its_normalisation() -> None:
    """Token ids get the relevance of their row in the table of words."""
    words, places, kinds = (_RNG.normal(size=(n, 4)).astype(np.float32) for n in (7, 5, 2))
    shift = np.zeros(4, np.float32)
    constants = {"words": words, "places": places, "kinds": kinds, "gamma": GAMMA, "beta": shift}
    made = one_operator(
        "EmbedLayerNormalization",
        (2, 3),
        "x s words places kinds gamma beta",
        constants,
        outputs="y mask",
        epsilon=1e-3,
    )
    for name in ("x", "s"):
        kind = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, [2, 3])
        made.graph.input.append(kind)
    del made.graph.input[0]
    ids, segments = np.array([[1, 6, 2], [0, 0, 5]], np.int32), np.array([[0, 0, 1], [1, 0, 1]], np.int32)
    rest, seed = places[:3] + kinds[segments], _RNG.normal(size=(2, 3, 4)).astype(np.float32)
    looked_up = words[ids].astype(float)
    gradient = central_gradient(lambda at: float((seed * _layer_norm(at["e"] + rest)).sum()), {"e": looked_up}, "e")
    emitted = onnxlrp.convert(made, rules="gradient-x-input", target="seed", inputs=("x",))
    found = run_onnxruntime(emitted, {"x": ids, "s": segments, "lrp_seed": seed})
    assert relative_l2(found["y"], _layer_norm(looked_up + rest)) < 1e-5, "what onnxruntime computes"
    assert relative_l2(found["x_relevance"], (looked_up * gradient).sum(axis=-1)) < 1e-5


def test_what_is_not_taken_apart_says_why() -> None:
    made = one_operator("FusedMatMul", (2, 3, 4), "x w", {"w": W[None]}, transBatchB=1)
    with pytest.raises(ConversionError, match=r"the FusedMatMul .*transBatch.*turn off onnxruntime's optimisation"):
        onnxlrp.convert(made, rules="epsilon")


def test_layouts_of_one_processor_are_refused_with_the_way_out() -> None:
    made = one_operator(
        "Conv", (1, 8, 4, 4), "x w", {"w": np.ones((8, 8, 1, 1), np.float32)}, domain="com.microsoft.nchwc"
    )
    made.opset_import.add(domain="com.microsoft.nchwc", version=1)
    with pytest.raises(ConversionError, match=r"the Conv .*one kind of processor.*ORT_ENABLE_EXTENDED"):
        onnxlrp.plan(made)


def test_a_network_that_onnxruntime_optimised_has_the_relevance_of_the_one_before(tmp_path: Path) -> None:
    net = Net(np.float32)
    x = net.input("x", [2, 3, 4])
    hidden = net.op("Gelu", net.op("Add", net.op("MatMul", x, net.constant(W)), net.constant(np.arange(5) / 5)))
    back = net.op("Add", x, net.op("MatMul", hidden, net.constant(W.T.copy())))
    unit = net.op("LayerNormalization", back, net.constant(GAMMA), net.constant(BIAS))
    plain = net.model(net.op("MatMul", unit, net.op("Transpose", unit, perm=[0, 2, 1])))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(options.optimized_model_filepath)
    assert {n.op_type for n in optimised.graph.node if n.domain == "com.microsoft"} >= {
        "FusedMatMul",
        "SkipLayerNormalization",
    }
    for rules in ("gradient-x-input", "epsilon"):
        found = [
            run_onnxruntime(onnxlrp.convert(m, rules=rules, target="input"), {"x": data(2, 3, 4), "lrp_target": _AT})
            for m in (plain, optimised)
        ]
        assert relative_l2(found[1]["x_relevance"], found[0]["x_relevance"]) < 1e-4


_AT = np.array([[0, 1], [2, 2]])
