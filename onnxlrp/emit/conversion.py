"""From what was decided to nodes: the passes of each target, and how they go into the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper

from onnxlrp.emit import assemble
from onnxlrp.emit.again import compute_again
from onnxlrp.emit.assemble import Output
from onnxlrp.emit.backward import Walked, as_output, as_token_output, walk
from onnxlrp.emit.builder import PREFIX, Builder, Emitted
from onnxlrp.emit.components import component_relevance
from onnxlrp.emit.concepts import Masks, mask_inputs
from onnxlrp.emit.context import Ledger
from onnxlrp.emit.ledger import Kept, ledger_table
from onnxlrp.emit.normalise import Normalisation
from onnxlrp.emit.passes import difference, scaled, settled, starts
from onnxlrp.emit.positions import position_relevance
from onnxlrp.emit.relevance import Relevance
from onnxlrp.emit.samples import Samples
from onnxlrp.emit.seed import Seed, start
from onnxlrp.errors import UsageError
from onnxlrp.graph.surgeon import constant_proto
from onnxlrp.graph.view import Graph
from onnxlrp.planning.conversion import LEDGER_OUTPUT, Conversion, suffix
from onnxlrp.planning.inputs import ExplainedInput
from onnxlrp.planning.program import Planner, Program
from onnxlrp.planning.target import Explained
from onnxlrp.request import Request
from onnxlrp.tables import RuleTable
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.positions import Positions


@dataclass(frozen=True)
class Emission:
    """What was appended.

    Attributes:
        nodes: the new nodes that are used.
        names: the output with the relevance of an input or a part of the model, for each explained output.
    """

    nodes: Sequence[Emitted]
    names: Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class _Part:
    """The relevance pass of one explained output; `outputs` by what they are the relevance of."""

    explained: Explained
    program: Program
    seed: Seed
    passes: tuple[tuple[Walked, Ledger], ...]
    outputs: Mapping[str, Output] = field(default_factory=dict)


def emit_conversion(model: onnx.ModelProto, conversion: Conversion, b: Builder) -> Emission:
    """Appends the relevance pass to the model, which is changed in place.

    Raises:
        UsageError: what is asked for cannot be had on demand.
    """
    masks = mask_inputs(b, conversion.masks)
    ways = zip(conversion.question.targets, conversion.planners, conversion.programs, strict=True)
    parts = [_part(b, conversion, masks, *way) for way in ways]
    nodes = _append(model, conversion, b, parts, (*conversion.question.inputs, *masks.inputs))
    names = {(of, part.explained.name): o.name for part in parts for of, o in part.outputs.items()}
    return Emission(nodes, names)


def _part(b: Builder, conversion: Conversion, masks: Masks, t: Explained, planner: Planner, program: Program) -> _Part:
    """The passes of one target, and what is returned of them."""
    question, request, components = conversion.question, conversion.request, conversion.components
    table, facts = question.table, question.reading.facts
    seed = start(b, t.tensor, question.target, suffix(t, len(question.targets) > 1))
    samples = Samples(t.tensor, (question.reading.graph.shape(t.tensor) or (None,))[0])
    wanted = (*question.leaves, *conversion.hidden, *(c.tensor for c in components))
    between = frozenset(planner.paths.between)
    passes: list[tuple[Walked, Ledger]] = []
    for first in starts(b, t.tensor, seed.multiplier, question.target, table, samples):
        ledger, normalisation = Ledger(request.ledger), Normalisation(table.normalize, samples)
        walked = walk(b, facts, program, {t.tensor: (first,)}, wanted, between, ledger, masks, normalisation)
        passes.append((walked, ledger))
    outputs = _outputs(b, conversion, t, program, samples, [walked for walked, _ in passes])
    return _Part(t, program, seed, tuple(passes), outputs)


def _outputs(
    b: Builder, conversion: Conversion, t: Explained, program: Program, samples: Samples, walks: Sequence[Walked]
) -> dict[str, Output]:
    """What is returned for one target: explained inputs, hidden tensors, positions, heads and neurons."""
    question, request = conversion.question, conversion.request
    graph, facts = question.reading.graph, question.reading.facts
    together = _Together(b, question.table, samples, walks, question.leaves)
    at_positions = together.less([position_relevance(b, facts, conversion.positions, program, w) for w in walks])
    counted = {question.names[0]: (at_positions,)} if at_positions is not None else {}
    outputs: dict[str, Output] = {}
    for x in (*question.explained, *(ExplainedInput(tensor, (tensor,)) for tensor in conversion.hidden)):
        name = question.relevance_name(x.name, t)
        outputs[x.name] = _output(graph, x, name, together, request, counted.get(x.name, ()))
    if at_positions is not None:
        name, first = question.relevance_name(question.position_name, t), question.explained[0]
        found = _of_positions(b, graph, first, conversion.positions, at_positions, name, request)
        outputs[question.position_name] = found
    for c in conversion.components:
        each = [component_relevance(b, facts, c, program, walked) for walked in walks]
        name = question.relevance_name(c.name, t)
        outputs[c.name] = _of_tensor(graph, c.tensor, name, together, each, request)
    return outputs


@dataclass(frozen=True)
class _Together:
    """What the passes of one target found."""

    b: Builder
    table: RuleTable
    samples: Samples
    walks: Sequence[Walked]
    leaves: Sequence[str]

    def of(self, tensor: str) -> Relevance | None:
        return self.difference(tensor, [walked.relevance.get(tensor) for walked in self.walks])

    def difference(self, tensor: str, each: Sequence[Relevance | None]) -> Relevance | None:
        if tensor in self.leaves and self.table.normalize != "none":
            each = settled(self.b, each, tensor, self.samples)
        return difference(self.b, each)

    def less(self, each: Sequence[str | None]) -> str | None:
        """What each pass says of the same thing: the first, less the second."""
        found = [tensor for tensor in each if tensor is not None]
        return self.b.sub(*found) if len(found) > 1 else next(iter(found), None)

    def finish(self, values: str, like: str) -> str:
        return scaled(self.b, values, like, self.table)


def _output(
    graph: Graph, x: ExplainedInput, name: str, found: _Together, request: Request, more: Sequence[str] = ()
) -> Output:
    """What is returned for one explained input; `more` counts to its tokens."""
    dtype = request.relevance_dtype(graph.dtype(x.tensors[0]))
    gradient = found.table.output == "gradient"
    if x.is_token:
        shares = [(found.of(tensor), tensor, ids) for tensor, ids in zip(x.tensors, x.ids, strict=True)]
        tensor = as_token_output(found.b, shares, x.name, gradient, dtype, found.finish, more)
    else:
        tensor = as_output(found.b, [(found.of(t), t) for t in x.tensors], gradient, dtype, found.finish)
    return Output(name, tensor, graph.shape(x.name), x.name, dtype)


def _of_tensor(
    graph: Graph, tensor: str, name: str, found: _Together, each: Sequence[Relevance | None], request: Request
) -> Output:
    """What is returned for a part of the model, in the shape of `tensor`."""
    shape = graph.shape(tensor)
    if request.on_demand and tensor.startswith(f"{PREFIX}/"):
        raise UsageError(f"{name} is inside an operator that is taken apart; such components go without --on-demand")
    dtype = request.relevance_dtype(graph.dtype(tensor))
    gradient, r = found.table.output == "gradient", found.difference(tensor, each)
    return Output(name, as_output(found.b, [(r, tensor)], gradient, dtype, found.finish), shape, tensor, dtype)


def _of_positions(
    b: Builder, graph: Graph, x: ExplainedInput, positions: Positions, found: str, name: str, request: Request
) -> Output:
    """The relevance of positions, [batch, sequence]."""
    dtype = request.relevance_dtype(graph.dtype(x.tensors[0]))
    if x.is_token:
        return Output(name, b.cast_down(found, dtype), graph.shape(x.name), x.name, dtype)
    embedded = graph.shape(positions.added[0].node.outputs[0]) if positions.added else None
    return Output(name, b.cast_down(found, dtype), (embedded and embedded[:2]) or (None, None), None, dtype)


def _append(
    model: onnx.ModelProto,
    conversion: Conversion,
    b: Builder,
    parts: Sequence[_Part],
    added: Sequence[onnx.ValueInfoProto],
) -> list[Emitted]:
    """Puts the new nodes into the model; returns those that are used."""
    question, target, request = conversion.question, conversion.question.target, conversion.request
    outputs = [o for part in parts for o in part.outputs.values()]
    returned = {o.tensor for o in outputs}
    if request.ledger:
        normalised = question.table.normalize != "none"
        rows = ledger_table(b, [Kept(part.program, part.passes, normalised) for part in parts])
        outputs.append(Output(LEDGER_OUTPUT, rows, (None, 7), dtype=int(TensorProto.DOUBLE)))
    used = assemble.used_nodes(b.nodes, [o.tensor for o in outputs])
    used = assemble.forward_first(used, [part.seed.multiplier for part in parts], b.constants)
    inputs = [*added, *(value for part in parts for value in part.seed.inputs)]
    # What depends on weights alone stays in the main graph, where the runtime computes it once at load time.
    varying = _varying(used, question.reading.facts)
    if target.mode == "top":
        nodes = assemble.loop_over_targets(b, used, outputs, target.k)
        outputs = [assemble.stacked(o, target.k) for o in outputs]
    else:
        nodes = assemble.plain(used, outputs)
    if request.on_demand:
        inside = varying | returned
        fixed_names = {n.name for n in used if not inside.intersection(n.outputs)}
        fixed = [n for n in nodes if n.name in fixed_names]
        forward = question.original
        inner = compute_again([n for n in nodes if n.name not in fixed_names], forward.graph, forward.facts)
        wrapped, switch = assemble.on_demand(b, inner, outputs)
        nodes = [*fixed, *wrapped]
        inputs.append(switch)
    returned_values = [
        helper.make_tensor_value_info(o.name, o.dtype, None if o.shape is None else list(o.shape)) for o in outputs
    ]
    constants = {name: constant_proto(name, value) for name, value in b.constants.items()} | b.hoisted
    shaped = [helper.make_tensor_value_info(n, b.dtype(n), list(shape)) for n, shape in b.shapes.items()]
    assemble.overlay(model, nodes, constants, inputs, returned_values, shaped)
    return used


def _varying(nodes: Sequence[Emitted], facts: Facts) -> set[str]:
    """Outputs of new nodes that depend on the model's inputs."""
    found: set[str] = set()
    for node in nodes:
        if any(
            i in found
            or (i and not i.startswith(f"{PREFIX}/") and not facts.is_constant(i))
            or i.startswith("lrp/index")
            for i in node.reads
        ):
            found.update(node.outputs)
    return found
