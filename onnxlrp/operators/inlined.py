"""The nodes of a function or of a branch, written by a builder in place of the node that holds them."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.renaming import renamed_node


def inline(b: Builder, nodes: Iterable[NodeProto], names: MutableMapping[str, str]) -> None:
    """Writes the nodes.

    Args:
        names: what tensors of theirs are called here: those that are given at first, in the end all.
    """
    for node in nodes:
        if node.op_type == "Constant" and not node.domain:
            names[node.output[0]] = b.constant(_constant(node))
        else:
            names.update(zip(node.output, _append(b, renamed_node(node, names, node.name)), strict=True))


def _constant(node: NodeProto) -> Any:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    kind = "float32" if attribute.name.startswith("value_float") else "int64"
    return np.asarray(value, kind)


def _append(b: Builder, node: NodeProto) -> Sequence[str]:
    """The node of a body whose inputs have their new names already."""
    values = {a.name: _value(a) for a in node.attribute}
    if any(a.type == AttributeProto.GRAPH for a in node.attribute):
        return b.append(node.op_type, node.input, [0] * len(node.output), **values)
    return b.ops(node.op_type, *node.input, outputs=len(node.output), domain=node.domain, **values)


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    return value.decode() if attribute.type == AttributeProto.STRING else value
