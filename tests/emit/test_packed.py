"""Weights stored as integers are unpacked by operators that the runtime computes once, when it loads the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxlrp
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.packed import unpacked
from onnxlrp.graph.surgeon import constant_proto
from onnxlrp.graph.view import Graph
from onnxlrp.read.shapes import infer
from onnxlrp.understand.reading import proto_of
from tests.support.evaluate import run_reference
from tests.support.quantised import FORMATS, float_network, quantise

INTEGERS = np.random.default_rng(1).integers(-100, 100, size=(3, 4, 2)).astype(np.int8)


def _model(scale: np.ndarray, zero: np.ndarray | None, **attributes: int) -> onnx.ModelProto:
    constants = {"w": INTEGERS, "s": scale, **({} if zero is None else {"z": zero})}
    node = helper.make_node("DequantizeLinear", list(constants), ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "packed",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_the_numbers_are_those_of_the_model(axis: int | None, zero: bool) -> None:
    rng = np.random.default_rng(2)
    size = () if axis is None else (INTEGERS.shape[axis],)
    zeros = np.asarray(rng.integers(-5, 5, size=size), np.int8) if zero else None
    model = _model(
        np.asarray(rng.uniform(0.1, 1, size=size), np.float32), zeros, **({} if axis is None else {"axis": axis})
    )
    b = Builder(Graph(model, infer(model)))
    name = unpacked(b, "y")
    assert name != "y" and "DequantizeLinear" not in {n.op for n in b.nodes}
    model.graph.node.extend(proto_of(n) for n in b.nodes)
    model.graph.initializer.extend(constant_proto(n, v) for n, v in b.constants.items())
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4, 2]))
    found = run_reference(model, {})
    np.testing.assert_allclose(found[name], found["y"], rtol=1e-6)


def test_blocks_are_left_to_the_model() -> None:
    model = _model(np.ones((3, 2, 2), np.float32), None, axis=1, block_size=2)
    assert unpacked(Builder(Graph(model, infer(model))), "y") == "y"


@pytest.mark.parametrize("form", [form for form, options in FORMATS.items() if options])
def test_no_rule_reads_a_weight_that_is_unpacked_on_each_run(form: str, tmp_path: Path) -> None:
    emitted = onnxlrp.convert(quantise(float_network(), form, tmp_path), rules="epsilon-alpha2-beta1")
    stored = {t.name for t in emitted.graph.initializer}
    weights = {
        o for n in emitted.graph.node if n.op_type == "DequantizeLinear" for o in n.output if n.input[0] in stored
    }
    read = {i for n in emitted.graph.node if n.name.startswith("lrp/") for i in n.input}
    assert not weights & read
