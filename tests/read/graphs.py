"""Small models written as text, and running them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, parser

from onnxlrp.errors import ModelReadError
from onnxlrp.read.load import load
from onnxlrp.read.prepare import Prepared, prepare


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(text)


def graph(
    body: str, opset: int = 18, ir: int = 8, head: str = "(float[2,3,8,8] x) => (float[] y)"
) -> onnx.ModelProto:
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
        value.name: rng.standard_normal(
            [d if isinstance(d, int) else 2 for d in value.shape], dtype=np.float32
        )
        for value in session.get_inputs()
    }
    return list(session.run(None, feeds))


def assert_same_results(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Equal but for rounding: onnxruntime has, for instance, one average pooling up to opset 18 and another after."""
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


def branching(op: str, *inputs: str) -> onnx.ModelProto:
    """y = Relu(op(inputs)) where the sum of x is positive, else x; `op` works inside the branch."""
    branch = helper.make_graph(
        [helper.make_node("Relu", ["t"], ["r"]), helper.make_node(op, inputs, ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("r", 1, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["i"])],
        "else",
        [],
        [helper.make_tensor_value_info("i", 1, None)],
    )
    model = graph("{ s = ReduceSum<keepdims = 0>(x)  z = Constant<value_float = 0.0>()  c = Greater(s, z) }")
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other))
    return model
