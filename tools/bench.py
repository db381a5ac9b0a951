#!/usr/bin/env python3
"""Measure converted models against the originals, and write docs/BENCHMARKS.md.

    python tools/bench.py --quick                         one model, a minute
    python tools/bench.py                                 everything; goes on where it was cut off
    python tools/bench.py --models resnet50 --batch 1     a part of it
    python tools/bench.py --models bert-base,vit-base,gpt2-small --lxt lxt/bin/python    the transformers
    python tools/bench.py --provider cuda --results benchmarks-cuda.json --with-results benchmarks.json
    python tools/bench.py --profile resnet50 epsilon-plus

Needs onnxlrp with onnxruntime. torch, torchvision, transformers and onnxscript export the networks; with zennit
installed too it is measured beside. LXT needs an environment of its own, with torch, transformers==4.52.4 and
lxt==2.1; --lxt names its interpreter. Exit code 1: nothing could be measured; 2: wrong usage.
"""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
from benchmark import machine, measure, models, profiling, report, store
from benchmark.bound import BOUND
from benchmark.contest import Rounds
from benchmark.process import WorkerError, in_own_process
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

QUICK_RULES = ("epsilon", "epsilon-plus")
_CACHE = machine.REPOSITORY / "models" / "cache" / "benchmark"


class _Bar(measure.Watcher):
    """A progress bar with what is being done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("")

    def begin(self, steps: int) -> None:
        self._progress.update(self._task, total=steps)

    def now(self, what: str) -> None:
        self._progress.update(self._task, description=what)
        if not self._progress.console.is_terminal:
            self._progress.console.print(what)

    def step(self, count: int = 1) -> None:
        self._progress.advance(self._task, count)


def _words(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """A list of words parted by commas."""
    return None if value is None else tuple(word for word in value.split(",") if word)


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """A list of positive numbers parted by commas."""
    words = value.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise click.BadParameter(f"{value!r} is not a list like 1,8")
    return tuple(int(word) for word in words)


def _interpreter(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A program that can be started, or nothing."""
    if value and shutil.which(value) is None:
        raise click.BadParameter(f"there is no program {value!r}")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--models",
    "names",
    callback=_words,
    help=f"Names of torchvision networks, {', '.join((*models.TRANSFORMERS, *models.FETCHED))}, or .onnx files.",
)
@click.option(
    "--rules",
    callback=_words,
    help=f"Rule tables, or {BOUND}. [default: {','.join(models.RULES)};"
    f" for transformers {','.join(models.TRANSFORMER_RULES)}]",
)
@click.option("--batch", "batches", callback=_numbers, default="1,8", show_default=True, help="Batch sizes.")
@click.option("--on-demand", help="Rule table measured on demand; - for none. [default: default; attnlrp]")
@click.option("--no-peer", is_flag=True, help="Leave zennit and PyTorch out.")
@click.option(
    "--lxt",
    metavar="PYTHON",
    callback=_interpreter,
    default="",
    help="Measure LXT beside attnlrp, with this interpreter: LXT asks for an older transformers.",
)
@click.option("--lean", is_flag=True, help="Measure sessions that keep weights once (disable_prepacking), too.")
@click.option("--provider", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option("--exporter", type=click.Choice(["dynamo", "torchscript"]), default="dynamo", show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=Rounds.number,
    show_default=True,
    help="Turns of each program.",
)
@click.option(
    "--seconds", type=click.FloatRange(0), default=Rounds.seconds, show_default=True, help="Length of a turn."
)
@click.option(
    "--quick",
    is_flag=True,
    help="One small model, batch 1, few rounds; writes no page unless --output is given.",
)
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), default=_CACHE, help="Exported models.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file of results, kept and resumed.",
)
@click.option("--fresh", is_flag=True, help="Forget the results that are there.")
@click.option(
    "--with-results",
    "others",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Results of another machine or provider, added to the page. Repeatable.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Page to write. [default: docs/BENCHMARKS.md]",
)
@click.option("--report-only", is_flag=True, help="Measure nothing; write the page from the results.")
@click.option(
    "--profile",
    nargs=2,
    metavar="MODEL RULES",
    help="Show where the time goes, by operator, and measure nothing else.",
)
def bench(
    names: tuple[str, ...] | None,
    rules: tuple[str, ...] | None,
    batches: tuple[int, ...],
    on_demand: str | None,
    no_peer: bool,
    lxt: str,
    lean: bool,
    provider: str,
    threads: int,
    exporter: str,
    rounds: int,
    seconds: float,
    quick: bool,
    cache: Path,
    results: Path | None,
    fresh: bool,
    others: tuple[Path, ...],
    output: Path | None,
    report_only: bool,
    profile: tuple[str, str] | None,
) -> None:
    """Measure converted models against the originals, each in a process of its own, in turn."""
    choice = measure.Choice(
        models=names or (*models.NETWORKS, *models.FETCHED, *models.TRANSFORMERS),
        rules=rules or None,
        batches=batches,
        on_demand="" if on_demand == "-" else on_demand,
        peer=not no_peer and measure.peers_installed(),
        lxt=lxt,
        lean=lean,
        provider=provider,
        threads=threads,
        exporter=exporter,
        cache=cache,
        rounds=Rounds(number=rounds, seconds=seconds),
    )
    if profile:
        _profile(choice, *profile)
        return
    path = results or cache / ("quick.json" if quick else f"results-{provider}.json")
    if quick:
        choice = _quick(choice, names, rules)
    try:
        known = (
            store.read(path) if report_only else store.resume(path, machine.describe(provider, threads), fresh or quick)
        )
        added = [store.read(other) for other in others]
    except store.StoreError as error:
        raise click.UsageError(str(error)) from None
    measured = known if report_only else _measure(choice, known, path)
    measured = measured.current()
    report.show(measured, Console())
    page = output or (None if quick else machine.REPOSITORY / "docs" / "BENCHMARKS.md")
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(report.markdown([measured, *(other.current() for other in added)]), encoding="utf-8")
        click.echo(f"written: {page}")
    click.echo(f"results: {path}")
    if not any(contest.turns for contest in measured.contests.values()):
        sys.exit(1)


def _quick(choice: measure.Choice, names: tuple[str, ...] | None, rules: tuple[str, ...] | None) -> measure.Choice:
    return replace(
        choice,
        models=names or (str(models.small_model(choice.cache, choice.exporter).path),),
        rules=rules or QUICK_RULES,
        batches=(1,),
        rounds=Rounds(number=3, slow=2, seconds=0.3),
    )


def _measure(choice: measure.Choice, known: store.Results, path: Path) -> store.Results:
    settings = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["tools/bench.py", *sys.argv[1:]]),
        "rounds": f"{choice.rounds.number}, {choice.rounds.slow} for slow peers",
        "turn": f"about {choice.rounds.seconds} s",
        "exporter": choice.exporter,
        "source": machine.source_digest(),
    }
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        return measure.run(choice, replace(known, settings=settings), path, _Bar(progress))


def _spent(choice: measure.Choice, path: Path, batch: int) -> list[profiling.Spent]:
    asked = {"path": str(path), "provider": choice.provider, "threads": choice.threads, "batch": batch}
    return [profiling.Spent(**each) for each in in_own_process("profile", **asked)["spent"]]


def _profile(choice: measure.Choice, name: str, rules: str) -> None:
    console = Console()
    batch = choice.batches[0]
    try:
        model = models.obtain(name, choice.cache, choice.exporter)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "converted.onnx"
            asked = {
                "path": str(model.path),
                "out": str(out),
                "rules": rules,
                "on_demand": False,
                "position": model.position,
            }
            in_own_process("convert", **asked)
            for path, what in ((model.path, "original"), (out, f"converted with {rules}")):
                spent = _spent(choice, path, batch)
                title = f"{model.name}, {what}, batch {batch}, {choice.threads} threads, time of one run"
                report.print_table(profiling.table(spent, title), console)
    except (models.ModelError, WorkerError) as error:
        raise click.UsageError(str(error)) from None


if __name__ == "__main__":
    bench()
