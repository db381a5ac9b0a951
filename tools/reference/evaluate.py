"""Running an emitted model: in float64 by `onnx.reference`, in its own precision by onnxruntime.

The float64 run checks the formulas, rounding out of the way; the onnxruntime run checks the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from reference.operators import OPERATORS

Array = np.ndarray
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def reference(model: ModelProto) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """The model as a function from inputs to outputs: `onnx.reference` with the operators beside this file."""
    model = _with_named_outputs(model)
    evaluator = ReferenceEvaluator(model, new_ops=list(OPERATORS))
    _round_to_bfloat16(evaluator, model)
    names = [output.name for output in model.graph.output]
    return lambda feeds: dict(zip(names, evaluator.run(names, dict(feeds)), strict=True))


def _with_named_outputs(model: ModelProto) -> ModelProto:
    """The evaluator stores an output that nobody wants under "", and gives it to whoever leaves an input out."""
    if all(name for node in model.graph.node for name in node.output):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for number, node in enumerate(copy.graph.node):
        for i, name in enumerate(node.output):
            node.output[i] = name or f"unwanted/{number}/{i}"
    return copy


def _round_to_bfloat16(evaluator: ReferenceEvaluator, model: ModelProto) -> None:
    """The evaluator knows bfloat16 for some operators only: all compute in float32 and are rounded afterwards."""
    known = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*known.value_info, *known.output)}
    for node in evaluator.rt_nodes_:
        narrow = [kinds.get(name) == TensorProto.BFLOAT16 for name in node.output]
        if any(narrow):
            node.run = partial(_rounded, node.run, narrow)  # type: ignore[method-assign]


def _rounded(run: Callable[..., tuple[Array, ...]], narrow: list[bool], *inputs: Any, **options: Any) -> list[Array]:
    wide = [i.astype(np.float32) if getattr(i, "dtype", None) == ml_dtypes.bfloat16 else i for i in inputs]
    outputs = run(*wide, **options)
    # LayerNormalization answers with outputs that the node does not have.
    return [o.astype(ml_dtypes.bfloat16) if n else o for o, n in zip(outputs, narrow, strict=False)]


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
    """A copy of the model in which every floating point tensor is a double, see `to_type`."""
    return to_type(model, TensorProto.DOUBLE)


def to_type(model: ModelProto, kind: int) -> ModelProto:
    """A copy of the model in which every floating point tensor is of type `kind`, subgraphs and functions included.

    What stays: integers, booleans, strings, and of course the graph itself.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    _turn_graph(copy.graph, kind)
    for function in copy.functions:
        _turn_nodes(function.node, kind)
    return copy


def _turn_graph(graph: GraphProto, kind: int) -> None:
    for tensor in graph.initializer:
        _turn_tensor(tensor, kind)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _turn_value(value, kind)
    _turn_nodes(graph.node, kind)


def _turn_nodes(nodes: Iterable[NodeProto], kind: int) -> None:
    for node in nodes:
        if node.op_type == "Constant":
            _turn_constant(node, kind)
        elif node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i in _FLOATS:
                    attribute.i = kind
        elif node.op_type == "ConstantOfShape" and not node.attribute:
            value = numpy_helper.from_array(np.zeros(1, helper.tensor_dtype_to_np_dtype(kind)), "value")
            node.attribute.append(helper.make_attribute("value", value))
        for attribute in node.attribute:
            if attribute.name in ("dtype", "softmax_precision") and attribute.i in _FLOATS:
                attribute.i = kind
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _turn_tensor(attribute.t, kind)
            elif attribute.type == AttributeProto.GRAPH:
                _turn_graph(attribute.g, kind)
            for graph in attribute.graphs:
                _turn_graph(graph, kind)


def _turn_constant(node: NodeProto, kind: int) -> None:
    attribute = node.attribute[0]
    if attribute.name in ("value_float", "value_floats") and not attribute.ref_attr_name:
        number = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        tensor = numpy_helper.from_array(np.asarray(number, helper.tensor_dtype_to_np_dtype(kind)))
        attribute.CopyFrom(helper.make_attribute("value", tensor))


def _turn_tensor(tensor: TensorProto, kind: int) -> None:
    if tensor.data_type in _FLOATS and tensor.data_type != kind:
        turned = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))


def _turn_value(value: ValueInfoProto, kind: int) -> None:
    if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _FLOATS:
        value.type.tensor_type.elem_type = kind


def relative_l2(actual: Array, expected: Array) -> float:
    """|actual - expected| / |expected| in the Euclidean norm; 0 where both are zero."""
    difference = float(np.linalg.norm(np.asarray(actual, np.float64) - expected))
    size = float(np.linalg.norm(expected))
    return difference / size if size else difference


def cosine(actual: Array, expected: Array) -> float:
    """Cosine of the angle between two maps."""
    a, b = np.ravel(actual).astype(np.float64), np.ravel(expected).astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
