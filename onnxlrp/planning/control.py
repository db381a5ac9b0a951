"""Control flow in a plan: which inputs of an If, Loop or Scan carry relevance, and the programs of its bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxlrp.graph.view import Dim, Node, TensorInfo
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.planning.paths import Paths
from onnxlrp.understand.body import Body, read_body
from onnxlrp.understand.facts import Range
from onnxlrp.understand.iterating import loop_formals
from onnxlrp.understand.reading import Reading

if TYPE_CHECKING:
    from onnxlrp.emit.builder import Builder
    from onnxlrp.planning.program import Program


@dataclass(frozen=True)
class BodyProgram:
    """One subgraph with its relevance pass.

    Attributes:
        active: those of its formal inputs and captured tensors that carry relevance.
        between: tensors of the body on a way from these to its outputs.
    """

    body: Body
    program: Program
    active: tuple[str, ...]
    between: frozenset[str]

    def position(self, name: str) -> int:
        return self.body.inputs.index(name)


@dataclass(frozen=True)
class Control:
    """A node with subgraphs: relevance runs through a subgraph of the same kind, backwards.

    Attributes:
        data: tensors of the graph around it that receive relevance: inputs and captured ones.
        carried: (input of the node, input of the body, output of the body, output of the node) of carried state.
        scanned: (input of the node, input of the body) of what is read slice by slice.
        stacked: (output of the body, output of the node) of what is put together slice by slice.
    """

    node: Node
    data: tuple[str, ...]
    outputs: tuple[str, ...]
    bodies: tuple[BodyProgram, ...]
    carried: tuple[tuple[int, int, int, int], ...] = ()
    scanned: tuple[tuple[int, int], ...] = ()
    stacked: tuple[tuple[int, int], ...] = ()
    kind: str = "control"
    note: str = ""


#: Plans the relevance pass of one body: (body, active tensors, target tensors, the control node) -> its program.
PlanBody = Callable[[Body, Sequence[str], Sequence[str], Node], "BodyProgram"]


@dataclass(frozen=True)
class Surroundings:
    """What planning a control node needs of the plan around it."""

    reading: Reading
    b: Builder
    active: frozenset[str]
    receiving: frozenset[str]
    plan_body: PlanBody


Plan = Callable[[Node, Surroundings], "Control | Refusal"]


def _if(node: Node, at: Surroundings) -> Control | Refusal:
    bodies = []
    for attribute in ("then_branch", "else_branch"):
        body = read_body(at.reading, node, attribute, (), at.b)
        active = [c for c in body.captured if c in at.active]
        targets = [i for i, o in zip(body.outputs, node.outputs, strict=True) if o in at.receiving]
        bodies.append(at.plan_body(body, active, targets, node))
    data = tuple(dict.fromkeys(x for part in bodies for x in part.active))
    outputs = tuple(o for o in node.outputs if o in at.receiving)
    return Control(node, data, outputs, tuple(bodies), note="through the branch that runs")


def _loop(node: Node, at: Surroundings) -> Control | Refusal:
    states = len(node.inputs) - 2
    carried = tuple((2 + i, 2 + i, 1 + i, i) for i in range(states))
    stacked = tuple((1 + i, i) for i in range(states, len(node.outputs)))
    formal = loop_formals(at.reading.graph, node)
    bounds = [Range(0.0), Range(0.0, 1.0), *(at.reading.facts.range(name) for name in node.inputs[2:])]
    return _iterated(node, at, formal, bounds, Control(node, (), (), (), carried, (), stacked))


def _scan(node: Node, at: Surroundings) -> Control | Refusal:
    scans = int(node.attribute("num_scan_inputs"))
    states = len(node.inputs) - scans
    carried = tuple((i, i, i, i) for i in range(states))
    scanned = tuple((i, i) for i in range(states, len(node.inputs)))
    stacked = tuple((i, i) for i in range(states, len(node.outputs)))
    known = at.reading.graph.info
    axes = node.attribute("scan_input_axes") or [0] * scans
    formal = [known(name) for name in node.inputs[:states]]
    formal += [_slice_of(known(name), axis) for name, axis in zip(node.inputs[states:], axes, strict=True)]
    bounds = [at.reading.facts.range(name) for name in node.inputs]
    return _iterated(node, at, formal, bounds, Control(node, (), (), (), carried, scanned, stacked))


def _slice_of(info: TensorInfo, axis: int) -> TensorInfo:
    if info.shape is None:
        return info
    dims: list[Dim] = list(info.shape)
    del dims[axis]
    return replace(info, shape=tuple(dims))


def _iterated(
    node: Node, at: Surroundings, formal: Sequence[TensorInfo], bounds: Sequence[Range], shape: Control
) -> Control | Refusal:
    """A loop: what carries relevance is found by going round until nothing is added."""
    body = read_body(at.reading, node, "body", formal, at.b, [(i, o) for _, i, o, _ in shape.carried], bounds)
    active = {c for c in body.captured if c in at.active}
    active |= {body.inputs[i] for n, i, *_ in shape.carried if node.inputs[n] in at.active}
    active |= {body.inputs[i] for n, i in shape.scanned if node.inputs[n] in at.active}
    active = _closed(active, lambda known: _reached(body, known, shape))
    targets = {body.outputs[o] for o, n in shape.stacked if node.outputs[n] in at.receiving}
    targets |= {body.outputs[o] for *_, o, n in shape.carried if node.outputs[n] in at.receiving}
    while True:
        ordered = tuple(sorted(active))
        program = at.plan_body(body, ordered, [o for o in dict.fromkeys(body.outputs) if o in targets], node)
        more = {body.outputs[o] for _, i, o, _ in shape.carried if body.inputs[i] in program.between} - targets
        if not more:
            break
        targets |= more
    if body.growing and program.program.steps:
        return Refusal(
            f"its carried state {body.growing[0]} changes its size from one iteration to the next",
            "collect the values as a scan output in the export, or unroll the loop",
        )
    data = [node.inputs[n] for n, i, *_ in shape.carried if body.inputs[i] in program.between]
    data += [node.inputs[n] for n, i in shape.scanned if body.inputs[i] in program.between]
    data += [c for c in program.active if c in body.captured and c in program.between]
    receiving = tuple(o for o in node.outputs if o in at.receiving)
    return replace(
        shape,
        data=tuple(dict.fromkeys(x for x in data if x in at.active)),
        outputs=receiving,
        bodies=(program,),
        note="backwards, iteration by iteration",
    )


def _closed(known: set[str], more: Callable[[set[str]], set[str]]) -> set[str]:
    while found := more(known) - known:
        known = known | found
    return known


def _reached(body: Body, active: set[str], shape: Control) -> set[str]:
    """The carried inputs whose next value depends on active tensors."""
    forward = Paths(body.reading.graph, sorted(active), ()).forward
    return {body.inputs[i] for _, i, o, _ in shape.carried if body.outputs[o] in forward}


#: How each control operator is planned.
CONTROL: Mapping[str, Plan] = {"If": _if, "Loop": _loop, "Scan": _scan}
