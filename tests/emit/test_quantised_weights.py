"""Quantised weights are explained through what they stand for, and no file holds them as floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxlrp

_INPUTS, _OUTPUTS, _BLOCK = 256, 128, 32


def _packed() -> onnx.ModelProto:
    """com.microsoft.MatMulNBits of 4 bits."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (_OUTPUTS, _INPUTS // _BLOCK, _BLOCK // 2), dtype=np.uint8)
    scales = rng.uniform(0.01, 0.02, _OUTPUTS * _INPUTS // _BLOCK).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=_INPUTS,
        N=_OUTPUTS,
        bits=4,
        block_size=_BLOCK,
    )
    return _model([node], {"codes": codes, "scales": scales})


def _dequantised() -> onnx.ModelProto:
    """A MatMul with int8 weights behind a DequantizeLinear."""
    codes = np.random.default_rng(0).integers(-128, 128, (_INPUTS, _OUTPUTS), dtype=np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return _model(nodes, {"codes": codes, "scale": np.array(0.01, np.float32)})


def _model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, size])
        for name, size in (("x", _INPUTS), ("y", _OUTPUTS))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(a, n) for n, a in constants.items()])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("rules", ["attnlrp", "epsilon-plus", "attnlrp-gamma"])
@pytest.mark.parametrize("make", [_packed, _dequantised])
def test_no_float_copy_of_the_weights_is_written(make, rules: str) -> None:  # type: ignore[no-untyped-def]
    model = make()
    before = model.ByteSize()
    converted = onnxlrp.convert(model, rules=rules, target="seed")
    assert converted.ByteSize() - before < 8192, "a copy in float32 would add 131 kB"
    floats = [t for t in converted.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert max(np.prod(t.dims, dtype=int) for t in floats) <= _OUTPUTS * _INPUTS // _BLOCK
