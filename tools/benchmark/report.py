"""Results as tables, and the tables as Markdown and on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmark import budgets
from benchmark.results import (
    CONVERTED,
    LEAN,
    OFF,
    ON,
    ORIGINAL,
    PEERS,
    Contest,
    contest_name,
    met,
    peak_ratio,
    ratio,
    seconds,
)
from benchmark.store import Results

_HOW = """\
Each row of the first tables is a contest: the original model, the converted one and, where there is one,
the peers are loaded by a process each (threads of several runtimes in one process disturb one another) and
take turns on the same input, with the same number of threads. A turn is one untimed run and then timed
ones, whose median counts; before it there is a pause in which the threads of the last one fall asleep.
Times are medians over the turns, in milliseconds. *ratio* is converted / original: the median of the ratios
round by round, in brackets the smallest and the largest. With one thread on CPU all times are processor
times. The rules *bound* are no rules: the forward pass and one transposed pass without masks or divisions, as
emitted here (max pooling back by Indices, sums and changes of layout are in it). It scatters like any row.
*counted* is the same as the ratio from multiply-adds alone.

The networks are torchvision's with random weights (of BatchNorm: scales, shifts and statistics too), 224 x
224 pixels, exported with a dynamic batch; `mobilenetv2-7` is the trained one of the ONNX model zoo, with a
fixed batch of 1. `bert-base`, `vit-base` and `gpt2-small` have the shapes of BERT-base, ViT-B/16 and GPT-2
small, random weights too, text of 128 tokens; of GPT-2 the last position is explained. The target is the
most likely class. zennit gets the composite of the same name (for `epsilon`: epsilon in all linear layers)
with the canonizers that the network needs; it has none for DenseNet and for the gates of EfficientNet, so
that there only its time compares, not its result. `gradient-x-input`, and every rule table on transformers,
has PyTorch's plain forward pass and gradient beside it. LXT runs its efficient form of AttnLRP on the same
BERT and GPT-2; of Vision Transformers it has torchvision's ViT-B/16 alone, with CP-LRP in the attention. Peers
take part in fewer rounds. Peak memory is that of the process, loading included, above that after imports. All
sessions are opened with `enable_mem_pattern` off: the block that onnxruntime lays out for a whole run comes on top
of what the first run took. With `session.disable_prepacking` weights are kept once, as they are; otherwise once for
each way in which they are multiplied, which is one way in a forward pass and two in an explanation."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a title. Columns named in `left` are aligned to the left."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[str] = ("model", "rules")


@dataclass(frozen=True)
class _Row:
    """A contest with the words of its name."""

    model: str
    rules: str
    batch: int
    on_demand: bool
    contest: Contest


def _contests(results: Results) -> Iterator[_Row]:
    """All contests, batch by batch, in the order of measuring."""
    rows = []
    for name, contest in results.contests.items():
        model, rules, *rest = name.split(" ")
        rows.append(_Row(model, rules, int(rest[-1]), "on-demand" in rest, contest))
    yield from sorted(rows, key=lambda row: row.batch)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value * 1e3:.1f}"


def _times(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _verdict(value: float | None, limit: float | None) -> str:
    kept = met(value, limit)
    return "" if kept is None else "yes" if kept else "NO"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"


def time_table(results: Results) -> Table:
    """Time of every rule table against the original model's, and its budget."""
    rows = []
    for row in _contests(results):
        if row.on_demand:
            continue
        c = row.contest
        got, limit = ratio(c, CONVERTED), budgets.time_budget(row.model, row.rules)
        conversion = results.conversions.get(f"{row.model} {row.rules}")
        rows.append(
            (
                row.model,
                row.rules,
                str(row.batch),
                _milliseconds(seconds(c, ORIGINAL)),
                _milliseconds(seconds(c, CONVERTED)),
                "failed" if got is None else str(got),
                _times(limit, 1),
                _verdict(got.middle if got else None, limit),
                _times(conversion.cost if conversion else None, 1),
            )
        )
    return Table(
        "Time", ("model", "rules", "batch", "original", "converted", "ratio", "budget", "met", "counted"), rows
    )


def peer_table(results: Results) -> Table:
    """Time and peak memory of the other implementations, beside ours in the same contest."""
    rows = []
    for row in _contests(results):
        c = row.contest
        rows += [
            (
                row.model,
                row.rules,
                str(row.batch),
                peer,
                _milliseconds(seconds(c, CONVERTED)),
                _milliseconds(seconds(c, peer)),
                _peer_ratio(c, peer, CONVERTED),
                _peer_ratio(c, peer, ORIGINAL),
                _megabytes(c.peaks.get(CONVERTED)),
                _megabytes(c.peaks.get(peer)),
            )
            for peer in PEERS
            if peer in c.turns
        ]
    columns = (
        "model",
        "rules",
        "batch",
        "peer",
        "ours",
        "peer's",
        "peer / ours",
        "peer / original",
        "our MB",
        "peer MB",
    )
    return Table("Other implementations", columns, rows, ("model", "rules", "peer"))


def lean_table(results: Results) -> Table:
    """Peak memory and time in sessions that keep weights once, against the original in an ordinary session."""
    rows = []
    for row in _contests(results):
        c = row.contest
        got, limit = peak_ratio(c, LEAN), budgets.memory_budget(row.rules)
        if LEAN in c.turns:
            rows.append(
                (
                    row.model,
                    row.rules,
                    str(row.batch),
                    _megabytes(c.peaks.get(ORIGINAL)),
                    _megabytes(c.peaks.get(LEAN)),
                    _times(got),
                    _times(limit, 1),
                    _verdict(got, limit),
                    _milliseconds(seconds(c, LEAN)),
                    str(ratio(c, LEAN)),
                )
            )
    columns = ("model", "rules", "batch", "original MB", "lean MB", "ratio", "budget", "met", "ms", "time ratio")
    return Table("Peak memory with session.disable_prepacking", columns, rows)


def _peer_ratio(contest: Contest, peer: str, to: str) -> str:
    got = ratio(contest, peer, to)
    return "" if got is None else f"{got.middle:.1f}"


def on_demand_table(results: Results) -> Table:
    """Time of on-demand conversions with relevance off and on."""
    rows = []
    for row in _contests(results):
        if not row.on_demand:
            continue
        c = row.contest
        off, on = ratio(c, OFF), ratio(c, ON)
        plain = results.contests.get(contest_name(row.model, row.rules, row.batch))
        always = ratio(plain, CONVERTED) if plain else None
        rows.append(
            (
                row.model,
                row.rules,
                str(row.batch),
                _milliseconds(seconds(c, ORIGINAL)),
                _milliseconds(seconds(c, OFF)),
                "failed" if off is None else str(off),
                str(budgets.ON_DEMAND_OFF),
                _verdict(off.middle if off else None, budgets.ON_DEMAND_OFF),
                _milliseconds(seconds(c, ON)),
                "failed" if on is None else str(on),
                _times(always.middle if always else None),
            )
        )
    columns = ("model", "rules", "batch", "original", "off", "off ratio", "budget", "met")
    return Table("On demand", (*columns, "on", "on ratio", "ratio without --on-demand"), rows)


def memory_table(results: Results) -> Table:
    """Peak memory of the process above that after imports, loading included."""
    rows = []
    for row in _contests(results):
        if row.on_demand:
            continue
        got, limit = peak_ratio(row.contest, CONVERTED), budgets.memory_budget(row.rules)
        rows.append(
            (
                row.model,
                row.rules,
                str(row.batch),
                _megabytes(row.contest.peaks.get(ORIGINAL)),
                _megabytes(row.contest.peaks.get(CONVERTED)),
                _times(got),
                _times(limit, 1),
                _verdict(got, limit),
            )
        )
    columns = ("model", "rules", "batch", "original MB", "converted MB", "ratio", "budget", "met")
    return Table("Peak memory", columns, rows)


def file_table(results: Results) -> Table:
    """Growth of the file, and the conversion."""
    rows = []
    for name, c in results.conversions.items():
        model, _, rules = name.partition(" ")
        limit = budgets.growth_budget(c.original_bytes)
        rows.append(
            (
                model,
                rules,
                f"{c.original_bytes / 1e6:.1f}",
                f"{c.grown_bytes / 1e3:.0f}",
                f"{100 * c.grown_bytes / c.original_bytes:.2f}",
                f"{limit / 1e3:.0f}",
                _verdict(c.grown_bytes, limit),
                str(c.nodes),
                _times(c.seconds),
                _verdict(c.seconds, budgets.conversion_budget(model)),
                _megabytes(c.peak),
            )
        )
    columns = ("model", "rules", "file MB", "growth kB", "growth %", "limit kB", "met", "nodes added")
    return Table("File and conversion", (*columns, "seconds", "in time", "peak MB"), rows)


def tables(results: Results) -> list[Table]:
    """All tables that have rows."""
    parts = (time_table, on_demand_table, memory_table, lean_table, peer_table, file_table)
    made = [part(results) for part in parts]
    return [table for table in made if table.rows]


def verdicts(table: Table) -> tuple[int, int]:
    """How many budgets of a table are met, and how many there are."""
    cells = [cell for row in table.rows for cell in row if cell in ("yes", "NO")]
    return cells.count("yes"), len(cells)


def summary(results: Results) -> str:
    """One line: budgets met per table."""
    counts = [(table.title.lower(), *verdicts(table)) for table in tables(results)]
    return "Budgets met: " + ", ".join(f"{title} {kept} of {all_}" for title, kept, all_ in counts if all_) + "."


def problems(results: Results) -> list[str]:
    """What could not be measured, and why."""
    found = [f"{name}: {reason}" for name, reason in results.skipped.items()]
    for name, contest in results.contests.items():
        found += [f"{name}, {who}: {reason}" for who, reason in contest.failed.items()]
    return found


def _markdown_table(table: Table) -> list[str]:
    rule = [":--" if column in table.left else "--:" for column in table.columns]
    rows = [table.columns, rule, *table.rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]


def markdown(measured: Sequence[Results]) -> str:
    """The page; one section per machine and provider."""
    lines = ["# Benchmarks", "", "Written by `tools/bench.py`; do not edit.", "", _HOW, ""]
    for results in measured:
        machine, settings = results.machine, results.settings
        place = machine.get("GPU") or machine["processor"]
        lines += [f"## {machine['provider'].upper()}: {place}", ""]
        lines += [f"* {key}: {value}" for key, value in {**machine, **settings}.items()]
        lines += ["", summary(results), ""]
        for table in tables(results):
            lines += [f"### {table.title}", "", *_markdown_table(table), ""]
        found = problems(results)
        if found:
            lines += ["### Not measured", "", *[f"* {line}" for line in found], ""]
    return "\n".join(lines)


def show(results: Results, console: Console) -> None:
    """The tables on the screen, broken budgets in red."""
    for table in tables(results):
        print_table(table, console)
    for line in problems(results):
        console.print(Text(f"not measured: {line}", style="yellow"))
    console.print(summary(results))


def print_table(table: Table, console: Console) -> None:
    """One table on the screen."""
    rich = RichTable(box=SIMPLE_HEAD, title=table.title, title_justify="left", pad_edge=False)
    for column in table.columns:
        rich.add_column(column, justify="left" if column in table.left else "right")
    for row in table.rows:
        rich.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    console.print(rich)


def _style(cell: str) -> str:
    return {"yes": "green", "NO": "bold red", "failed": "bold red"}.get(cell, "")
