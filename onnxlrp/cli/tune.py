"""`onnxlrp tune`: search the rule table that a metric likes best for this model and this data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.evaluate_options import case_options, comma_list, data_options, made_options, parse_settings
from onnxlrp.cli.options import json_option, model_argument
from onnxlrp.cli.output import counting, print_json, print_table

if TYPE_CHECKING:
    from onnxlrp.evaluation.tune import Tuned

_SHOWN = 15


@click.command(short_help="Search the rule table that a metric likes best.")
@model_argument
@click.argument("data_path", metavar="DATA")
@click.option("--metric", required=True, metavar="M", help="What is optimised: a metric of evaluate --list, or M.PART.")
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=300, show_default=True, metavar="S", help="How long, in all."
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Try N rule tables at most.")
@click.option(
    "--rules",
    callback=comma_list,
    metavar="A,B,...",
    help="Rule tables that are tried first.  [default: all presets]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=parse_settings,
    metavar="NAME.SETTING=VALUE",
    help="A setting of the metric; may be repeated.",
)
@case_options
@data_options
@click.option("-o", "--out", default="tuned.toml", show_default=True, metavar="FILE", help="The rule table to write.")
@json_option
def tune(
    model: str,
    data_path: str,
    metric: str,
    seconds: float,
    trials: int | None,
    rules: tuple[str, ...],
    data: dict[str, Any],
    image: dict[str, Any],
    case: dict[str, Any],
    out: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Search rules and their parameters for MODEL on DATA, and write the best as a rule table.

    Half of the samples serve the search; on the other half the table that it found is compared with `default`. The
    table goes into `convert --rules`; its comments say how it was found. DATA is as for `onnxlrp evaluate`.
    """
    from onnxlrp.evaluation.evaluate import Options
    from onnxlrp.evaluation.tune import Search
    from onnxlrp.evaluation.tune import tune as search_table
    from onnxlrp.explain.files import write

    options = Options(**asked, **case, rules=rules or ("default",), data=made_options(data, image))
    search = Search(metric, seconds, trials, Path(out).stem)
    with counting("Tuning") as count:
        report = None if count is None else lambda done, total, _what: count(int(done), int(total))
        found = search_table(model, data_path, search, options, report)
    write(Path(out), found.toml.encode())
    if as_json:
        print_json(_as_dict(found, out))
        return
    _print(found)
    click.echo(f"wrote {out}")


def _print(found: Tuned) -> None:
    from onnxlrp.evaluation.tune import verdict

    rows = [
        (t.name, f"{t.mean:.4g}" if math.isfinite(t.mean) else "-", str(len(t.values)), t.failed or t.said)
        for t in found.trials[:_SHOWN]
    ]
    title = f"{found.comparison.title} {found.comparison.arrow}"
    print_table(("table", title, "samples", "rules"), rows, fixed=("table",), right=(title, "samples"))
    if len(found.trials) > _SHOWN:
        click.echo(f"and {len(found.trials) - _SHOWN} more; --json lists all")
    click.echo()
    click.echo(f"{len(found.trials)} rule tables in {found.seconds:.0f} s on {found.tuning} samples.")
    click.echo(f"On {found.held_out} samples that the search has not seen:")
    for cell in found.comparison.cells:
        click.echo(f"  {cell.method}: {cell.mean:.4g} [{cell.low:.4g}, {cell.high:.4g}]")
    click.echo(verdict(found.comparison, found.winner.name))
    for note in found.notes:
        click.echo(f"note: {note}")


def _as_dict(found: Tuned, out: str) -> dict[str, Any]:
    from onnxlrp.evaluation.tune import verdict

    return {
        "table": out,
        "winner": found.winner.name,
        "metric": found.comparison.title,
        "better": found.comparison.better,
        "tuning_samples": found.tuning,
        "held_out_samples": found.held_out,
        "held_out": found.comparison.cells,
        "verdict": verdict(found.comparison, found.winner.name),
        "seconds": found.seconds,
        "tried": [
            {"name": t.name, "mean": t.mean, "samples": len(t.values), "rules": t.said, "failed": t.failed or None}
            for t in found.trials
        ],
        "notes": list(found.notes),
    }
