"""`onnxlrp evaluate`: how good are the explanations of rule tables and baselines for this model and this data?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.evaluate_options import case_options, comma_list, data_options, made_options, parse_settings
from onnxlrp.cli.options import json_option, model_argument
from onnxlrp.cli.output import counting, print_json, print_table

if TYPE_CHECKING:
    from onnxlrp.evaluation.evaluate import Evaluation
    from onnxlrp.evaluation.summary import Cell


def _list_all(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from onnxlrp.evaluation.methods import baselines
    from onnxlrp.evaluation.registry import metrics

    def settings(given: Any) -> str:
        return ", ".join(f"{key}={value}" for key, value in given.items())

    rows = [(m.name, ", ".join(m.needs), settings(m.settings), m.summary) for m in metrics().values()]
    print_table(("metric", "needs", "settings", "what it measures"), rows, fixed=("metric",))
    click.echo()
    print_table(
        ("baseline", "settings", "what it does"),
        [(b.name, settings(b.settings), b.summary) for b in baselines().values()],
        fixed=("baseline",),
    )
    ctx.exit()


@click.command(short_help="Measure how good the explanations of rule tables and baselines are.")
@model_argument
@click.argument("data_path", metavar="DATA")
@click.option(
    "--rules",
    default="default",
    show_default=True,
    callback=comma_list,
    metavar="A,B,...",
    help="Rule tables: presets or .toml files.",
)
@click.option(
    "--baselines",
    default="random",
    show_default=True,
    callback=comma_list,
    metavar="A,B,...",
    help="Methods without a rule table, for comparison; see --list. An empty text for none.",
)
@click.option(
    "--metrics",
    callback=comma_list,
    metavar="A,B,...",
    help="What is measured; see --list.  [default: a few that the data allows]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=parse_settings,
    metavar="NAME.SETTING=VALUE",
    help="A setting of a metric or a baseline, such as occlusion.patch=16; may be repeated.",
)
@case_options
@data_options
@click.option(
    "--results",
    metavar="FILE",
    help="Keep each result here as a line of JSON; a run that was stopped goes on, and what is known is not computed "
    "again.  [default: MODEL.evaluation.jsonl in this folder]",
)
@click.option("--fresh", is_flag=True, help="Throw away what the file of results holds.")
@click.option("--csv", "csv_path", metavar="FILE", help="Write every number as CSV.")
@click.option("--html", "html_path", metavar="FILE", help="Write a report with plots and example maps.")
@click.option(
    "--examples", type=click.IntRange(min=0), default=4, show_default=True, help="How many samples the report shows."
)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_all, help="List metrics and baselines."
)
@json_option
def evaluate(
    model: str,
    data_path: str,
    data: dict[str, Any],
    image: dict[str, Any],
    case: dict[str, Any],
    results: str | None,
    csv_path: str | None,
    html_path: str | None,
    examples: int,
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure how good the explanations of MODEL on DATA are, for rule tables and for baselines.

    DATA is a folder of photos (with --truth, or with one folder for each class, or arranged like Pascal VOC), a table
    (.csv), arrays (.npz: x or the inputs by name, y, marked) or texts (.jsonl: text, label, marked). MODEL is an
    original model. Each number is a mean over the samples with its 95 % interval; * marks the best method, ~ those
    whose difference to it may be chance.
    """
    from onnxlrp.evaluation.evaluate import Options
    from onnxlrp.evaluation.evaluate import evaluate as judge

    kept = Path(results or f"{Path(model).stem}.evaluation.jsonl")
    options = Options(**asked, **case, results=kept, data=made_options(data, image))
    with counting("Evaluating") as count:
        found = judge(model, data_path, options, None if count is None else _labelled(count))
    if csv_path is not None:
        from onnxlrp.evaluation.tabular import write_csv

        write_csv(Path(csv_path), found)
    if html_path is not None:
        from onnxlrp.evaluation.report import write_report

        write_report(Path(html_path), found, examples)
    if as_json:
        from onnxlrp.evaluation.tabular import as_dict

        print_json(as_dict(found))
        return
    _print(found)
    for path in filter(None, (csv_path, html_path)):
        click.echo(f"wrote {path}")


def _labelled(count: Any) -> Any:
    return lambda done, total, _what: count(done, total)


def _print(found: Evaluation) -> None:
    """Methods and metrics in rows and columns, the fewer of them as columns."""
    titles = [f"{line.title} {line.arrow}" for line in found.lines]
    cells = [[cell_text(cell) for cell in line.cells] for line in found.lines]
    if len(found.methods) < len(titles):
        rows = [[title, *texts] for title, texts in zip(titles, cells, strict=True)]
        print_table(("metric", *found.methods), rows, fixed=("metric",))
    else:
        by_method = zip(found.methods, *cells, strict=True)
        print_table(("method", *titles), [list(row) for row in by_method], fixed=("method",))
    click.echo()
    click.echo(
        f"{found.outcome.samples} samples; mean [95 % interval]; "
        "↑ higher is better, ↓ lower; * best, ~ may be level with it"
    )
    for note in found.notes:
        click.echo(f"note: {note}")


def cell_text(cell: Cell) -> str:
    """`0.123 [0.11, 0.14] *`."""
    from onnxlrp.evaluation.summary import short

    if not cell.count:
        return "-"
    mark = " *" if cell.best else " ~" if cell.level else ""
    spread = f" [{short(cell.low)}, {short(cell.high)}]" if cell.count > 1 else ""
    return f"{short(cell.mean)}{spread}{mark}"
