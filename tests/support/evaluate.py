"""Running an emitted model: in float64 by `onnx.reference`, in its own precision by onnxruntime.

The float64 run checks the formulas, rounding out of the way; the onnxruntime run checks the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.support.reference_ops import OPERATORS

Array = np.ndarray
_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def reference(model: ModelProto) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """The model as a function from inputs to outputs: `onnx.reference` with this folder's operators."""
    evaluator = ReferenceEvaluator(model, new_ops=list(OPERATORS))
    names = [output.name for output in model.graph.output]
    return lambda feeds: dict(zip(names, evaluator.run(names, dict(feeds)), strict=True))


def run_reference(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name, computed by `onnx.reference`."""
    return reference(model)(feeds)


def run_onnxruntime(model: ModelProto, feeds: Mapping[str, Array], *, optimised: bool = True) -> dict[str, Array]:
    """Outputs by name, computed by onnxruntime on the CPU, with all graph optimisations or none."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def to_float64(model: ModelProto) -> ModelProto:
    """A copy of the model in which every floating point tensor is a double, subgraphs and functions included.

    What stays: integers, booleans, strings, and of course the graph itself.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    _widen_graph(copy.graph)
    for function in copy.functions:
        _widen_nodes(function.node)
    return copy


def _widen_graph(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_value(value)
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "Constant":
            _widen_constant(node)
        elif node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i in _NARROW:
                    attribute.i = TensorProto.DOUBLE
        elif node.op_type == "ConstantOfShape" and not node.attribute:
            value = numpy_helper.from_array(np.zeros(1), "value")
            node.attribute.append(onnx.helper.make_attribute("value", value))
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.type == AttributeProto.GRAPH:
                _widen_graph(attribute.g)
            for graph in attribute.graphs:
                _widen_graph(graph)


def _widen_constant(node: NodeProto) -> None:
    attribute = node.attribute[0]
    if attribute.name in ("value_float", "value_floats"):
        number = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        tensor = numpy_helper.from_array(np.asarray(number, np.float64))
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _widen_value(value: ValueInfoProto) -> None:
    if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _NARROW:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def relative_l2(actual: Array, expected: Array) -> float:
    """|actual - expected| / |expected| in the Euclidean norm; 0 where both are zero."""
    difference = float(np.linalg.norm(np.asarray(actual, np.float64) - expected))
    size = float(np.linalg.norm(expected))
    return difference / size if size else difference


def cosine(actual: Array, expected: Array) -> float:
    """Cosine of the angle between two maps."""
    a, b = np.ravel(actual).astype(np.float64), np.ravel(expected).astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
