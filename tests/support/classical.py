"""Models of one operator of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

import onnxlrp
from tests.support.evaluate import run_onnxruntime

Array = np.ndarray
ML = "ai.onnx.ml"


def ml_node(op: str, inputs: str, outputs: str, domain: str = ML, **attributes: Any) -> NodeProto:
    """A node; names of inputs and outputs separated by blanks."""
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"the {op}", domain=domain, **attributes)


def scores(name: str = "y", kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None, None])


def labels(name: str = "label") -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, [None])


def ml_model(
    *nodes: NodeProto,
    width: int,
    outputs: tuple[ValueInfoProto, ...] = (),
    dtype: int = TensorProto.FLOAT,
    version: int = 3,
) -> ModelProto:
    """A table of `width` columns called x behind these nodes."""
    x = helper.make_tensor_value_info("x", dtype, ["n", width])
    graph = helper.make_graph(list(nodes), "table", [x], list(outputs or (scores(),)))
    domains = [helper.make_opsetid("", 21), helper.make_opsetid(ML, version)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def relevance(model: ModelProto, x: Array, seed: Array, rules: str = "gradient-x-input") -> Array:
    """Relevance of x for sum(seed * what is explained), computed by onnxruntime."""
    emitted = onnxlrp.convert(model, rules=rules, target="seed")
    return run_onnxruntime(emitted, {"x": x, "lrp_seed": seed.astype(np.float32)})["x_relevance"]
