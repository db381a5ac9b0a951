"""`onnxlrp plan`: show which node is treated by which rule, and why. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import conversion_options, json_option, model_argument
from onnxlrp.cli.output import (
    on_terminal,
    print_facts,
    print_json,
    print_table,
    print_warnings,
    quantity,
    working,
)
from onnxlrp.rules.spec import RULES
from onnxlrp.tables.model import METHOD

if TYPE_CHECKING:
    from onnxlrp.planning.model import Plan, PlanStep


@click.command(short_help="Show which rule each node gets, and why.")
@model_argument
@conversion_options
@json_option
def plan(model: str, request: dict[str, Any], as_json: bool) -> None:
    """Show node by node, from the target back to the input, which rule a conversion applies and why.

    A reason names the entry of the rule table that decided, by its line in 'onnxlrp rules NAME' or in your
    file. The cost is what a step adds in multiply-adds, as a multiple of the model's own forward pass. On a
    terminal long names are shortened; in a pipe each step is one line with all its nodes.
    """
    import onnxlrp

    with working(f"Planning {model}"):
        found = onnxlrp.plan(model, **request)
    if as_json:
        print_json(found)
        return
    print_warnings(found.warnings)
    steps = list(_with_inner(found.steps))
    columns = ["operator", "rule", "cost", "nodes", "reason"]
    columns += ["block"] if any(step.block for step, _ in steps) else []
    columns += ["stopped"] if any(step.stopped for step, _ in steps) else []
    rows = [_row(step, found, depth) for step, depth in steps]
    shown = ([row[column] for column in columns] for row in rows)
    print_table(columns, shown, fixed=("cost",), right=("cost",), elastic="nodes")
    click.echo()
    print_facts(
        {
            "rule table": f"{found.rule_table}  (its lines: onnxlrp rules {request.get('rules', 'default')})",
            "method": [f"{key} {found.settings[key]}" for key in METHOD if key in found.settings],
            "target": f"{found.target} of {', '.join(found.explained_outputs)}",
            "explained": [
                *(*found.explained_inputs, *found.settings.get("relevance_of", ())),
                *found.settings.get("component_outputs", ()),
            ],
            "blocks": ", ".join(f"{count} {name}" for name, count in found.blocks.items()),
            "masks": [f"{x}, axis {m['axis']}" for x, m in found.settings.get("masks", {}).items()],
            "steps": str(len(found.steps)),
            "cost": cost_line(found),
            "notes": list(found.notes),
        }
    )


def cost_line(plan: Plan) -> str:
    """The total cost in one line, as a multiple of the forward pass."""
    if plan.cost is None or plan.forward_macs is None or plan.relevance_macs is None:
        return "unknown: the model does not state the shapes that are needed to count"
    return (
        f"{plan.cost:.2f}x the forward pass "
        f"({quantity(plan.forward_macs)} multiply-adds, and {quantity(plan.relevance_macs)} for relevance)"
    )


def _with_inner(steps: Sequence[PlanStep], depth: int = 0) -> Iterator[tuple[PlanStep, int]]:
    """Steps with those inside the bodies of control flow nodes behind them, and how deep they stand."""
    for step in steps:
        yield step, depth
        yield from _with_inner(step.inner, depth + 1)


def _row(step: PlanStep, plan: Plan, depth: int = 0) -> Mapping[str, str]:
    # Below the table its name is said once, which leaves more room on a terminal.
    reason = step.reason.replace(f" of {plan.rule_table}:", ":") if on_terminal() else step.reason
    return {
        "operator": "| " * depth + operator_label(step.operator),
        "rule": rule_label(step.rule, step.parameters),
        "cost": _step_cost(step.relevance_macs, plan.forward_macs),
        "nodes": _names(step.nodes),
        "reason": reason,
        "block": step.block,
        "stopped": "; ".join(step.stopped),
    }


def operator_label(operator: str) -> str:
    """The operators of a step, with room to break a line between them on a terminal."""
    return operator.replace("+", " + ") if on_terminal() else operator


def rule_label(rule: str, parameters: Mapping[str, Any]) -> str:
    """A rule with the parameters that differ from its defaults: `gamma (gamma=0.1)`."""
    spec = RULES.get(rule)
    stated = [
        f"{name}={_value(value)}"
        for name, value in parameters.items()
        if spec is None or name not in spec.parameters or value != spec.parameters[name].default
    ]
    return f"{rule} ({', '.join(stated)})" if stated else rule


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]" if len(value) <= 4 else f"[{len(value)} values]"
    return str(value)


def _step_cost(macs: int | None, forward_macs: int | None) -> str:
    """What the rule adds, as a multiple of the whole model's forward pass."""
    if macs == 0:
        return "-"
    if macs is None or not forward_macs:
        return "?"
    ratio = macs / forward_macs
    return f"{ratio:.2f}x" if ratio >= 0.005 else "<0.01x"


def _names(names: Sequence[str]) -> str:
    """All names, or on a terminal the first one and how many more there are."""
    if not on_terminal() or len(names) < 2:
        return ", ".join(names)
    return f"{names[0]} +{len(names) - 1}"
