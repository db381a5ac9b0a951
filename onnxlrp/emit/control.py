"""Relevance through control flow: an If runs the relevance pass of the branch that ran, a loop runs backwards.

What a body computes is computed again where its relevance pass needs it, so that of a loop only the carried state is
recorded, iteration by iteration ("tape"). The backward loop carries the relevance of the state, and adds up that of
what the body captures.

Relevance of one tensor is carried in one form, map or multiplier (see `relevance`). It starts as a multiplier and is
taken as a map once a body hands it back as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import ABSORBED, Context, Ledger, summed
from onnxlrp.emit.relevance import Relevance
from onnxlrp.graph.surgeon import node_proto
from onnxlrp.graph.view import proto_reads
from onnxlrp.operators.behaviour import Stop
from onnxlrp.planning.control import BodyProgram, Control
from onnxlrp.understand.reading import proto_of

Given = Mapping[str, Relevance]
Contributions = list[tuple[str, Relevance]]


@dataclass(frozen=True)
class BodyPass:
    """The relevance pass of a body, as emitted: what arrived at its active tensors, and what its steps kept."""

    b: Builder
    relevance: Mapping[str, Relevance]
    accounts: Mapping[str, Sequence[str]]


#: Emits the relevance pass of a body: (builder inside it, program, relevance of its outputs, ledger).
RunBody = Callable[[Builder, BodyProgram, Mapping[str, Sequence[Relevance]], Ledger], BodyPass]


def carry(ctx: Context, op: Control, given: Given, run: RunBody) -> Contributions:
    """Emits the backward form of a control flow node."""
    for part in op.bodies:
        ctx.b.hoist(part.body.hoisted)
    return {"If": _branch, "Loop": _loop, "Scan": _scan}[op.node.op](ctx, op, given, run)


# -- what the forms have in common -----------------------------------------------------------------------------------


def _enter(b: Builder, r: Relevance, outside: str, inside: str) -> Relevance:
    """Relevance of a tensor of the graph around as that of the same tensor inside a body."""
    return Relevance(r.value, inside, r.guarded) if r.is_multiplier_of(outside) else Relevance(r.as_map(b))


def _in_form(b: Builder, r: Relevance | None, tensor: str, multiplier: bool) -> str:
    """The value of relevance in the form agreed on; zeros where there is none."""
    if r is None:
        return b.zeros_like(tensor)
    return r.value if multiplier else r.as_map(b)


def _run(ctx: Context, part: BodyProgram, start: Mapping[str, Sequence[Relevance]], run: RunBody) -> BodyPass:
    inner = ctx.b.inside(part.body.reading.graph, ctx.b.scope_name)
    return run(inner, part, start, Ledger(ctx.ledger.enabled))


@dataclass
class _Subgraph:
    """A subgraph in the making. Its outputs are made by Identity, since they need names of their own."""

    b: Builder
    part: BodyProgram
    before: list[onnx.NodeProto] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)

    def give(self, tensor: str) -> None:
        self.outputs.append((tensor, self.b.own_dtype(tensor)))

    def nodes(self) -> list[onnx.NodeProto]:
        """What its outputs need of the nodes before, the body's own and the new ones."""
        body = self.part.body.reading.graph.node_protos
        everything = [*self.before, *body, *(proto_of(n) for n in self.b.nodes)]
        needed = {tensor for tensor, _ in self.outputs}
        kept: list[onnx.NodeProto] = []
        for node in reversed(everything):
            if needed.intersection(node.output):
                needed |= proto_reads(node)
                kept.append(node)
        return kept[::-1]

    def reads(self) -> set[str]:
        """Names that it needs and does not make."""
        nodes = self.nodes()
        used = {tensor for tensor, _ in self.outputs}.union(*map(proto_reads, nodes))
        return used - {o for node in nodes for o in node.output}

    def graph(self, name: str, inputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
        nodes, values = self.nodes(), []
        for number, (tensor, dtype) in enumerate(self.outputs):
            given = self.b.unique(f"give/{number}")
            nodes.append(node_proto("Identity", given, [tensor], [given], {}))
            values.append(helper.make_tensor_value_info(given, dtype, None))
        return helper.make_graph(nodes, name, inputs, values)


def _value(name: str, dtype: int, shape: Sequence[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _account_totals(found: BodyPass) -> list[str]:
    return [summed(found.b, found.accounts.get(name, ())) for name in ABSORBED]


def _itself(tensor: str) -> str:
    return tensor


def _book_totals(ctx: Context, totals: Sequence[str]) -> None:
    for name, total in zip(ABSORBED, totals, strict=True):
        ctx.book(name, partial(_itself, total))


# -- If ----------------------------------------------------------------------------------------------------------------


def _branch(ctx: Context, op: Control, given: Given, run: RunBody) -> Contributions:
    b, found = ctx.b, []
    for part in op.bodies:
        start: dict[str, list[Relevance]] = {}
        for inside, outside in zip(part.body.outputs, op.node.outputs, strict=True):
            if outside in given:
                start.setdefault(inside, []).append(_enter(b, given[outside], outside, inside))
        found.append(_run(ctx, part, start, run))
    multiplier = {x: all(x not in f.relevance or f.relevance[x].is_multiplier_of(x) for f in found) for x in op.data}
    graphs = []
    for part, inner in zip(op.bodies, found, strict=True):
        graph = _Subgraph(inner.b, part)
        for x in op.data:
            graph.give(_in_form(inner.b, inner.relevance.get(x), x, multiplier[x]))
        if ctx.ledger.enabled:
            for total in _account_totals(inner):
                graph.give(total)
        graphs.append(graph)
    then, other = (g.graph(g.b.unique("branch"), ()) for g in graphs)
    types = [dtype for _, dtype in graphs[0].outputs]
    values = b.append("If", (op.node.inputs[0],), types, then_branch=then, else_branch=other)
    if ctx.ledger.enabled:
        _book_totals(ctx, values[len(op.data) :])
    return [(x, Relevance(v, x if multiplier[x] else None)) for x, v in zip(op.data, values, strict=False)]


# -- loops -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """A tensor that the backward loop carries: relevance of carried state, or of a captured tensor, or an account.

    Attributes:
        tensor: the tensor of the body that it is about; "" for an account.
        name: as formal input of the backward body.
        initial: its value before the first backward iteration, a tensor of the graph around.
    """

    tensor: str
    name: str
    initial: str


class _Backward:
    """The body of a backward loop, with everything that both kinds of loop need around it."""

    def __init__(self, ctx: Context, op: Control, given: Given, run: RunBody) -> None:
        self.ctx, self.op, self.given = ctx, op, given
        self.b, self.part, self.body = ctx.b, op.bodies[0], op.bodies[0].body
        node, inputs = op.node, self.body.inputs
        self.carried = [c for c in op.carried if inputs[c[1]] in self.part.between or _at(node.outputs, c[3]) in given]
        self.captured = [c for c in self.part.active if c in self.body.captured and c in self.part.between]
        self.stem = self.b.unique("backward")
        #: Names of the relevance of one slice of each stacked output that relevance is given for.
        self.stacked = {o: f"{self.stem}/slice/{o}" for o, n in op.stacked if _at(node.outputs, n) in given}
        self.multiplier = {
            inputs[i]: _at(node.outputs, n) not in given or given[node.outputs[n]].is_multiplier_of(node.outputs[n])
            for _, i, _, n in self.carried
        }
        self.multiplier.update(dict.fromkeys(self.captured, True))
        self._declare()
        while True:
            self.found = self._attempt(run)
            back = self.found.relevance
            maps = [x for x, m in self.multiplier.items() if m and x in back and not back[x].is_multiplier_of(x)]
            if not maps:
                break
            self.multiplier.update(dict.fromkeys(maps, False))
        self.states = self._states()
        self.graph = self._graph()

    def stacked_relevance(self, position: int) -> Relevance:
        """What was given for the stacked output that is output `position` of the body, all slices in one tensor."""
        outside = next(self.op.node.outputs[n] for o, n in self.op.stacked if o == position)
        return _enter(self.b, self.given[outside], outside, self.body.outputs[position])

    def _declare(self) -> None:
        """Makes the element types of the names that stand for relevance known."""
        inner = self.b.inside(self.body.reading.graph, self.b.scope_name)
        for tensor in self.multiplier:
            self.b.declare(self._state_name(tensor), inner.dtype(tensor))
        for o, name in self.stacked.items():
            self.b.declare(name, self.b.dtype(self.stacked_relevance(o).value))
        for name in ABSORBED:
            self.b.declare(self._account(name), int(TensorProto.DOUBLE))

    def _account(self, name: str) -> str:
        return f"{self.stem}/account/{name}"

    def _attempt(self, run: RunBody) -> BodyPass:
        start: dict[str, list[Relevance]] = {}
        for _, i, o, _ in self.carried:
            inside, tensor = self.body.outputs[o], self.body.inputs[i]
            base = inside if self.multiplier[tensor] else None
            start.setdefault(inside, []).append(Relevance(self._state_name(tensor), base))
        for o, name in self.stacked.items():
            start.setdefault(self.body.outputs[o], []).append(replace(self.stacked_relevance(o), value=name))
        return _run(self.ctx, self.part, start, run)

    def _state_name(self, tensor: str) -> str:
        return f"{self.stem}/state/{tensor}"

    def _states(self) -> list[_State]:
        b, states = self.b, []
        for n, i, _, out in self.carried:
            tensor, output = self.body.inputs[i], _at(self.op.node.outputs, out)
            r = self.given.get(output)
            initial = b.zeros_like(self.op.node.inputs[n])
            if r is not None:
                initial = r.value if self.multiplier[tensor] else r.as_map(b)
            states.append(_State(tensor, self._state_name(tensor), initial))
        states += [_State(c, self._state_name(c), b.zeros_like(c)) for c in self.captured]
        if self.ctx.ledger.enabled:
            zero = b.constant(np.asarray(0.0))
            states += [_State("", self._account(name), zero) for name in ABSORBED]
        return states

    def _graph(self) -> _Subgraph:
        """The next value of each state, in order."""
        inner, back = self.found.b, self.found.relevance
        graph = _Subgraph(inner, self.part)
        totals = iter(_account_totals(self.found) if self.ctx.ledger.enabled else ())
        for state in self.states:
            if not state.tensor:
                graph.give(inner.add(state.name, next(totals)))
                continue
            value = _in_form(inner, back.get(state.tensor), state.tensor, self.multiplier[state.tensor])
            if state.tensor in self.captured:
                value = inner.add(state.name, value) if state.tensor in back else state.name
            graph.give(value)
        return graph

    def needed_state(self, reads: set[str]) -> list[int]:
        """Positions among the body's inputs of the carried state that the backward body reads."""
        return [i for _, i, *_ in self.op.carried if self.body.inputs[i] in reads]

    def result(self, finals: Sequence[str]) -> Contributions:
        """What the final states say of the inputs of the loop."""
        contributions: Contributions = []
        roots = {self.body.inputs[i]: self.op.node.inputs[n] for n, i, *_ in self.carried}
        for state, value in zip(self.states, finals, strict=False):
            if not state.tensor:
                continue
            x = roots.get(state.tensor, state.tensor)
            r = Relevance(value, x if self.multiplier[state.tensor] else None)
            if x in self.op.data:
                contributions.append((x, r))
            elif state.tensor in self.found.relevance:
                # State that starts from a constant keeps what comes back to it, as a bias does.
                self.ctx.book("bias", partial(r.as_finite_map, self.b))
        if self.ctx.ledger.enabled:
            _book_totals(self.ctx, finals[len(self.states) - len(ABSORBED) : len(self.states)])
        return contributions


def _at(names: Sequence[str], position: int) -> str:
    return names[position] if position < len(names) else ""


def _record(b: Builder, back: _Backward, taped: Sequence[int]) -> list[str]:
    """Runs the loop once more and records the carried state that each iteration began with, stacked on axis 0."""
    node, body = back.op.node, back.body
    graph = onnx.GraphProto()
    graph.CopyFrom(body.graph)
    kept = 1 + len(node.inputs) - 2 if node.op == "Loop" else len(back.op.carried)
    del graph.output[kept:]
    types = []
    for i in taped:
        name = b.unique("tape")
        graph.node.append(node_proto("Identity", name, [body.inputs[i]], [name], {}))
        types.append(body.reading.graph.dtype(body.inputs[i]))
        graph.output.append(_value(name, types[-1]))
    states = [body.reading.graph.dtype(body.inputs[c[1]]) for c in back.op.carried]
    attributes = {"body": graph}
    if node.op == "Scan":
        attributes |= {k: node.attribute(k) for k in ("num_scan_inputs", "scan_input_axes", "scan_input_directions")}
    return list(b.append(node.op, node.inputs, [*states, *types], **attributes)[len(states) :])


def _loop(ctx: Context, op: Control, given: Given, run: RunBody) -> Contributions:
    b, back = ctx.b, _Backward(ctx, op, given, run)
    body, stem = back.body, back.stem
    counter, more = f"{stem}/counter", f"{stem}/more"
    index, last = f"{stem}/index", f"{stem}/last"
    graph = back.graph
    graph.before.append(node_proto("Sub", index, [last, counter], [index], {}))
    taped = [0, *back.needed_state(graph.reads())]
    tapes = dict(zip(taped, _record(b, back, taped), strict=True))
    for i, tape in tapes.items():
        name = body.inputs[i]
        graph.before.append(node_proto("Gather", f"{stem}/untape/{i}", [tape, index], [name], {"axis": 0}))
    graph.before.append(node_proto("Identity", f"{stem}/true", [b.constant(np.asarray(True))], [body.inputs[1]], {}))
    for o, name in back.stacked.items():
        source = back.stacked_relevance(o).value
        graph.before.append(node_proto("Gather", name, [source, index], [name], {"axis": 0}))
    count = b.op("Squeeze", b.op("Shape", tapes[0]), b.integers([0]))
    b.alias(b.sub(count, b.constant_int(1)), last)
    graph.outputs.insert(0, (more, int(TensorProto.BOOL)))
    types = [b.dtype(s.initial) for s in back.states]
    inputs = [_value(counter, int(TensorProto.INT64), ()), _value(more, int(TensorProto.BOOL), ())]
    inputs += [_value(s.name, t) for s, t in zip(back.states, types, strict=True)]
    finals = b.append("Loop", (count, "", *(s.initial for s in back.states)), types, body=graph.graph(stem, inputs))
    return back.result(finals)


def _scan(ctx: Context, op: Control, given: Given, run: RunBody) -> Contributions:
    b, back = ctx.b, _Backward(ctx, op, given, run)
    node, body, graph = op.node, back.body, back.graph
    scans, outs = len(op.scanned), len(op.stacked)
    axes = node.attribute("scan_input_axes") or [0] * scans
    directions = node.attribute("scan_input_directions") or [0] * scans
    out_axes = node.attribute("scan_output_axes") or [0] * outs
    out_directions = node.attribute("scan_output_directions") or [0] * outs
    first = len(op.carried)
    sent = [(k, n, body.inputs[i]) for k, (n, i) in enumerate(op.scanned) if body.inputs[i] in back.found.relevance]
    multiplier = {x: back.found.relevance[x].is_multiplier_of(x) for *_, x in sent}
    for *_, x in sent:
        graph.give(_in_form(back.found.b, back.found.relevance[x], x, multiplier[x]))
    reads = graph.reads()
    taped = back.needed_state(reads)
    slices: list[tuple[str, str, int, int]] = []  # (tensor, name inside, axis, direction)
    if taped:
        slices += [(tape, body.inputs[i], 0, 1) for i, tape in zip(taped, _record(b, back, taped), strict=True)]
    for k, (n, i) in enumerate(op.scanned):
        if body.inputs[i] in reads or (k == 0 and not slices and not back.stacked):
            slices.append((node.inputs[n], body.inputs[i], axes[k], 1 - directions[k]))
    for o, name in back.stacked.items():
        slices.append((back.stacked_relevance(o).value, name, out_axes[o - first], 1 - out_directions[o - first]))
    inputs = [_value(s.name, b.dtype(s.initial)) for s in back.states]
    inputs += [_value(name, b.own_dtype(tensor)) for tensor, name, *_ in slices]
    types = [dtype for _, dtype in graph.outputs]
    results = b.append(
        "Scan",
        (*(s.initial for s in back.states), *(s[0] for s in slices)),
        types,
        body=graph.graph(back.stem, inputs),
        num_scan_inputs=len(slices),
        scan_input_axes=[s[2] for s in slices],
        scan_input_directions=[s[3] for s in slices],
        scan_output_axes=[axes[k] for k, *_ in sent] or None,
        scan_output_directions=[1 - directions[k] for k, *_ in sent] or None,
    )
    found = back.result(results[: len(back.states)])
    for (_, n, x), value in zip(sent, results[len(back.states) :], strict=True):
        found.append((node.inputs[n], Relevance(value, node.inputs[n] if multiplier[x] else None)))
    return found


def totals_of(
    b: Builder,
    part: BodyProgram,
    start: Mapping[str, Sequence[Relevance]],
    ledger: Ledger,
    arrived: Mapping[int, Sequence[Relevance]],
) -> Mapping[str, list[str]]:
    """What the steps of a body kept, by account; what was stopped inside counts as "other"."""
    kept: dict[str, list[str]] = {name: [] for name in ABSORBED}
    if not ledger.enabled:
        return kept
    for accounts in ledger.accounts.values():
        for name in ABSORBED:
            kept[name] += accounts.get(name, ())
    for tensor, given in start.items():
        if tensor not in part.between:
            # An output that does not depend on anything explained.
            kept["bias"] += [r.as_finite_map(b) for r in given]
    for number, step in enumerate(part.program.steps):
        if isinstance(step.behaviour, Stop):
            kept["other"] += [r.as_finite_map(b) for r in arrived.get(number, ())]
    return kept
