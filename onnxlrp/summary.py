"""The plan of a conversion as users see it, and what the converted model says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from onnxlrp.check import metadata
from onnxlrp.emit.conversion import Emission
from onnxlrp.operators.registry import find
from onnxlrp.planning.concepts import Mask
from onnxlrp.planning.conversion import Conversion
from onnxlrp.planning.model import Plan
from onnxlrp.planning.position import parse_position
from onnxlrp.planning.program import Planner, unused_entries
from onnxlrp.planning.report import count_blocks, plan_steps, totals
from onnxlrp.planning.target import Explained
from onnxlrp.read.prepare import Prepared
from onnxlrp.request import Request
from onnxlrp.tables import RuleTable
from onnxlrp.tables.model import method_settings
from onnxlrp.understand.declared import as_text, libraries, unused_declarations
from onnxlrp.version import VERSION


def summarise(prepared: Prepared, conversion: Conversion, emission: Emission) -> Plan:
    """The plan, with what the nodes that were emitted cost."""
    question, request = conversion.question, conversion.request
    graph, table, targets = question.reading.graph, question.table, question.targets
    steps = tuple(s for program in conversion.programs for s in program.steps)
    rows = plan_steps(graph, steps, emission.nodes, question.reading.facts, conversion.blocks, question.target.k or 1)
    forward, added = totals(graph, rows)
    if request.on_demand and forward is not None and added is not None:
        # The branch runs the forward pass once more.
        added += forward
    return Plan(
        rule_table=table.name,
        target=str(question.target),
        explained_inputs=question.names,
        explained_outputs=tuple(t.name for t in targets),
        steps=rows,
        blocks=count_blocks(steps, conversion.blocks),
        warnings=(*unused_declarations(table, prepared.model), *unused_entries(table, conversion.planners)),
        notes=_notes(table, prepared, targets, question.notes, conversion.planners),
        forward_macs=forward,
        relevance_macs=added,
        settings=_plan_settings(conversion, emission),
    )


def describe(prepared: Prepared, conversion: Conversion, emission: Emission, plan: Plan) -> metadata.Metadata:
    """What is written into the converted model."""
    question = conversion.question
    first = question.targets[0]
    return metadata.Metadata(
        version=VERSION,
        rules=question.table.name,
        target=str(question.target),
        relevance={x: emission.names[x, first.name] for x in question.names},
        explained_output=first.returned,
        settings=_settings(
            question.table,
            conversion.request,
            plan,
            emission.names,
            len(question.targets) > 1,
            prepared.source.model,
        ),
    )


def _plan_settings(conversion: Conversion, emission: Emission) -> dict[str, Any]:
    question, request = conversion.question, conversion.request
    first, names = question.targets[0].name, emission.names
    return {
        "on_demand": request.on_demand,
        "relevance_type": request.relevance_type,
        "output": question.table.output,
        **method_settings(question.table),
        "position": None if request.position is None else str(parse_position(request.position)),
        **_concept_settings({x: names[x, first] for x in conversion.hidden}, conversion.masks),
        **_position_settings(question.position_name, names.get((question.position_name, first))),
        **_component_settings(request, {c.name: names[c.name, first] for c in conversion.components}),
    }


def _concept_settings(hidden: Mapping[str, str], masks: Sequence[Mask]) -> dict[str, Any]:
    """What plans and metadata say of hidden tensors: the outputs with their relevance, and their masks."""
    stated = {m.tensor: {"input": m.name, "axis": m.axis, "channels": m.channels} for m in masks}
    return {**({"relevance_of": dict(hidden)} if hidden else {}), **({"masks": stated} if masks else {})}


def _component_settings(request: Request, outputs: Mapping[str, str]) -> dict[str, Any]:
    """What plans and metadata say of heads and neurons: the kinds that were asked for, and the output of each layer."""
    return {"components": list(request.components), "component_outputs": dict(outputs)} if outputs else {}


def _position_settings(name: str, output: str | None) -> dict[str, Any]:
    """What plans and metadata say of positions: the output with their relevance."""
    return {} if output is None else {"position_outputs": {name: output}}


def _notes(
    table: RuleTable,
    prepared: Prepared,
    targets: Sequence[Explained],
    of_inputs: Sequence[str],
    planners: Sequence[Planner],
) -> tuple[str, ...]:
    """What there is to say of the table, the model as it was read, targets and inputs, and of where relevance ends."""
    of_table = (table.note,) if table.note else ()
    of_targets = (note for t in targets for note in t.notes)
    return (*of_table, *prepared.notes, *of_targets, *of_inputs, *_ends(planners))


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
