"""Other names for tensors of nodes and subgraphs, without touching what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx


def renamed_node(node: onnx.NodeProto, names: Mapping[str, str], own_name: str) -> onnx.NodeProto:
    """A copy of a node under the name `own_name` that reads and makes tensors under their new names."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    result.name = own_name
    rename(result, names)
    return result


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Renames, in place, the tensors that a node reads and makes, those that its subgraphs capture included."""
    for repeated in (node.input, node.output):
        for i, name in enumerate(repeated):
            if name in names:
                repeated[i] = names[name]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _rename_captured(attribute.g, names)


def _rename_captured(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    own = defined(graph)
    inner = {k: v for k, v in names.items() if k not in own}
    for child in graph.node:
        rename(child, inner)
    for value in graph.output:
        value.name = inner.get(value.name, value.name)


def renamed_body(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """A copy of a subgraph in which everything that it defines itself is named `prefix/...`."""
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    names = {name: f"{prefix}/{name}" for name in defined(graph) if name}
    for number, node in enumerate(result.node):
        node.name = f"{prefix}/{node.name or f'{node.op_type}_{number}'}"
        rename(node, names)
    for value in (*result.input, *result.output, *result.value_info):
        value.name = names.get(value.name, value.name)
    for tensor in result.initializer:
        tensor.name = names[tensor.name]
    return result


def defined(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that a subgraph defines itself."""
    values: Iterable[str] = (o for n in graph.node for o in n.output)
    return set(values) | {v.name for v in graph.input} | {t.name for t in graph.initializer}
