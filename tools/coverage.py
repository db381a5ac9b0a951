#!/usr/bin/env python3
"""Check every float-to-float case of `onnx.backend.test`, and write docs/COVERAGE.md.

    python tools/coverage.py                        all of them, about ten minutes
    python tools/coverage.py --only 'test_conv*'    some of them; writes no page unless --output is given
    python tools/coverage.py --sample 150           some of every operator

Needs onnxlrp with onnxruntime. Exit code 1: a case is wrong; 2: wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from backend import report, run
from backend.results import Result
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "COVERAGE.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--only", help="Patterns of case names, separated by commas.")
@click.option("--sample", type=click.IntRange(1), help="Check so many cases, spread over all operators.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Page to write. [default: docs/COVERAGE.md where all cases are checked]",
)
@click.option(
    "--json", "stored", type=click.Path(path_type=Path, dir_okay=False), help="Write the result of each case as JSON."
)
@click.option("--verbose", is_flag=True, help="Print every case that is not right, as it is found.")
def coverage(
    only: str | None, sample: int | None, jobs: int, output: Path | None, stored: Path | None, verbose: bool
) -> None:
    """Check the cases of onnx.backend.test, each against finite differences of its own forward pass."""
    names = run.chosen(only.split(",") if only else ("*",), sample)
    if not names:
        raise click.UsageError(f"no case matches {only!r}")
    results = _with_bar(names, jobs, verbose)
    page = output or (None if only or sample else _PAGE)
    if page is not None:
        page.write_text(report.markdown(results), encoding="utf-8")
    if stored is not None:
        stored.write_text(json.dumps([r.as_json() for r in results], indent=1), encoding="utf-8")
    click.echo(report.text(results))
    for path in (page, stored):
        if path is not None:
            click.echo(f"written: {path}")
    sys.exit(1 if any(r.status == "wrong" for r in results) else 0)


def _with_bar(names: list[str], jobs: int, verbose: bool) -> list[Result]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("cases", total=len(names))

        def watch(result: Result) -> None:
            progress.advance(task)
            if verbose and result.status != "right":
                progress.console.print(f"{result.name}: {result.status} {result.reason}", markup=False)

        return run.results(names, jobs, watch)


if __name__ == "__main__":
    coverage()
