"""Small models written as text, and running them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, parser

from onnxlrp.errors import ModelReadError
from onnxlrp.read.load import load
from onnxlrp.read.prepare import Prepared, prepare


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(text)


def graph(body: str, opset: int = 18, ir: int = 8, head: str = "(float[2,3,8,8] x) => (float[] y)") -> onnx.ModelProto:
    return parsed(f'<ir_version: {ir}, opset_import: ["" : {opset}]> g {head} {body}')


def prepared(model: onnx.ModelProto) -> Prepared:
    return prepare(load(model))


def run(model: onnx.ModelProto, seed: int = 0) -> list[np.ndarray]:
    """Outputs of `model` in onnxruntime without optimisation, on normally distributed inputs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {
        value.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in value.shape], dtype=np.float32)
        for value in session.get_inputs()
    }
    return list(session.run(None, feeds))


def assert_same_results(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Equal but for rounding: onnxruntime has, for one, another average pooling from opset 19 on."""
    assert [v.name for v in before.graph.output] == [v.name for v in after.graph.output]
    for left, right in zip(run(before), run(after), strict=True):
        assert left.shape == right.shape
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def refusal(model: onnx.ModelProto) -> str:
    """The message with which `model` is refused as unreadable: one line."""
    with pytest.raises(ModelReadError) as caught:
        prepared(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain == "")


def branching(*nodes: str, otherwise: tuple[str, ...] = ("i = Identity(x)",)) -> onnx.ModelProto:
    """y is the last output of `nodes` where the sum of x is positive, else the last output of `otherwise`."""
    model = graph("{ s = ReduceSum<keepdims = 0>(x)  z = Constant<value_float = 0.0>()  c = Greater(s, z) }")
    bodies = {"then_branch": _body(nodes), "else_branch": _body(otherwise)}
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], **bodies))
    return model


def _body(lines: tuple[str, ...]) -> onnx.GraphProto:
    nodes = [parser.parse_node(line) for line in lines]
    return helper.make_graph(
        nodes, "body", [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    )


def bodies(model: onnx.ModelProto, index: int = -1) -> dict[str, onnx.GraphProto]:
    """The branches of the `index`-th node, by default the last."""
    return {attribute.name: attribute.g for attribute in model.graph.node[index].attribute}
