"""A relevance pass leaves the integer kernels of a quantised model alone: it reads a copy of their real outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxlrp
from tests.support.evaluate import run_onnxruntime
from tests.support.quantised import SHAPE, float_network, quantise


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return quantise(float_network(), "qdq-unsigned", tmp_path_factory.mktemp("qdq"))


def _kernels(model: onnx.ModelProto, folder: Path) -> dict[str, str]:
    """The operators that the model's own nodes become when onnxruntime optimises it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {n.name: n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node}


@pytest.mark.parametrize("rules", ["gradient-x-input", "epsilon", "default", "epsilon-alpha2-beta1"])
def test_layers_stay_kernels_on_integers(model: onnx.ModelProto, rules: str, tmp_path: Path) -> None:
    before, after = _kernels(model, tmp_path), _kernels(onnxlrp.convert(model, rules=rules), tmp_path)
    layers = ("QLinearConv", "QLinearAdd", "QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm")
    wanted = {name: op for name, op in before.items() if op in layers}
    assert set(wanted.values()) == set(layers)
    assert {name: after.get(name) for name in wanted} == wanted


def test_the_prediction_stays_the_same_to_the_last_bit(model: onnx.ModelProto) -> None:
    x = np.random.default_rng(7).normal(size=(16, *SHAPE[1:])).astype(np.float32)
    plain = run_onnxruntime(model, {"x": x})
    emitted = run_onnxruntime(onnxlrp.convert(model, rules="epsilon"), {"x": x})
    assert all(np.array_equal(emitted[name], value) for name, value in plain.items())


def test_a_copy_that_no_rule_reads_is_not_made(model: onnx.ModelProto) -> None:
    nodes = [n for n in onnxlrp.convert(model, rules="gradient-x-input", target=1).graph.node if "lrp/of/" in n.name]
    assert not any(n.op_type in ("Conv", "Gemm", "Add") for n in nodes)
