"""The one place that touches onnx-graphsurgeon: new nodes and constants become protos here.

graphsurgeon's exporter types attributes and constants; the overlay of its output on the source model keeps
everything of the source that a full import and export would lose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.logger import G_LOGGER

G_LOGGER.severity = G_LOGGER.ERROR


def node_proto(
    op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any], domain: str = ""
) -> onnx.NodeProto:
    """A node as a proto. Subgraphs are GraphProto attributes and are added as they are."""
    plain = {k: v for k, v in attributes.items() if not isinstance(v, onnx.GraphProto)}
    node = gs.Node(
        op=op,
        name=name,
        attrs=plain,
        inputs=[gs.Variable(i) for i in inputs],
        outputs=[gs.Variable(o) for o in outputs],
    )
    proto: onnx.NodeProto = OnnxExporter.export_node(node)
    proto.domain = domain
    for key, value in attributes.items():
        if isinstance(value, onnx.GraphProto):
            proto.attribute.append(onnx.helper.make_attribute(key, value))
    return proto


def constant_proto(name: str, value: np.ndarray[Any, Any]) -> onnx.TensorProto:
    """An initializer with the value of a numpy array."""
    proto: onnx.TensorProto = OnnxExporter.export_tensor_proto(gs.Constant(name, np.ascontiguousarray(value)))
    if not value.shape:
        del proto.dims[:]
    return proto
