"""The stages put together: prepared model and request in, converted model and plan out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnxlrp.check import metadata
from onnxlrp.emit import assemble
from onnxlrp.emit.again import compute_again
from onnxlrp.emit.assemble import Output
from onnxlrp.emit.backward import Walked, as_output, as_token_output, walk
from onnxlrp.emit.builder import PREFIX, Builder, Emitted
from onnxlrp.emit.components import component_relevance
from onnxlrp.emit.concepts import mask_inputs
from onnxlrp.emit.context import Ledger
from onnxlrp.emit.inputs import EXPLAIN_INPUT, POSITION_INPUT, SEED_INPUT, TARGET_INPUT, is_added_input
from onnxlrp.emit.ledger import Kept, ledger_table
from onnxlrp.emit.normalise import Normalisation
from onnxlrp.emit.passes import difference, scaled, settled, starts
from onnxlrp.emit.positions import position_relevance
from onnxlrp.emit.relevance import Relevance
from onnxlrp.emit.samples import Samples
from onnxlrp.emit.seed import Seed, start
from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.graph.surgeon import constant_proto
from onnxlrp.graph.view import Graph, graph_names
from onnxlrp.operators.registry import find
from onnxlrp.planning.components import find_components
from onnxlrp.planning.concepts import Askable, Mask, MaskLike
from onnxlrp.planning.inputs import ExplainedInput, collected, explained_inputs, left_out
from onnxlrp.planning.model import Plan
from onnxlrp.planning.paths import Paths
from onnxlrp.planning.position import at_position, parse_position, position_input, with_position
from onnxlrp.planning.program import Planner, Program, programs, unused_entries
from onnxlrp.planning.report import count_blocks, plan_steps, totals
from onnxlrp.planning.target import Explained, Target, TargetLike, check_index, parse_target, resolve_outputs
from onnxlrp.read.prepare import Prepared
from onnxlrp.tables import RuleTable, load_table
from onnxlrp.tables.model import method_settings
from onnxlrp.understand.blocks import Block, find_blocks
from onnxlrp.understand.declared import Declared, as_text, libraries, unused_declarations
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.positions import Positions, find_positions
from onnxlrp.understand.reading import Reading, read_for_relevance
from onnxlrp.version import VERSION

LEDGER_OUTPUT = "lrp_ledger"

#: Element types of relevance outputs by the name that users give; "model" is the type of the explained input.
RELEVANCE_TYPES: Mapping[str, int | None] = {
    "float32": int(TensorProto.FLOAT),
    "float64": int(TensorProto.DOUBLE),
    "model": None,
}


@dataclass(frozen=True)
class Request:
    """What the user asks for; see `onnxlrp.convert` for the meaning of each field."""

    rules: str | os.PathLike[str] | RuleTable = "default"
    target: TargetLike = "argmax"
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    axis: int | None = None
    on_demand: bool = False
    ledger: bool = False
    relevance_type: str = "float32"
    position: str | int | None = None
    rather_than: TargetLike | None = None
    relevance_of: Sequence[str] = ()
    mask_at: Sequence[MaskLike] = ()
    components: Sequence[str] = ()


@dataclass(frozen=True)
class Converted:
    """A converted model with everything that is known about it.

    `relevance` is the output name of each explained input (of the first explained output where there are several),
    `relevance_of` that of each other tensor that was asked for.
    """

    model: onnx.ModelProto
    plan: Plan
    relevance: Mapping[str, str]
    relevance_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """The relevance pass of one explained output."""

    explained: Explained
    program: Program
    seed: Seed
    passes: tuple[tuple[Walked, Ledger], ...]
    outputs: tuple[Output, ...] = ()


def _refuse_names(graph: Graph, wanted: Sequence[str]) -> None:
    """Refuses a model that uses a name which the conversion gives, or by which `strip` finds what was added."""
    _refuse_taken(graph, wanted)
    tensors, nodes = graph_names(graph.proto.graph)
    added = next((n for n in graph.inputs if is_added_input(n)), None)
    if added is not None:
        raise UsageError(f"the model has an input {added!r}, a name that is kept for inputs to be added; rename it")
    inside = next((n for n in sorted(tensors | nodes) if n.startswith(f"{PREFIX}/")), None)
    if inside is not None:
        raise ConversionError(
            f"the model uses the name {inside!r}; names that begin with {PREFIX}/ are kept for relevance"
        )


def _refuse_taken(graph: Graph, wanted: Sequence[str]) -> None:
    tensors, _ = graph_names(graph.proto.graph)
    taken = next((n for n in wanted if n in tensors), None)
    if taken is not None:
        raise UsageError(
            f"the model already has a tensor {taken!r}, which is the name of an output or input to be added; rename it"
        )


def _added_inputs(targets: Sequence[Explained], several: bool) -> list[str]:
    per_output = [f"{name}{suffix(t, several)}" for t in targets for name in (TARGET_INPUT, SEED_INPUT)]
    return [*per_output, EXPLAIN_INPUT, POSITION_INPUT]


def suffix(explained: Explained, several: bool) -> str:
    """What the names of inputs and outputs added for one of several explained outputs end in."""
    return f"_{explained.name}" if several else ""


def compile_model(prepared: Prepared, request: Request) -> Converted:
    """Plans the relevance pass and appends it to the prepared model, which is changed in place.

    Raises:
        UsageError: the request does not fit the model.
        ConversionError: nodes stand in the way; all of them are named.
    """
    table = load_table(request.rules)
    asked = parse_target(request.target, request.axis, request.rather_than)
    target, position = with_position(asked, None if request.position is None else parse_position(request.position))
    if request.relevance_type not in RELEVANCE_TYPES:
        raise UsageError(f"relevance type {request.relevance_type!r} is none of {', '.join(RELEVANCE_TYPES)}")
    if request.ledger and (target.mode == "top" or request.on_demand):
        raise UsageError("a ledger is kept for plain conversions only, not with top:K or on demand")
    graph = Graph(prepared.model, prepared.inferred)
    facts = Facts(graph, prepared.source.data_folders)
    original, known = graph, facts
    b = Builder(graph)
    through_relu = table.merge_batch_normalization and table.merge_through_relu
    declared = Declared(table.operators, libraries(table, prepared.source.model), through_relu)
    reading = read_for_relevance(graph, facts, b, declared)
    targets = resolve_outputs(reading.graph, request.outputs)
    extra = position_input(position, targets[0].tensor, reading.graph)
    if position is not None:
        reading, targets = at_position(original, reading, targets, position, b)
    graph, facts = reading.graph, reading.facts
    explained = explained_inputs(graph, facts, request.inputs, targets)
    inputs, leaves = tuple(x.name for x in explained), collected(explained)
    whole = left_out(graph, facts, explained, targets)
    several, position_name = len(targets) > 1, f"{inputs[0]}_position"
    names = {(x, t.name): f"{x}_relevance{suffix(t, several)}" for t in targets for x in inputs}
    _refuse_names(graph, [*names.values(), *_added_inputs(targets, several), LEDGER_OUTPUT])
    for t in targets:
        check_index(target, t.tensor, graph.shape(t.tensor))
    if target.mode == "top" and several:
        raise UsageError("top:K explains one output at a time; name one with --output")

    blocks = find_blocks(graph, facts)
    positions = _positions(table, reading, blocks, leaves, targets)
    sinks = (*leaves, *positions.tables)
    pinned = frozenset(t.tensor for t in targets) | frozenset(sinks)
    parts: list[_Part] = []
    planners = [Planner(reading, table, sinks, (t.tensor,), pinned, b) for t in targets]
    planned = programs(planners)
    askable = Askable(original, planners, planned)
    hidden, asked_masks = askable.relevance_of(request.relevance_of), askable.masks(request.mask_at)
    components = find_components(request.components, blocks, planned)
    further = (*hidden, *(c.name for c in components))
    names |= {(x, t.name): f"{x}_relevance{suffix(t, several)}" for t in targets for x in further}
    kept = [f"{position_name}_relevance{suffix(t, several)}" for t in targets if positions != Positions()]
    _refuse_taken(graph, [*names.values(), *kept, *(m.name for m in asked_masks)])
    masks = mask_inputs(b, asked_masks)
    for t, planner, program in zip(targets, planners, planned, strict=True):
        seed = start(b, t.tensor, target, suffix(t, several))
        samples = Samples(t.tensor, (graph.shape(t.tensor) or (None,))[0])
        found: list[tuple[Walked, Ledger]] = []
        wanted, between = (*leaves, *hidden, *(c.tensor for c in components)), frozenset(planner.paths.between)
        for first in starts(b, t.tensor, seed.multiplier, target, table, samples):
            ledger, normalisation = Ledger(request.ledger), Normalisation(table.normalize, samples)
            walked = walk(b, facts, program, {t.tensor: (first,)}, wanted, between, ledger, masks, normalisation)
            found.append((walked, ledger))
        together = _Together(b, table, samples, [walked for walked, _ in found], leaves)
        at_positions = together.less([position_relevance(b, facts, positions, program, w) for w, _ in found])
        counted = {inputs[0]: (at_positions,)} if at_positions is not None else {}
        outputs = tuple(
            _output(graph, x, names[x.name, t.name], together, request.relevance_type, counted.get(x.name, ()))
            for x in (*explained, *(ExplainedInput(tensor, (tensor,)) for tensor in hidden))
        )
        if at_positions is not None:
            name = names[position_name, t.name] = f"{position_name}_relevance{suffix(t, several)}"
            outputs += (_of_positions(b, graph, explained[0], positions, at_positions, name, request),)
        for c in components:
            each = [component_relevance(b, facts, c, program, walked) for walked, _ in found]
            outputs += (_of_tensor(graph, c.tensor, names[c.name, t.name], together, each, request),)
        parts.append(_Part(t, program, seed, tuple(found), outputs))
    emitted = _emit(prepared, Reading(original, known), facts, b, parts, target, request, (*extra, *masks.inputs))
    steps = tuple(s for part in parts for s in part.program.steps)
    rows = plan_steps(graph, steps, emitted, facts, blocks, target.k or 1)
    forward, added = totals(graph, rows)
    if request.on_demand and forward is not None and added is not None:
        # The branch runs the forward pass once more.
        added += forward
    plan = Plan(
        rule_table=table.name,
        target=str(target),
        explained_inputs=inputs,
        explained_outputs=tuple(t.name for t in targets),
        steps=rows,
        blocks=count_blocks(steps, blocks),
        warnings=(*unused_declarations(table, prepared.model), *unused_entries(table, planners)),
        notes=_notes(table, prepared, targets, whole, planners),
        forward_macs=forward,
        relevance_macs=added,
        settings={
            "on_demand": request.on_demand,
            "relevance_type": request.relevance_type,
            "output": table.output,
            **method_settings(table),
            "position": None if request.position is None else str(parse_position(request.position)),
            **_concept_settings({x: names[x, targets[0].name] for x in hidden}, asked_masks),
            **_position_settings(position_name, names.get((position_name, targets[0].name))),
            **_component_settings(request, {c.name: names[c.name, targets[0].name] for c in components}),
        },
    )
    relevance = {x: names[x, targets[0].name] for x in inputs}
    metadata.write(
        prepared.model,
        metadata.Metadata(
            version=VERSION,
            rules=table.name,
            target=str(target),
            relevance=relevance,
            explained_output=targets[0].returned,
            settings=_settings(table, request, plan, names, several, prepared.source.model),
        ),
    )
    return Converted(prepared.model, plan, relevance, {x: names[x, targets[0].name] for x in further})


def _concept_settings(hidden: Mapping[str, str], masks: Sequence[Mask]) -> dict[str, Any]:
    """What plans and metadata say of hidden tensors: the outputs with their relevance, and their masks."""
    stated = {m.tensor: {"input": m.name, "axis": m.axis, "channels": m.channels} for m in masks}
    return {**({"relevance_of": dict(hidden)} if hidden else {}), **({"masks": stated} if masks else {})}


def _component_settings(request: Request, outputs: Mapping[str, str]) -> dict[str, Any]:
    """What plans and metadata say of heads and neurons: the kinds that were asked for, and the output of each layer."""
    return {"components": list(request.components), "component_outputs": dict(outputs)} if outputs else {}


def _of_tensor(
    graph: Graph, tensor: str, name: str, found: _Together, each: Sequence[Relevance | None], request: Request
) -> Output:
    """What is returned for a part of the model, in the shape of `tensor`."""
    shape = graph.shape(tensor)
    if request.on_demand and tensor.startswith(f"{PREFIX}/"):
        raise UsageError(f"{name} is inside an operator that is taken apart; such components go without --on-demand")
    dtype = RELEVANCE_TYPES[request.relevance_type] or graph.dtype(tensor)
    gradient, r = found.table.output == "gradient", found.difference(tensor, each)
    return Output(name, as_output(found.b, [(r, tensor)], gradient, dtype, found.finish), shape, tensor, dtype)


def _positions(
    table: RuleTable, reading: Reading, blocks: Sequence[Block], leaves: Sequence[str], targets: Sequence[Explained]
) -> Positions:
    """Where positions come in, as far as the table has them receive relevance."""
    if table.positions != "sink":
        return Positions()
    forward = Paths(reading.graph, leaves, [t.tensor for t in targets]).forward
    return find_positions(reading.graph, reading.facts, blocks, frozenset(forward))


def _of_positions(
    b: Builder, graph: Graph, x: ExplainedInput, positions: Positions, found: str, name: str, request: Request
) -> Output:
    """The relevance of positions, [batch, sequence]."""
    dtype = RELEVANCE_TYPES[request.relevance_type] or graph.dtype(x.tensors[0])
    if x.is_token:
        return Output(name, b.cast_down(found, dtype), graph.shape(x.name), x.name, dtype)
    embedded = graph.shape(positions.added[0].node.outputs[0]) if positions.added else None
    return Output(name, b.cast_down(found, dtype), (embedded and embedded[:2]) or (None, None), None, dtype)


def _position_settings(name: str, output: str | None) -> dict[str, Any]:
    """What plans and metadata say of positions: the output with their relevance."""
    return {} if output is None else {"position_outputs": {name: output}}


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
    graph: Graph, x: ExplainedInput, name: str, found: _Together, relevance_type: str, more: Sequence[str] = ()
) -> Output:
    """What is returned for one explained input; `more` counts to its tokens."""
    dtype = RELEVANCE_TYPES[relevance_type] or graph.dtype(x.tensors[0])
    gradient = found.table.output == "gradient"
    if x.is_token:
        shares = [(found.of(tensor), tensor, ids) for tensor, ids in zip(x.tensors, x.ids, strict=True)]
        tensor = as_token_output(found.b, shares, x.name, gradient, dtype, found.finish, more)
    else:
        tensor = as_output(found.b, [(found.of(t), t) for t in x.tensors], gradient, dtype, found.finish)
    return Output(name, tensor, graph.shape(x.name), x.name, dtype)


def _notes(
    table: RuleTable,
    prepared: Prepared,
    targets: Sequence[Explained],
    left: Sequence[str],
    planners: Sequence[Planner],
) -> tuple[str, ...]:
    """What there is to say of the table, the model as it was read, targets and inputs, and of where relevance ends."""
    of_table = (table.note,) if table.note else ()
    of_targets = (note for t in targets for note in t.notes)
    return (*of_table, *prepared.notes, *of_targets, *_left_out(left), *_ends(planners))


def _left_out(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"input {n}: whole numbers beside other inputs are not explained unless named (--input)" for n in names
    )


def _ends(planners: Sequence[Planner]) -> tuple[str, ...]:
    """Where relevance stops on purpose, in words."""
    nodes = dict.fromkeys(node for planner in planners for node in planner.paths.ends())
    entries = ((node, find(node)) for node in nodes)
    return tuple(f"{node.label}: {entry.said_of(node)}" for node, entry in entries if entry is not None)


def _settings(
    table: RuleTable,
    request: Request,
    plan: Plan,
    names: Mapping[tuple[str, str], str],
    several: bool,
    model: onnx.ModelProto,
) -> dict[str, Any]:
    """What is needed to convert the same model in the same way again."""
    settings: dict[str, Any] = {
        **plan.settings,
        "inputs": list(plan.explained_inputs),
        "outputs": list(request.outputs),
        "axis": request.axis,
        "rather_than": plan.target.partition(" rather than ")[2] or None,
    }
    if table.source != "preset":
        settings["table"] = table.text
        settings["functions"] = as_text(libraries(table, model))
    if several:
        settings["relevance_by_output"] = {o: {x: n for (x, y), n in names.items() if y == o} for _, o in names}
    return settings


def _emit(
    prepared: Prepared,
    original: Reading,
    facts: Facts,
    b: Builder,
    parts: Sequence[_Part],
    target: Target,
    request: Request,
    added: Sequence[onnx.ValueInfoProto],
) -> list[Emitted]:
    """Appends the relevance pass to the prepared model; returns the new nodes that are used."""
    outputs = [o for part in parts for o in part.outputs]
    if request.ledger:
        normalised = load_table(request.rules).normalize != "none"
        rows = ledger_table(b, [Kept(part.program, part.passes, normalised) for part in parts])
        outputs.append(Output(LEDGER_OUTPUT, rows, (None, 7), dtype=int(TensorProto.DOUBLE)))
    used = assemble.used_nodes(b.nodes, [o.tensor for o in outputs])
    used = assemble.forward_first(used, [part.seed.multiplier for part in parts])
    inputs = [*added, *(value for part in parts for value in part.seed.inputs)]
    # What depends on weights alone stays in the main graph, where the runtime computes it once at load time.
    varying = _varying(used, facts)
    if target.mode == "top":
        nodes = assemble.loop_over_targets(b, used, outputs, target.k)
        outputs = [assemble.stacked(o, target.k) for o in outputs]
    else:
        nodes = assemble.plain(used, outputs)
    if request.on_demand:
        inside = varying | {o.tensor for part in parts for o in part.outputs}
        fixed_names = {n.name for n in used if not inside.intersection(n.outputs)}
        fixed = [n for n in nodes if n.name in fixed_names]
        inner = compute_again([n for n in nodes if n.name not in fixed_names], original.graph, original.facts)
        wrapped, switch = assemble.on_demand(b, inner, outputs)
        nodes = [*fixed, *wrapped]
        inputs.append(switch)
    returned_values = [
        helper.make_tensor_value_info(o.name, o.dtype, None if o.shape is None else list(o.shape)) for o in outputs
    ]
    constants = {name: constant_proto(name, value) for name, value in b.constants.items()} | b.hoisted
    shaped = [helper.make_tensor_value_info(n, b.dtype(n), list(shape)) for n, shape in b.shapes.items()]
    assemble.overlay(prepared.model, nodes, constants, inputs, returned_values, shaped)
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
