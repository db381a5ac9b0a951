"""The way back: the original model inside a converted one."""

from __future__ import annotations

import onnx

from onnxlrp.check import metadata
from onnxlrp.emit.builder import PREFIX
from onnxlrp.errors import ModelReadError


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without everything that the conversion added.

    Raises:
        ModelReadError: the model was not converted by onnxlrp.
    """
    found = metadata.read(model)
    if found is None:
        raise ModelReadError("the model was not converted by onnxlrp")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    added_outputs = set(metadata.relevance_outputs(found))
    graph = result.graph
    nodes = [n for n in graph.node if not n.name.startswith(f"{PREFIX}/")]
    initializers = [t for t in graph.initializer if not t.name.startswith(f"{PREFIX}/")]
    shapes = [v for v in graph.value_info if not v.name.startswith(f"{PREFIX}/")]
    inputs = [v for v in graph.input if not metadata.is_added(found, v.name)]
    outputs = [v for v in graph.output if v.name not in added_outputs]
    for repeated, kept in (
        (graph.node, nodes),
        (graph.initializer, initializers),
        (graph.value_info, shapes),
        (graph.input, inputs),
        (graph.output, outputs),
    ):
        del repeated[:]
        repeated.extend(kept)
    others = [p for p in result.metadata_props if not p.key.startswith(metadata.NAMESPACE)]
    del result.metadata_props[:]
    result.metadata_props.extend(others)
    return result
