"""The reading graph: the model's graph with composite operators in simpler ones, for the relevance pass to follow.

The model itself keeps its nodes. What the taken-apart form computes in between is computed again in the relevance pass,
and only where a rule needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from onnxlrp.emit.builder import NARROW_TYPES, PREFIX, Builder, Emitted
from onnxlrp.graph.surgeon import constant_proto, node_proto
from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lower
from onnxlrp.operators.registry import Situation
from onnxlrp.read import external, shapes, skeleton
from onnxlrp.understand.declared import NOTHING, Declared, typed_like
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.iterating import loop_types
from onnxlrp.understand.registered import own_types
from onnxlrp.understand.thresholds import behind_threshold

#: Names of the nodes made for node X begin with <PREFIX>/of/X.
SCOPE = "of"
#: An operator that is taken apart into itself, again and again, is a mistake in the table of operators.
_MOST_ROUNDS = 12


@dataclass(frozen=True)
class Reading:
    """The graph that relevance follows, with its facts, and what the rule table declares of operators."""

    graph: Graph
    facts: Facts
    declared: Declared = NOTHING


def read_for_relevance(graph: Graph, facts: Facts, b: Builder, declared: Declared = NOTHING) -> Reading:
    """Takes composite operators apart until none is left. The new nodes are left in `b`, in order.

    Args:
        b: the builder of the relevance pass, nothing emitted yet; it reads the new graph afterwards.
        declared: how operators are read that the table of operators does not have.
    """
    reading = _with_more_types(graph, Reading(graph, facts, declared), b)
    for _ in range(_MOST_ROUNDS):
        replaced: dict[int, list[onnx.NodeProto]] = {}
        origins: dict[str, Node] = {n.name: n.origin for n in reading.graph.nodes if n.origin is not None}
        for node in reading.graph.nodes:
            # One that stays whole is tried again: what it reads may be taken apart by then.
            made = _taken_apart(node, reading, b)
            if made is not None:
                replaced[node.index] = made
                origins.update({proto.name: node for proto in made})
        if not replaced:
            return reading
        nodes = _with(reading, replaced)
        reading = _read_again(graph, reading, nodes, origins, _kept_types(reading, replaced), b)
        reading = _with_more_types(graph, reading, b)
        b.graph = reading.graph
    raise RecursionError("operators are taken apart without end")


def extended(
    original: Graph,
    reading: Reading,
    make: Callable[[], Mapping[str, Node]],
    known: Mapping[str, onnx.TypeProto],
    b: Builder,
) -> Reading:
    """The graph with more nodes behind its own, which relevance starts from in place of the model's outputs.

    Args:
        make: makes the nodes through `b`; returns those that repeat a node of the graph, with that node.
        known: types of new graph inputs that they read.
    """
    mark = len(b.nodes)
    with b.afresh(), b.in_model_type():
        origins = {n.name: n.origin for n in reading.graph.nodes if n.origin is not None} | dict(make())
    nodes = [*reading.graph.node_protos, *map(proto_of, b.nodes[mark:])]
    found = _read_again(original, reading, nodes, origins, known, b)
    b.graph = found.graph
    return found


def _taken_apart(node: Node, reading: Reading, b: Builder) -> list[onnx.NodeProto] | None:
    if all(reading.facts.is_constant(o) for o in node.outputs if o):
        return None
    declaration = reading.declared.of(node)
    if declaration is not None:
        with b.scope(f"{SCOPE}/{node.name}"), b.afresh():
            return reading.declared.read(declaration, node, reading.graph, b)
    if reading.declared.through_relu:
        with b.scope(f"{SCOPE}/{node.name}"), b.afresh():
            moved = behind_threshold(node, reading.graph, reading.facts, b)
        if moved is not None:
            return moved
    active = frozenset(i for i in node.inputs if i and not reading.facts.is_constant(i))
    mark = len(b.nodes)
    with b.scope(f"{SCOPE}/{node.name}"), b.afresh():
        found = lower(Situation(node, reading.graph, reading.facts, active), b)
        if found is None or isinstance(found, Refusal):
            del b.nodes[mark:]
            return None
        found = [
            _in_type_of(b, reading.graph, tensor, output) for tensor, output in zip(found, node.outputs, strict=False)
        ]
        made = [proto_of(emitted) for emitted in b.nodes[mark:]]
        for number, (tensor, output) in enumerate(zip(found, node.outputs, strict=False)):
            if tensor and output and not _made_as(made, tensor, output):
                made.append(node_proto("Identity", b.unique(f"is/{number}"), [tensor], [output], {}))
        _in_place_of(node, found, b, mark)
    return made


def _in_place_of(node: Node, found: Sequence[str], b: Builder, mark: int) -> None:
    """Lets what a node was taken apart into stand in its place where that node itself is a new one.

    Such a node is read in place of one of the model and is taken apart in turn; nobody may ask for it any more.

    Args:
        found: the new tensors that are its outputs.
        mark: the number of new nodes before it was taken apart.
    """
    is_new = node.name.startswith(f"{PREFIX}/")
    place = next((i for i in range(mark) if b.nodes[i].name == node.name), None) if is_new else None
    if place is None:
        return
    outputs, parts = b.nodes[place].outputs, b.nodes[mark:]
    made = {name for part in parts for name in part.outputs}
    names: dict[str, str] = {}
    same: list[Emitted] = []
    for number, (tensor, output) in enumerate(zip(found, outputs, strict=False)):
        if tensor in made and tensor not in names:
            names[tensor] = output
        elif tensor:
            name = b.unique(f"same/{number}")
            same.append(Emitted("Identity", name, (names.get(tensor, tensor),), (output,), {}, b.nodes[place].scope))
    renamed = [
        replace(
            part,
            inputs=tuple(names.get(i, i) for i in part.inputs),
            outputs=tuple(names.get(o, o) for o in part.outputs),
        )
        for part in parts
    ]
    del b.nodes[mark:]
    b.nodes[place : place + 1] = [*renamed, *same]


def _in_type_of(b: Builder, graph: Graph, tensor: str, output: str) -> str:
    """A new tensor in the element type of the model's tensor that it stands for; it was computed in float32."""
    kind = graph.dtype(output) if output else 0
    return b.cast(tensor, kind) if tensor and kind in NARROW_TYPES else tensor


def _made_as(made: Sequence[onnx.NodeProto], tensor: str, output: str) -> bool:
    """Lets the node that makes `tensor` be read as the maker of the model's own `output`, where that is possible.

    Rules then read the model's tensor instead of computing it again, and no Identity parts a layer from what follows.
    """
    if not any(tensor in proto.output for proto in made) or any(a.HasField("g") for p in made for a in p.attribute):
        return False
    for proto in made:
        for names in (proto.input, proto.output):
            names[:] = [output if name == tensor else name for name in names]
    return True


def proto_of(node: Emitted) -> onnx.NodeProto:
    """A new node as a proto."""
    return node_proto(node.op, node.name, node.inputs, node.outputs, node.attributes, node.domain)


def _with(reading: Reading, replaced: Mapping[int, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for index, proto in enumerate(reading.graph.node_protos):
        nodes.extend(replaced.get(index, [proto]))
    return nodes


def _kept_types(reading: Reading, replaced: Iterable[int]) -> Mapping[str, onnx.TypeProto]:
    """What was known of the outputs of nodes that are replaced, which need not follow from their parts."""
    outputs = (o for index in replaced for o in reading.graph.nodes[index].outputs)
    return {o: reading.graph.types[o] for o in outputs if o in reading.graph.types}


def _with_more_types(original: Graph, reading: Reading, b: Builder) -> Reading:
    """The same with types of the final states of Loops and of operators that users registered, and of what follows."""
    known = {**loop_types(reading.graph, reading.facts), **own_types(reading.graph)}
    if not known:
        return reading
    origins = {n.name: n.origin for n in reading.graph.nodes if n.origin is not None}
    found = _read_again(original, reading, reading.graph.node_protos, origins, known, b)
    b.graph = found.graph
    # What follows may be what such an operator reads.
    return _with_more_types(original, found, b) if own_types(found.graph) else found


def _read_again(
    original: Graph,
    reading: Reading,
    nodes: Sequence[onnx.NodeProto],
    origins: Mapping[str, Node],
    known: Mapping[str, onnx.TypeProto],
    b: Builder,
) -> Reading:
    """The graph with these nodes in place of its own, and what shape inference finds from the `known` types on."""
    constants = [constant_proto(name, value) for name, value in b.constants.items()]
    light = skeleton.strip(original.proto).light
    del light.graph.node[:]
    light.graph.node.extend(typed_like(node) for node in nodes)
    light.graph.initializer.extend(constants)
    recorded = {value.name for value in (*light.graph.value_info, *light.graph.output)}
    for name, kind in known.items():
        if name not in recorded:
            light.graph.value_info.add(name=name).type.CopyFrom(kind)
    found = shapes.infer(light, lambda tensor: external.with_values(tensor, reading.facts.data_folders))
    inferred = {**found, **{n: k for n, k in reading.graph.types.items() if not _says_more(found.get(n), k)}, **known}
    graph = Graph(original.proto, inferred, nodes, constants, origins, original.within)
    return Reading(graph, reading.facts.of(graph), reading.declared)


def _says_more(found: onnx.TypeProto | None, before: onnx.TypeProto) -> bool:
    """Whether a rank is known now that was not known before."""
    return shapes.dims(before) is None and shapes.dims(found) is not None
