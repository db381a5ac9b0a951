"""The body of an If, Loop or Scan as a graph of its own, with what the graph around it says of what it captures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.renaming import renamed_body
from onnxlrp.graph.view import Graph, Node, TensorInfo, captured_names
from onnxlrp.read import shapes
from onnxlrp.understand.facts import UNBOUNDED, Facts, Range
from onnxlrp.understand.reading import Reading, read_for_relevance

#: Captured constants up to this many elements are shown to shape inference: they may hold shapes.
_SMALL = 1024
#: How often bounds of carried state are widened before they are given up.
_ROUNDS = 4


@dataclass(frozen=True)
class Body:
    """A subgraph, read for relevance. Everything that it defines itself has a name of its own in the whole model.

    Attributes:
        inputs: its formal inputs.
        outputs: its outputs, in order.
        captured: what it takes from the graph around it.
        graph: the subgraph without its initializers.
        hoisted: its own initializers, which the emitted model keeps beside its own.
        growing: carried state whose sizes change from one iteration to the next.
    """

    reading: Reading
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    graph: onnx.GraphProto
    hoisted: tuple[onnx.TensorProto, ...]
    growing: tuple[str, ...] = ()


def read_body(
    outer: Reading,
    node: Node,
    attribute: str,
    formal: Sequence[TensorInfo],
    b: Builder,
    carried: Sequence[tuple[int, int]] = (),
    bounds: Sequence[Range] = (),
) -> Body:
    """Reads the subgraph in `attribute` of `node`.

    Args:
        formal: what is known of each formal input from outside; the subgraph's own word goes first.
        b: the builder of the graph around it.
        carried: (input, output) positions of carried state: the output is the next iteration's input, so that only
            what both agree on is known of it.
        bounds: of each formal input, as far as they are known from outside; of carried state at the start.
    """
    with b.scope(node.name):
        within = b.unique(attribute)
    graph = renamed_body(node.attribute(attribute), within)
    captured = tuple(sorted(captured_names(graph)))
    infos = [_declared(value, info) for value, info in zip(graph.input, formal, strict=True)]
    growing: set[str] = set()
    while True:
        model = _model(outer, graph, captured, infos)
        own = Graph(model, shapes.infer(model), within=f"{within}/")
        agreed = list(infos)
        for i, o in carried:
            following = own.info(graph.output[o].name)
            if _differ(infos[i], following):
                growing.add(graph.input[i].name)
            agreed[i] = _common(infos[i], following)
        if agreed == infos:
            break
        infos = agreed
    around = dict.fromkeys(captured, outer.facts)
    facts = _bounded(own, outer.facts.data_folders, around, bounds, [(i, graph.output[o].name) for i, o in carried])
    inner = b.inside(own, b.scope_name)
    return Body(
        read_for_relevance(own, facts, inner),
        tuple(v.name for v in graph.input),
        tuple(v.name for v in graph.output),
        captured,
        _without_initializers(graph),
        tuple(graph.initializer),
        tuple(sorted(growing)),
    )


def _bounded(
    graph: Graph,
    data_folders: tuple[Path, ...],
    around: Mapping[str, Facts],
    bounds: Sequence[Range],
    carried: Sequence[tuple[int, str]],
) -> Facts:
    """Facts under bounds of the formal inputs that hold in every iteration: by induction, or none."""
    names = graph.inputs
    given = {name: bound for name, bound in zip(names, bounds, strict=False) if bound != UNBOUNDED}
    for _ in range(_ROUNDS):
        facts = Facts(graph, data_folders, around, given)
        wider = {}
        for i, output in carried:
            known, following = given.get(names[i], UNBOUNDED), facts.range(output)
            hull = Range(min(known.low, following.low), max(known.high, following.high))
            if hull != known:
                wider[names[i]] = hull
        if not wider:
            return facts
        given.update(wider)
    return Facts(graph, data_folders, around, {n: r for n, r in given.items() if n not in wider})


def _without_initializers(graph: onnx.GraphProto) -> onnx.GraphProto:
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    del result.initializer[:]
    return result


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
    outer: Reading, graph: onnx.GraphProto, captured: Sequence[str], infos: Sequence[TensorInfo]
) -> onnx.ModelProto:
    """The subgraph as a model: what it captures are inputs, or initializers where it is a small constant."""
    model = onnx.ModelProto(ir_version=outer.graph.proto.ir_version)
    model.opset_import.extend(outer.graph.proto.opset_import)
    model.graph.CopyFrom(graph)
    for value, info in zip(model.graph.input, infos, strict=True):
        if not value.type.HasField("sequence_type") and not value.type.HasField("optional_type"):
            value.type.CopyFrom(_value(value.name, info).type)
    for name in captured:
        known = outer.facts.value(name) if outer.facts.is_constant(name) else None
        if known is not None and known.size <= _SMALL:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(known), name))
        else:
            model.graph.input.append(_value(name, outer.graph.info(name)))
    return model


def _value(name: str, info: TensorInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, info.dtype, None if info.shape is None else list(info.shape))
