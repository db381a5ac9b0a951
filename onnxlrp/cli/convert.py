"""`onnxlrp convert`: write a model with its relevance pass inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import conversion_options, json_option, model_argument
from onnxlrp.cli.output import print_facts, print_json, print_warnings, size, working
from onnxlrp.cli.plan import cost_line
from onnxlrp.emit.inputs import EXPLAIN_INPUT, POSITION_INPUT, SEED_INPUT, TARGET_INPUT

if TYPE_CHECKING:
    from onnxlrp.planning.model import Plan


@click.command(short_help="Write a model with its relevance pass inside.")
@model_argument
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    help="File to write.  [default: MODEL with .lrp.onnx in place of its ending]",
)
@conversion_options
@json_option
def convert(model: str, out: str | None, request: dict[str, Any], as_json: bool) -> None:
    """Write a model that returns the prediction and a relevance map for each explained input.

    MODEL is an ONNX file; it is never changed. For an explained input X the new model has the output
    X_relevance.
    """
    import onnxlrp

    with working(f"Converting {model}"):
        result = onnxlrp.convert_file(model, out, **request)
    if as_json:
        print_json(result)
        return
    plan = result.plan
    print_warnings(result.warnings)
    print_facts(
        {
            "written": str(result.path),
            "relevance": relevance_outputs(plan),
            "added inputs": added_inputs(plan),
            "rule table": plan.rule_table,
            "target": f"{plan.target} of {', '.join(plan.explained_outputs)}",
            "cost": cost_line(plan),
            "file": f"{size(result.grown_bytes)} larger than the model",
            "time": f"{result.seconds:.2f} s",
            "notes": list(result.notes),
        }
    )


def relevance_outputs(plan: Plan) -> list[str]:
    """The relevance output of each explained input, one line each; with several explained outputs, of each of them."""
    further = (*plan.settings.get("relevance_of", ()), *plan.settings.get("component_outputs", ()))
    further += tuple(plan.settings.get("position_outputs", ()))
    names = (*plan.explained_inputs, *further)
    return [f"{name} -> {name}_relevance{suffix}" for suffix, _ in _outputs(plan) for name in names]


def added_inputs(plan: Plan) -> list[str]:
    """The inputs that the converted model has besides the original's, one line each."""
    lines = []
    if plan.target == "input":
        lines += [f"{TARGET_INPUT}{suffix}: int64 [batch, number of indices]" for suffix, _ in _outputs(plan)]
    if plan.target == "seed":
        lines += [f"{SEED_INPUT}{suffix}: float, shaped like {name}" for suffix, name in _outputs(plan)]
    if plan.settings.get("position") == "input":
        lines.append(f"{POSITION_INPUT}: int64 [batch, 1]")
    for mask in plan.settings.get("masks", {}).values():
        channels = mask["channels"] or "channels"
        lines.append(f"{mask['input']}: float [batch, {channels}], along axis {mask['axis']}")
    if plan.settings.get("on_demand"):
        lines.append(f"{EXPLAIN_INPUT}: bool [batch, 1]")
    return lines


def _outputs(plan: Plan) -> list[tuple[str, str]]:
    """Each explained output with the ending that names get from it: none where there is only one."""
    several = len(plan.explained_outputs) > 1
    return [(f"_{name}" if several else "", name) for name in plan.explained_outputs]
