"""Operators that are read as the function that the standard defines them by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto, defs, helper

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.inlined import inline
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

_TREATMENT = "taken apart into the function that the standard defines it by"


def body_of(at: Situation) -> FunctionProto | Refusal:
    """The function that defines a node's operator, for its attributes and the types of its inputs."""
    node = at.node
    imports = {o.domain: o.version for o in at.graph.proto.opset_import}
    try:
        # The stubs of onnx leave out what the class has.
        schema: Any = defs.get_schema(node.op, imports.get(node.domain, at.graph.opset), node.domain)
        body = schema.function_body if schema.has_function else _made_for(schema, at)
    except Exception as error:
        # onnx raises many unrelated classes here, for bodies that it cannot make of these inputs and attributes.
        first = str(error).strip().splitlines()[:1]
        return _no_body(first[0] if first else type(error).__name__)
    return body if body.node else _no_body("sizes that it depends on are not known")


def _made_for(schema: Any, at: Situation) -> FunctionProto:
    proto = at.graph.node_protos[at.node.index]
    types = [_type(at, name).SerializeToString() for name in at.node.inputs]
    body = FunctionProto()
    body.ParseFromString(schema.get_context_dependent_function(proto.SerializeToString(), types))
    return body


def _no_body(reason: str) -> Refusal:
    return Refusal(
        f"onnx cannot make the function that defines it ({reason})",
        "give its inputs types and shapes, or export it as standard operators",
    )


def _type(at: Situation, tensor: str) -> TypeProto:
    if not tensor:
        return TypeProto()
    return helper.make_tensor_type_proto(at.graph.dtype(tensor), at.graph.shape(tensor))


def _given(attribute: AttributeProto, caller: NodeProto, domain: str) -> AttributeProto | None:
    """An attribute of a node in a body, with what it refers to in its place."""
    if not attribute.ref_attr_name:
        return attribute
    found = next((a for a in caller.attribute if a.name == attribute.ref_attr_name), None)
    if found is None:
        default = defs.get_schema(caller.op_type, domain).attributes[attribute.ref_attr_name].default_value
        found = default if default.type else None
    if found is None:
        return None
    result = AttributeProto()
    result.CopyFrom(found)
    result.name = attribute.name
    return result


def _with_attributes(node: NodeProto, caller: NodeProto, domain: str) -> NodeProto:
    """A node of a body whose attributes refer to nothing."""
    result = NodeProto()
    result.CopyFrom(node)
    given = [_given(a, caller, domain) for a in node.attribute]
    del result.attribute[:]
    result.attribute.extend(a for a in given if a is not None)
    return result


@lowers("LinearAttention CausalConvWithState", treatment=_TREATMENT)
def by_body(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """The nodes of the function, with the node's inputs and attributes in it."""
    body = body_of(at)
    if isinstance(body, Refusal):
        return body
    caller = at.graph.node_protos[at.node.index]
    names = {formal: at.node.input(i) for i, formal in enumerate(body.input)}
    foreign = next((n for n in body.node if n.domain not in ("", "ai.onnx")), None)
    if foreign is not None:
        return Refusal(f"the function that defines it uses {foreign.domain}.{foreign.op_type}")
    inline(b, (_with_attributes(n, caller, at.node.domain) for n in body.node), names)
    return [names[o] for o in body.output][: len(at.node.outputs)]


lowers("FlexAttention", domain="ai.onnx.preview", treatment=_TREATMENT)(by_body)
