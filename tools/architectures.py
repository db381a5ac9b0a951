#!/usr/bin/env python3
"""Convert networks of torchvision and timm as both exporters of torch write them, and write docs/ARCHITECTURES.md.

    python tools/architectures.py                                   all of them (hours); goes on where it was cut off
    python tools/architectures.py --group timm --group segmentation
    python tools/architectures.py --only 'resnet*,vgg11' --fresh    some of them, measured again
    python tools/architectures.py --report-only                     write the page from the results that are there

Smallest networks first, each in a process of its own on one thread. An export that takes longer than --minutes, or
more memory than --memory, is cut off and counts as neither converted nor failed; --retry measures it again.

Needs onnxlrp with onnxruntime, torch, torchvision, timm and onnxscript. Exit code 1: a network that was exported was
not converted, or its ledger does not close.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from zoo import report, store
from zoo.export import EXPORTERS
from zoo.isolated import Job, Limits, isolated
from zoo.measure import rows_of_job
from zoo.networks import networks
from zoo.order import smallest_first
from zoo.row import Row

_REPOSITORY = Path(__file__).resolve().parents[1]
_RESULTS = _REPOSITORY / "models" / "cache" / "architectures.jsonl"
_PAGE = _REPOSITORY / "docs" / "ARCHITECTURES.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--only", default="*", help="Patterns of network names, separated by commas.")
@click.option("--group", "groups", multiple=True, type=click.Choice(report.GROUPS), help="Repeatable; all by default.")
@click.option("--exporter", type=click.Choice(EXPORTERS), help="One exporter instead of both.")
@click.option("--rules", default="epsilon-plus", show_default=True, help="Rule table.")
@click.option("--size", type=click.IntRange(16), help="Height and width in pixels instead of the smallest that works.")
@click.option("--dynamic", type=click.Choice(["batch", "all"]), default="batch", show_default=True)
@click.option(
    "--results", type=click.Path(path_type=Path, dir_okay=False), default=_RESULTS, help="JSON lines, kept and resumed."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=_PAGE, help="Page to write.")
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@click.option("--retry", is_flag=True, help="Measure again what failed before.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="For one export.")
@click.option("--memory", type=click.IntRange(1), help="GiB of address space for one network; no limit by default.")
@click.option("--report-only", is_flag=True, help="Measure nothing.")
def main(
    only: str,
    groups: tuple[str, ...],
    exporter: str | None,
    rules: str,
    size: int | None,
    dynamic: str,
    results: Path,
    output: Path,
    fresh: bool,
    retry: bool,
    minutes: float,
    memory: int | None,
    report_only: bool,
) -> None:
    """Export, convert and verify; one line per export, then a page of all results."""
    console = Console(width=200, highlight=False)
    wanted = (exporter,) if exporter else EXPORTERS
    limits = Limits(minutes * 60, memory, niceness=19)
    chosen = [] if report_only else networks(only.split(","), groups)
    known = {(r.group, r.name, r.exporter) for r in store.read(results) if r.rules == rules and (r.passed or not retry)}
    left = [n for n in chosen if fresh or any((n.group, n.name, e) not in known for e in wanted)]
    for network in smallest_first(left):
        # Maps are compared, so that both exports are made where one is missing.
        job = Job(replace(network, size=size or network.size), wanted, rules, dynamic)
        for row in isolated(job, rows_of_job, limits):
            store.append(results, [row])
            console.print(_line(row), markup=False, soft_wrap=True)
    found = store.read(results)
    measured = {(r.group, r.name) for r in found}
    unmeasured = [n for n in networks() if (n.group, n.name) not in measured]
    output.write_text(report.markdown(found, unmeasured), encoding="utf-8")
    console.print(f"written: {output}")
    sys.exit(1 if any(r.stage in ("convert", "verify") for r in found) else 0)


def _line(row: Row) -> str:
    numbers = (row.forward, row.ledger, row.batch, row.apart)
    cells = [row.group, row.name, row.exporter, str(row.nodes), f"{row.seconds:.1f} s", *map(report.number, numbers)]
    return "  ".join(c for c in cells if c) + (f"  {row.stage}: {row.reason}" if row.reason else "")


if __name__ == "__main__":
    main()
