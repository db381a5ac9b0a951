"""Types of what operators make that users registered: shape inference does not know them, models need not say."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from onnxlrp.emit.builder import Builder, Emitted
from onnxlrp.graph.surgeon import constant_proto, node_proto
from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.extension import LinearPart, forward_of
from onnxlrp.read import shapes


def own_types(graph: Graph) -> Mapping[str, onnx.TypeProto]:
    """Types of outputs of which nothing is known yet, where that of the first input is known."""
    found: dict[str, onnx.TypeProto] = {}
    for node in graph.nodes:
        forward = forward_of(node)
        if forward is None or graph.dtype(node.outputs[0]) or not graph.dtype(node.inputs[0]):
            continue
        kind = _type_behind(graph, node, forward)
        if kind is not None:
            found[node.outputs[0]] = kind
    return found


def _type_behind(graph: Graph, node: Node, forward: LinearPart) -> onnx.TypeProto | None:
    """What shape inference says of the nodes that `forward` makes."""
    b = Builder(graph)
    with b.scope("type"), b.in_model_type():
        y = forward(b, node, node.inputs[0])
    model = onnx.ModelProto(ir_version=graph.proto.ir_version)
    model.opset_import.extend(graph.proto.opset_import)
    made = {o for emitted in b.nodes for o in emitted.outputs}
    read = {i for emitted in b.nodes for i in emitted.inputs if i} - made - set(b.constants)
    for name in sorted(read):
        info = graph.info(name)
        shape = None if info.shape is None else list(info.shape)
        model.graph.input.append(helper.make_tensor_value_info(name, info.dtype, shape))
    model.graph.initializer.extend(constant_proto(name, value) for name, value in b.constants.items())
    model.graph.node.extend(map(_proto, b.nodes))
    model.graph.output.append(onnx.ValueInfoProto(name=y))
    return shapes.infer(model).get(y)


def _proto(node: Emitted) -> onnx.NodeProto:
    return node_proto(node.op, node.name, node.inputs, node.outputs, node.attributes, node.domain)
