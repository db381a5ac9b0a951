"""Sequences and optionals: followed to the tensors that they are made of, so that relevance goes from tensor to tensor.

A sequence is known as a list of tensors, or as one tensor with its elements of equal shape along axis 0. Whoever reads
a tensor out of it (SequenceAt, ConcatFromSequence, OptionalGetElement) is taken apart into operators on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.renaming import rename, renamed_body
from onnxlrp.graph.view import Node, Shape
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register

_ADVICE = "export the model with tensors in place of sequences"


@dataclass(frozen=True)
class _Listed:
    """The elements, one tensor each."""

    tensors: tuple[str, ...]


@dataclass(frozen=True)
class _Stacked:
    """Elements of one shape along axis 0 of a tensor; their shape, if that is known."""

    tensor: str
    shape: Shape | None = None


_Elements = _Listed | _Stacked


def _elements(at: Situation, b: Builder, name: str) -> _Elements | Refusal:
    """What a sequence is made of."""
    node = at.graph.producer.get(name)
    if node is None or node.domain:
        return Refusal(f"sequence {name} comes from outside of the graph", _ADVICE)
    if node.op == "SequenceConstruct":
        return _Listed(node.inputs)
    if node.op == "SequenceEmpty":
        return _Listed(())
    if node.op == "Identity":
        return _elements(at, b, node.inputs[0])
    if node.op in ("SequenceInsert", "SequenceErase"):
        return _edited(at, b, node)
    if node.op == "SplitToSequence":
        return _split(at, b, node)
    if node.op == "SequenceMap":
        return _mapped(at, b, node, node.outputs.index(name))
    return Refusal(f"sequence {name} comes from {node.label}, which is not followed", _ADVICE)


def _position(at: Situation, name: str, count: int, *, behind: bool = False) -> int | None:
    """A position known beforehand in a sequence of `count` elements; negative ones count from the end.

    Args:
        behind: whether the place behind the last element is one too (for inserting).
    """
    value = at.facts.integers(name) if name else None
    if value is None or len(value) != 1 or not -count <= value[0] < count + behind:
        return None
    return value[0] + count if value[0] < 0 else value[0]


def _edited(at: Situation, b: Builder, node: Node) -> _Elements | Refusal:
    whole = _elements(at, b, node.inputs[0])
    if isinstance(whole, Refusal):
        return whole
    position = node.inputs[-1] if len(node.inputs) == (3 if node.op == "SequenceInsert" else 2) else ""
    if isinstance(whole, _Stacked):
        return Refusal(f"{node.label} changes a sequence whose length is not known", _ADVICE)
    count = len(whole.tensors)
    place = _position(at, position, count, behind=node.op == "SequenceInsert") if position else None
    if position and place is None:
        return Refusal(f"the position of {node.label} is computed at run time", _ADVICE)
    tensors = list(whole.tensors)
    if node.op == "SequenceInsert":
        tensors.insert(count if place is None else place, node.inputs[1])
    else:
        del tensors[count - 1 if place is None else place]
    return _Listed(tuple(tensors))


def _split(at: Situation, b: Builder, node: Node) -> _Elements | Refusal:
    x, sizes = node.inputs[0], node.input(1)
    shape = at.graph.shape(x)
    if shape is None:
        return Refusal(f"the rank of {x} is not known", "run shape inference on the model first")
    axis = node.attribute("axis", 0) % len(shape)
    length = shape[axis]
    if not sizes:
        front = b.op("Transpose", x, perm=[axis, *(a for a in range(len(shape)) if a != axis)]) if axis else x
        keep = node.attribute("keepdims", 1)
        rest = tuple(d for a, d in enumerate(shape) if a != axis)
        if not keep:
            return _Stacked(front, rest)
        return _Stacked(b.op("Unsqueeze", front, b.integers([axis + 1])), (*rest[:axis], 1, *rest[axis:]))
    given, known = at.facts.integers(sizes), at.facts.value(sizes)
    if given is None or known is None or (known.ndim == 0 and not isinstance(length, int)):
        return Refusal(f"the sizes of {node.label} are computed at run time", _ADVICE)
    if known.ndim == 0 and isinstance(length, int):
        given = tuple(min(given[0], length - begin) for begin in range(0, length, given[0]))
    return _Listed(b.ops("Split", x, b.integers(given), outputs=len(given), axis=axis) if len(given) > 1 else (x,))


def _mapped(at: Situation, b: Builder, node: Node, output: int) -> _Elements | Refusal:
    """The body applied to each element: written out for a list, a Scan for a stack."""
    body = node.attribute("body")
    columns: list[_Elements | str] = []
    for name in node.inputs:
        if at.graph.dtype(name):
            columns.append(name)
            continue
        found = _elements(at, b, name)
        if isinstance(found, Refusal):
            return found
        columns.append(found)
    first = columns[0]
    if isinstance(first, _Stacked) and all(not isinstance(c, _Listed) for c in columns):
        return _Stacked(_scanned(b, body, columns, output))
    if not isinstance(first, _Listed) or any(isinstance(c, _Stacked) for c in columns):
        return Refusal(f"{node.label} joins a sequence of known length with one of unknown length", _ADVICE)
    results = []
    for k in range(len(first.tensors)):
        given = [c if isinstance(c, str) else c.tensors[k] for c in columns if not isinstance(c, _Stacked)]
        made = _written_out(b, body, given, output)
        if isinstance(made, Refusal):
            return made
        results.append(made)
    return _Listed(tuple(results))


def _scanned(b: Builder, body: GraphProto, columns: Sequence[_Elements | str], output: int) -> str:
    stem = b.unique("each")
    graph = renamed_body(body, stem)
    stacks = [(v, c.tensor) for v, c in zip(graph.input, columns, strict=True) if isinstance(c, _Stacked)]
    shared = {v.name: c for v, c in zip(graph.input, columns, strict=True) if isinstance(c, str)}
    for child in graph.node:
        rename(child, shared)
    inputs, outputs = [v for v, _ in stacks], [graph.output[output]]
    del graph.input[:], graph.output[:]
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    kind = outputs[0].type.tensor_type.elem_type
    return b.append("Scan", [t for _, t in stacks], [kind], body=graph, num_scan_inputs=len(stacks))[0]


def _written_out(b: Builder, body: GraphProto, given: Sequence[str], output: int) -> str | Refusal:
    graph = renamed_body(body, b.unique("element"))
    names = dict(zip((v.name for v in graph.input), given, strict=True))
    b.hoist(graph.initializer)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            return Refusal(f"its body uses {node.domain}.{node.op_type}", _ADVICE)
        rename(node, names)
        b.copy(node)
    result: str = graph.output[output].name
    return str(names.get(result, result))


_FOLLOWED = "followed to the tensors that the sequence is made of"


@lowers("SequenceAt", treatment=_FOLLOWED)
def sequence_at(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    whole = _elements(at, b, at.node.inputs[0])
    if isinstance(whole, Refusal):
        return whole
    position = at.node.inputs[1]
    if isinstance(whole, _Stacked):
        return (b.op("Gather", whole.tensor, position, axis=0),)
    place = _position(at, position, len(whole.tensors))
    if place is not None:
        return (whole.tensors[place],)
    shapes = {at.graph.shape(t) for t in whole.tensors}
    if len(shapes) != 1 or None in shapes:
        return Refusal("its position is computed at run time and its elements differ in shape", _ADVICE)
    rows = [b.op("Unsqueeze", t, b.integers([0])) for t in whole.tensors]
    return (b.op("Gather", b.op("Concat", *rows, axis=0), position, axis=0),)


@lowers("ConcatFromSequence", treatment=_FOLLOWED)
def concat_from_sequence(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    whole = _elements(at, b, at.node.inputs[0])
    if isinstance(whole, Refusal):
        return whole
    axis, new = at.node.attribute("axis"), bool(at.node.attribute("new_axis", 0))
    if isinstance(whole, _Listed):
        parts = [b.op("Unsqueeze", t, b.integers([axis])) for t in whole.tensors] if new else whole.tensors
        return (b.op("Concat", *parts, axis=axis),)
    rank = at.graph.rank(at.y)
    if rank is None and whole.shape is not None:
        rank = len(whole.shape) + new
    if rank is None:
        return Refusal("the rank of its output is not known", "run shape inference on the model first")
    axis = axis % rank
    order = [*range(1, axis + 1), 0, *range(axis + 1, rank + (not new))]
    moved = b.op("Transpose", whole.tensor, perm=order) if axis else whole.tensor
    if new:
        return (moved,)
    behind = (whole.shape or (None,) * rank)[axis + 1 :]
    if all(isinstance(d, int) for d in behind):
        # 0 stands for the size that is there already.
        return (b.op("Reshape", moved, b.integers([0] * axis + [-1] + [d for d in behind if isinstance(d, int)])),)
    sizes = [b.op("Shape", moved, start=0, end=axis)] if axis else []
    sizes += [b.integers([-1]), b.op("Shape", moved, start=axis + 2)]
    return (b.op("Reshape", moved, b.op("Concat", *sizes, axis=0)),)


@lowers("OptionalGetElement", treatment="the element itself")
def optional_get_element(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    x = at.node.inputs[0]
    if at.graph.dtype(x):
        return (x,)
    node = at.graph.producer.get(x)
    if node is not None and node.op == "Optional" and node.inputs and at.graph.dtype(node.inputs[0]):
        return (node.inputs[0],)
    return Refusal("it is not known to hold a tensor", _ADVICE)


@lowers("Loop")
def loop_with_sequences(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """A Loop that appends to sequences, as one that stacks what was appended."""
    node, body = at.node, at.node.attribute("body")
    states = len(node.inputs) - 2
    lists = [k for k in range(states) if body.input[2 + k].type.HasField("sequence_type")]
    if not lists:
        return None
    appended = {}
    for k in lists:
        value = _appended(body, 2 + k, 1 + k)
        start = _elements(at, b, node.inputs[2 + k])
        if value is None or not isinstance(start, _Listed) or start.tensors:
            return Refusal(
                f"its carried sequence {body.input[2 + k].name} is more than appended to, or does not start empty",
                "collect the values as a scan output in the export",
            )
        appended[k] = value
    graph = GraphProto()
    graph.CopyFrom(body)
    kept = [k for k in range(states) if k not in appended]
    inputs = [*body.input[:2], *(body.input[2 + k] for k in kept)]
    outputs = [body.output[0], *(body.output[1 + k] for k in kept), *body.output[1 + states :]]
    inserts = {body.output[1 + k].name for k in lists}
    nodes = [n for n in body.node if not inserts.intersection(n.output)]
    del graph.input[:], graph.output[:], graph.node[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    types = [at.graph.dtype(o) for k, o in enumerate(node.outputs) if k not in appended]
    for k, tensor in appended.items():
        element = body.input[2 + k].type.sequence_type.elem_type
        graph.output.add(name=tensor).type.CopyFrom(element)
        types.append(element.tensor_type.elem_type)
    given = (node.inputs[0], node.input(1), *(node.inputs[2 + k] for k in kept))
    made = list(b.append("Loop", given, types, body=graph))
    results = dict(zip((k for k in range(len(node.outputs)) if k not in appended), made, strict=False))
    for k, stack in zip(appended, made[len(made) - len(appended) :], strict=True):
        results[k] = b.op("SplitToSequence", stack, axis=0, keepdims=0)
    return [results.get(k, "") for k in range(len(node.outputs))]


def _appended(body: GraphProto, position: int, output: int) -> str | None:
    """What each iteration appends to a carried sequence; None where it does something else with it."""
    state, result = body.input[position].name, body.output[output].name
    readers = [n for n in body.node if state in n.input or _captures(n.attribute, state)]
    if len(readers) != 1 or readers[0].op_type != "SequenceInsert" or list(readers[0].output) != [result]:
        return None
    return readers[0].input[1] if len(readers[0].input) == 2 else None


def _captures(attributes: Sequence[AttributeProto], name: str) -> bool:
    graphs = (a.g for a in attributes if a.type == AttributeProto.GRAPH)
    return any(name in n.input or _captures(n.attribute, name) for g in graphs for n in g.node)


def _read_elsewhere(at: Situation) -> Refusal:
    return Refusal("its sequence is not followed any further", _ADVICE)


for _op in (
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SequenceErase",
    "SplitToSequence",
    "SequenceMap",
    "Optional",
):
    register(_op, "composite", _FOLLOWED, "that of its elements", data=None)(_read_elsewhere)
