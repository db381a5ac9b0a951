"""What commands print: results on standard output, progress and warnings on standard error."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

#: A table that is not shown on a terminal has no width to fit; this is more than any line needs.
_UNLIMITED = 100_000

#: Characters between two columns of a table.
_GAP = 3


def print_json(value: Any) -> None:
    """Print a value as JSON; numbers that JSON does not have (nan, inf) become null."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """A value in the types of JSON: dataclasses by field, or as their own `to_dict` says."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def on_terminal() -> bool:
    """Whether a person reads standard output directly."""
    return sys.stdout.isatty()


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    fixed: Sequence[str] = (),
    right: Sequence[str] = (),
    elastic: str = "",
) -> None:
    """A table; on a terminal cells wrap to its width except in `fixed` columns, elsewhere a row is a line.

    Columns named in `right` are aligned to the right. On a terminal the cells of the column `elastic` are
    shortened to the room that the others leave.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, no_wrap=column in (*fixed, elastic), overflow="fold", justify="right" if column in right else "left"
        )
    console = _console()
    cells = [[_one_line(cell) for cell in row] for row in rows]
    if elastic:
        cells = _fitted(columns, cells, columns.index(elastic), console.width)
    for row in cells:
        table.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], elastic: int, width: int) -> list[list[str]]:
    """The rows with the cells of one column shortened to what the others leave of `width`, at least a third."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    others = sum(widths) - widths[elastic] + _GAP * (len(columns) - 1)
    room = max(width - others, width // 3)
    return [[shortened(cell, room) if index == elastic else cell for index, cell in enumerate(row)] for row in rows]


def print_facts(facts: Mapping[str, str | Sequence[str]]) -> None:
    """Aligned `name  value` lines; several values of a name stand below one another, none leaves it out."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        lines = [value] if isinstance(value, str) else value
        for index, line in enumerate(lines):
            click.echo(f"{name if index == 0 else '':<{width}}  {_one_line(line)}")


def print_warnings(warnings: Iterable[str]) -> None:
    """Warnings go to standard error, so that standard output stays what was asked for."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on standard error, if that is a terminal, that something is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, as a function of (done, all); None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def shortened(text: str, width: int) -> str:
    """`text` with its middle left out where it is longer than `width`; the end tells more than the start."""
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def size(count: int) -> str:
    """A number of bytes for reading: `731 B`, `12.3 KiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def quantity(count: int) -> str:
    """A large number for reading: `731`, `4.1 G`."""
    amount = float(count)
    for unit in ("", " k", " M", " G", " T"):
        if abs(amount) < 1000:
            return f"{amount:.0f}" if not unit else f"{amount:.1f}{unit}"
        amount /= 1000
    return f"{amount:.1f} P"


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _console() -> Console:
    from rich.console import Console

    return Console() if on_terminal() else Console(width=_UNLIMITED)
