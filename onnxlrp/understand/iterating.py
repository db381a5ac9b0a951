"""Subgraphs with what is known of their inputs: types that hold in every iteration of a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlrp.graph.renaming import renamed_body
from onnxlrp.graph.view import Graph, Node, TensorInfo, captured_names
from onnxlrp.read import shapes
from onnxlrp.understand.facts import Facts

#: Captured constants up to this many elements are shown to shape inference: they may hold shapes.
_SMALL = 1024


@dataclass(frozen=True)
class Typed:
    """A subgraph under names of its own, with types.

    Attributes:
        proto: the subgraph itself, renamed.
        captured: what it takes from the graph around it.
        growing: carried state whose sizes change from one iteration to the next.
    """

    proto: onnx.GraphProto
    graph: Graph
    captured: tuple[str, ...]
    growing: tuple[str, ...]


def typed_body(
    outer: Graph,
    facts: Facts,
    body: onnx.GraphProto,
    within: str,
    formal: Sequence[TensorInfo],
    carried: Sequence[tuple[int, int]] = (),
) -> Typed:
    """Names everything in `body` from `within` on and infers its types.

    Args:
        formal: what is known of each formal input from outside; the subgraph's own word goes first.
        carried: (input, output) positions of carried state: the output is the next iteration's input, so that only
            what both agree on is known of it.
    """
    proto = renamed_body(body, within)
    captured = tuple(sorted(captured_names(proto)))
    infos = [_declared(value, info) for value, info in zip(proto.input, formal, strict=True)]
    growing: set[str] = set()
    while True:
        model = _model(outer, facts, proto, captured, infos)
        own = Graph(model, shapes.infer(model), within=f"{within}/")
        agreed = list(infos)
        for i, o in carried:
            following = own.info(proto.output[o].name)
            if _differ(infos[i], following):
                growing.add(proto.input[i].name)
            agreed[i] = _common(infos[i], following)
        if agreed == infos:
            return Typed(proto, own, captured, tuple(sorted(growing)))
        infos = agreed


def loop_formals(graph: Graph, node: Node) -> list[TensorInfo]:
    """What is known of the formal inputs of a Loop's body from outside: counter, condition, carried state."""
    counter = TensorInfo(int(onnx.TensorProto.INT64), ())
    return [counter, TensorInfo(int(onnx.TensorProto.BOOL), ()), *(graph.info(name) for name in node.inputs[2:])]


def loop_types(graph: Graph, facts: Facts) -> Mapping[str, onnx.TypeProto]:
    """Types of the final states of Loops, which shape inference leaves open because they might change."""
    found: dict[str, onnx.TypeProto] = {}
    for node in graph.nodes:
        states = len(node.inputs) - 2
        if node.op != "Loop" or node.domain:
            continue
        if all(graph.shape(o) is not None or not graph.dtype(o) for o in node.outputs[:states] if o):
            continue
        carried = [(2 + k, 1 + k) for k in range(states)]
        body = typed_body(graph, facts, node.attribute("body"), "lrp/types", loop_formals(graph, node), carried)
        for k, output in enumerate(node.outputs[:states]):
            info = body.graph.info(body.proto.input[2 + k].name)
            if output and graph.shape(output) is None and info.shape is not None and info.dtype:
                found[output] = _value(output, info).type
    return found


def _declared(value: onnx.ValueInfoProto, outside: TensorInfo) -> TensorInfo:
    """What is known of a formal input: its type as declared, its shape from outside."""
    declared = value.type.tensor_type
    return TensorInfo(declared.elem_type or outside.dtype, outside.shape)


def _differ(a: TensorInfo, b: TensorInfo) -> bool:
    if a.shape is None or b.shape is None:
        return False
    if len(a.shape) != len(b.shape):
        return True
    return any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(a.shape, b.shape, strict=True))


def _common(a: TensorInfo, b: TensorInfo) -> TensorInfo:
    """What holds for both: sizes that differ, or that are known of one only, are unknown."""
    if a.shape is None or (b.shape is not None and len(a.shape) != len(b.shape)):
        return replace(a, shape=None)
    if b.shape is None:
        return replace(a, shape=(None,) * len(a.shape))
    return replace(a, shape=tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True)))


def _model(
    outer: Graph, facts: Facts, graph: onnx.GraphProto, captured: Sequence[str], infos: Sequence[TensorInfo]
) -> onnx.ModelProto:
    """The subgraph as a model: what it captures are inputs, or initializers where it is a small constant."""
    model = onnx.ModelProto(ir_version=outer.proto.ir_version)
    model.opset_import.extend(outer.proto.opset_import)
    model.graph.CopyFrom(graph)
    for value, info in zip(model.graph.input, infos, strict=True):
        if not value.type.HasField("sequence_type") and not value.type.HasField("optional_type"):
            value.type.CopyFrom(_value(value.name, info).type)
    for name in captured:
        known = facts.value(name) if facts.is_constant(name) else None
        if known is not None and known.size <= _SMALL:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(known), name))
        else:
            model.graph.input.append(_value(name, outer.info(name)))
    return model


def _value(name: str, info: TensorInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, info.dtype, None if info.shape is None else list(info.shape))
