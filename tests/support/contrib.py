"""Models of one operator of onnxruntime's own domain, and what their relevance must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import onnxlrp
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient, distinct

Array = np.ndarray
MICROSOFT = "com.microsoft"


def one_operator(
    op: str,
    shape: tuple[int, ...],
    inputs: str,
    constants: Mapping[str, Array],
    *,
    outputs: str = "y",
    opset: int = 21,
    domain: str = MICROSOFT,
    **attributes: Any,
) -> ModelProto:
    """An operator that reads x of this shape and constants; "-" stands for an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    node = helper.make_node(op, names, outputs.split(), name=f"the {op}", domain=domain, **attributes)
    return model([node], shape, constants, opset=opset)


def model(
    nodes: Sequence[NodeProto], shape: tuple[int, ...], constants: Mapping[str, Array], *, opset: int = 21
) -> ModelProto:
    """Nodes from x to y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape[1:]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "one operator", [x], [y], initializers)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def data(*shape: int) -> Array:
    return distinct(*shape, seed=6).astype(np.float32)


def expect_derivative(made: ModelProto, x: Array, f: Callable[[Array], Array], tolerance: float = 1e-5) -> None:
    """onnxruntime computes f, and R = x * d sum(seed * f) / dx under gradient-x-input."""
    wide = x.astype(np.float64)
    assert relative_l2(run_onnxruntime(made, {"x": x})["y"], f(wide)) < 1e-4, "what onnxruntime computes"
    seed = np.random.default_rng(2).normal(size=f(wide).shape).astype(np.float32)
    gradient = central_gradient(lambda at: float((seed * f(at["x"])).sum()), {"x": wide}, "x")
    emitted = onnxlrp.convert(made, rules="gradient-x-input", target="seed")
    assert not any(n.domain for n in emitted.graph.node if n.name.startswith("lrp/")), "only operators of the standard"
    found = run_onnxruntime(emitted, {"x": x, "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, wide * gradient) < tolerance
