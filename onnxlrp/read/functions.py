"""The function that stands for an operator: what it computes at one node, in standard operators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from onnxlrp.errors import ModelReadError
from onnxlrp.read import structure
from onnxlrp.read.inline import inline
from onnxlrp.read.lift import default_opset

Key = tuple[str, str, str]


class DoesNotFitError(Exception):
    """The function cannot stand for the node; the text tells why."""


def key_of(function: onnx.FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def named(key: Key) -> str:
    """A function as a rule table names it."""
    domain, name, overload = key
    return f"{domain}::{name}:{overload}" if overload else f"{domain}::{name}"


def needed(functions: Iterable[onnx.FunctionProto], key: Key) -> list[onnx.FunctionProto]:
    """The function of that name and all that it calls, directly or not; empty where there is none of that name."""
    known = {key_of(function): function for function in functions}
    found: dict[Key, onnx.FunctionProto] = {}
    waiting = [key]
    while waiting:
        latest = waiting.pop()
        if latest in known and latest not in found:
            found[latest] = known[latest]
            waiting += [(n.domain, n.op_type, n.overload) for n in structure.all_nodes([known[latest].node])]
    return list(found.values())


def written_out(
    functions: Sequence[onnx.FunctionProto],
    key: Key,
    node: onnx.NodeProto,
    types: Sequence[onnx.TypeProto | None],
    opset: int,
) -> onnx.GraphProto:
    """A graph with the node's inputs and outputs that computes what the function says, without functions.

    Args:
        functions: the function and all that it calls.
        node: the node in whose place it is read; its attributes are the function's.
        types: of the node's inputs, None where nothing is known.
        opset: of the model; the graph has the same.

    Raises:
        DoesNotFitError: the function takes other inputs, outputs or attributes, or cannot be read in that opset.
    """
    function = next((f for f in functions if key_of(f) == key), None)
    if function is None:
        raise DoesNotFitError(f"there is no function {named(key)}")
    _check_signature(function, node)
    call = onnx.NodeProto()
    call.CopyFrom(node)
    call.domain, call.op_type, call.overload = key
    model = onnx.ModelProto(ir_version=10)
    model.opset_import.add(domain="", version=opset)
    model.functions.extend(functions)
    for domain in dict.fromkeys(f.domain for f in functions):
        model.opset_import.add(domain=domain, version=1)
    model.graph.node.append(call)
    model.graph.name = named(key)
    for name, kind in zip(node.input, types, strict=True):
        if name and name not in {v.name for v in model.graph.input}:
            value = model.graph.input.add(name=name)
            value.type.CopyFrom(kind or onnx.TypeProto())
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    try:
        result = inline(model)
    except ModelReadError as error:
        raise DoesNotFitError(str(error)) from error
    if default_opset(result.opset_import) != opset:
        raise DoesNotFitError(f"function {named(key)} is of a newer opset than the model, which has {opset}")
    return result.graph


def _check_signature(function: onnx.FunctionProto, node: onnx.NodeProto) -> None:
    what = f"function {named(key_of(function))}"
    for kind, theirs, ours in (("inputs", node.input, function.input), ("outputs", node.output, function.output)):
        if len(theirs) > len(ours):
            raise DoesNotFitError(f"it has {len(theirs)} {kind}, and {what} has {len(ours)}")
    known = {*function.attribute, *(a.name for a in function.attribute_proto)}
    for attribute in node.attribute:
        if attribute.name not in known:
            raise DoesNotFitError(f"it has the attribute {attribute.name!r}, which {what} does not take")
