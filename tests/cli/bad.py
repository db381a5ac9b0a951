"""Models to convert and to stumble over: one tiny classifier, and what can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

_SHAPES = {"kernel": (2, 1, 3, 3), "weight": (2 * 4 * 4, 5)}


def classifier(classes: int | str = 5) -> ModelProto:
    """Conv, Relu, Flatten, MatMul: `image` [batch, 1, 6, 6] to `logits` of 5 classes, declared as `classes`."""
    values = np.random.default_rng(7)
    weights = [
        numpy_helper.from_array(values.normal(size=shape).astype(np.float32), name) for name, shape in _SHAPES.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], name="conv"),
        helper.make_node("Relu", ["features"], ["active"], name="relu"),
        helper.make_node("Flatten", ["active"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="classify"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 6, 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
    return _model(nodes, [image], [logits], weights)


def open_classifier() -> ModelProto:
    """A classifier whose weights are an input, so that nobody knows the number of classes beforehand."""
    model = classifier("classes")
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "weight"]
    model.graph.initializer.remove(weight)
    given = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [32, "classes"])
    model.graph.input.append(given)
    return model


def unsupported() -> ModelProto:
    """Three nodes in the way of relevance, of three domains, one behind the other."""
    nodes = [
        helper.make_node("SumUp", ["x"], ["a"], name="sum_up", domain="org.example"),
        helper.make_node("Frobnicate", ["a"], ["b"], name="mystery", domain="com.example"),
        helper.make_node("Relu", ["b"], ["c"], name="fine"),
        helper.make_node("Dropout", ["c", "", "training"], ["d"], name="shaky"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3])
    d = helper.make_tensor_value_info("d", TensorProto.FLOAT, [3, 3])
    model = _model(nodes, [x], [d], [helper.make_tensor("training", TensorProto.BOOL, [], [True])])
    model.opset_import.extend([helper.make_opsetid("com.example", 1), helper.make_opsetid("org.example", 1)])
    return model


def independent() -> ModelProto:
    """The output `constant` does not depend on the input; `count` depends on its shape alone."""
    nodes = [
        helper.make_node("Relu", ["bias"], ["constant"], name="relu"),
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Cast", ["shape"], ["count"], name="cast", to=TensorProto.FLOAT),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    outputs = [
        helper.make_tensor_value_info("constant", TensorProto.FLOAT, [1, 2]),
        helper.make_tensor_value_info("count", TensorProto.FLOAT, [2]),
    ]
    return _model(nodes, [x], outputs, [numpy_helper.from_array(np.ones((1, 2), np.float32), "bias")])


def save_with_external_data(model: ModelProto, path: Path, location: str = "weights.bin") -> Path:
    """Write the model with all weights in one file beside it, and let it say that this file is at `location`."""
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    stored = onnx.load(path, load_external_data=False)
    for tensor in stored.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(stored.SerializeToString())
    return path.with_name("weights.bin")


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[TensorProto],
) -> ModelProto:
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
