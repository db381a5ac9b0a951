"""Everything that is decided before a node is emitted, as one value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from onnxlrp.emit.builder import PREFIX, Builder
from onnxlrp.emit.inputs import EXPLAIN_INPUT, POSITION_INPUT, SEED_INPUT, TARGET_INPUT, is_added_input
from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.graph.view import Graph, graph_names
from onnxlrp.planning.components import Component, find_components
from onnxlrp.planning.concepts import Askable, Mask
from onnxlrp.planning.inputs import ExplainedInput, collected, explained_inputs, notes_on_inputs
from onnxlrp.planning.paths import Paths
from onnxlrp.planning.position import at_position, parse_position, position_input, with_position
from onnxlrp.planning.program import Planner, Program, programs
from onnxlrp.planning.target import Explained, Target, check_index, parse_target, resolve_outputs
from onnxlrp.read.prepare import Prepared
from onnxlrp.request import Request
from onnxlrp.tables import RuleTable, load_table
from onnxlrp.understand.blocks import Block, find_blocks
from onnxlrp.understand.declared import Declared, libraries
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.positions import Positions, find_positions
from onnxlrp.understand.reading import Reading, read_for_relevance

LEDGER_OUTPUT = "lrp_ledger"


@dataclass(frozen=True)
class Question:
    """What is explained, at both ends.

    Attributes:
        original: the model's own graph; `reading`: the one that relevance follows.
        inputs: graph inputs that the target needs.
        notes: what there is to say of inputs.
    """

    table: RuleTable
    target: Target
    original: Reading
    reading: Reading
    targets: Sequence[Explained]
    explained: tuple[ExplainedInput, ...]
    inputs: Sequence[onnx.ValueInfoProto]
    notes: tuple[str, ...]

    @property
    def leaves(self) -> tuple[str, ...]:
        """The tensors at which relevance of the explained inputs is collected."""
        return collected(self.explained)

    @property
    def names(self) -> tuple[str, ...]:
        """The explained inputs."""
        return tuple(x.name for x in self.explained)

    @property
    def position_name(self) -> str:
        """What the relevance of positions is called after."""
        return f"{self.names[0]}_position"

    def relevance_name(self, of: str, t: Explained) -> str:
        """The output with the relevance of an input or a part of the model."""
        return f"{of}_relevance{suffix(t, len(self.targets) > 1)}"


@dataclass(frozen=True)
class Conversion:
    """A question with all that answers it.

    Attributes:
        positions: where positions come in, as far as they receive relevance.
        planners, programs: one for each target.
        hidden: tensors whose relevance is returned too; `components`: heads and neurons.
    """

    request: Request
    question: Question
    blocks: Sequence[Block]
    positions: Positions
    planners: Sequence[Planner]
    programs: Sequence[Program]
    hidden: tuple[str, ...]
    masks: tuple[Mask, ...]
    components: Sequence[Component]


def plan_conversion(prepared: Prepared, request: Request, b: Builder) -> Conversion:
    """Decides what is explained and by which rules.

    Raises:
        UsageError: the request does not fit the model.
        ConversionError: nodes stand in the way; all of them are named.
    """
    question = _ask(prepared, request, b)
    reading, targets = question.reading, question.targets
    blocks = find_blocks(reading.graph, reading.facts)
    positions = _positions(question.table, reading, blocks, question.leaves, targets)
    sinks = (*question.leaves, *positions.tables)
    pinned = frozenset(t.tensor for t in targets) | frozenset(sinks)
    planners = [Planner(reading, question.table, sinks, (t.tensor,), pinned, b) for t in targets]
    planned = programs(planners)
    askable = Askable(question.original.graph, planners, planned)
    hidden, masks = askable.relevance_of(request.relevance_of), askable.masks(request.mask_at)
    components = find_components(request.components, blocks, planned)
    found = Conversion(request, question, blocks, positions, planners, planned, hidden, masks, components)
    _refuse_taken(question.original.graph, list(_names(found)))
    return found


def _ask(prepared: Prepared, request: Request, b: Builder) -> Question:
    """Reads the model for relevance, and finds both ends of the way."""
    table = load_table(request.rules)
    asked = parse_target(request.target, request.axis, request.rather_than)
    target, position = with_position(asked, None if request.position is None else parse_position(request.position))
    request.relevance_dtype(0)
    if request.ledger and (target.mode == "top" or request.on_demand):
        raise UsageError("a ledger is kept for plain conversions only, not with top:K or on demand")
    original = Reading(b.graph, Facts(b.graph, prepared.source.data_folders))
    through_relu = table.merge_batch_normalization and table.merge_through_relu
    declared = Declared(table.operators, libraries(table, prepared.source.model), through_relu)
    reading = read_for_relevance(original.graph, original.facts, b, declared)
    targets = resolve_outputs(reading.graph, request.outputs)
    extra = position_input(position, targets[0].tensor, reading.graph)
    if position is not None:
        reading, targets = at_position(original.graph, reading, targets, position, b)
    explained = explained_inputs(reading.graph, reading.facts, request.inputs, targets)
    notes = notes_on_inputs(reading.graph, reading.facts, explained, targets)
    question = Question(table, target, original, reading, targets, explained, extra, notes)
    _refuse_names(reading.graph, question)
    for t in targets:
        check_index(target, t.tensor, reading.graph.shape(t.tensor))
    if target.mode == "top" and len(targets) > 1:
        raise UsageError("top:K explains one output at a time; name one with --output")
    return question


def _names(conversion: Conversion) -> Iterator[str]:
    """The names of further outputs and inputs that are to be added."""
    question = conversion.question
    further = (*conversion.hidden, *(c.name for c in conversion.components))
    sinks = (question.position_name,) if conversion.positions != Positions() else ()
    yield from (question.relevance_name(x, t) for t in question.targets for x in (*question.names, *further, *sinks))
    yield from (mask.name for mask in conversion.masks)


def _refuse_names(graph: Graph, question: Question) -> None:
    """Refuses a model that uses a name which the conversion gives, or by which `strip` finds what was added."""
    outputs = [question.relevance_name(x, t) for t in question.targets for x in question.names]
    _refuse_taken(graph, [*outputs, *_added_inputs(question.targets), LEDGER_OUTPUT])
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


def _added_inputs(targets: Sequence[Explained]) -> list[str]:
    per_output = [f"{name}{suffix(t, len(targets) > 1)}" for t in targets for name in (TARGET_INPUT, SEED_INPUT)]
    return [*per_output, EXPLAIN_INPUT, POSITION_INPUT]


def suffix(explained: Explained, several: bool) -> str:
    """What the names of inputs and outputs added for one of several explained outputs end in."""
    return f"_{explained.name}" if several else ""


def _positions(
    table: RuleTable, reading: Reading, blocks: Sequence[Block], leaves: Sequence[str], targets: Sequence[Explained]
) -> Positions:
    """Where positions come in, as far as the table has them receive relevance."""
    if table.positions != "sink":
        return Positions()
    forward = Paths(reading.graph, leaves, [t.tensor for t in targets]).forward
    return find_positions(reading.graph, reading.facts, blocks, frozenset(forward))
