"""`onnxlrp verify`: prove the promises on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import json_option, model_argument, provider_option, request_options
from onnxlrp.cli.output import plain, print_json, print_table, working
from onnxlrp.errors import UsageError, VerificationError

if TYPE_CHECKING:
    import numpy as np


@click.command(short_help="Prove the promises on one model.")
@model_argument
@click.argument("data", required=False, metavar="[DATA]")
@request_options
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many samples to use where no DATA is given.  [default: 2]",
)
@provider_option
@json_option
def verify(
    model: str,
    data: str | None,
    request: dict[str, Any],
    samples: int | None,
    providers: list[str] | None,
    as_json: bool,
) -> None:
    """Prove the promises on this model: forward equality, finite values, the ledger, batch independence.

    MODEL may be an original or a converted one. DATA is an .npz file with one array per input, batch axis
    first; without it random samples are used. Below the checks stand the nodes whose ledger has the widest
    gaps: how much relevance arrived, how much of it was passed on, absorbed by bias and stabiliser, or stopped on
    purpose; the gap is what is left unexplained, relative to all that arrived. Exits with 5 when a check fails.
    """
    if data is not None and samples is not None:
        raise click.UsageError("--samples is for random data; with DATA all of its samples are used")
    arrays = None if data is None else read_arrays(data)
    from onnxlrp.verification import verify as verify_model

    if samples is not None:
        request = {**request, "samples": samples}
    with working(f"Verifying {model}"):
        report = verify_model(model, arrays, providers=providers, **request)
    if as_json:
        print_json({**plain(report), "passed": report.passed})
    else:
        _print_report(report)
        if report.passed:
            click.echo(f"\n{model}: every check that applies has passed")
    failed = [check.name for check in report.checks if not check.passed]
    if not report.passed:
        raise VerificationError(f"{model}: {len(failed)} of {len(report.checks)} checks failed: {', '.join(failed)}")


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises UsageError for any other file."""
    import zipfile

    import numpy as np

    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} holds a single array; save it by its input's name: numpy.savez(file, NAME=array)")
        with archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an .npz file of plain arrays: {error}") from error


def _print_report(report: Any) -> None:
    print_table(
        ("check", "result", "value", "limit", "detail"),
        (
            (
                check.name,
                _result(check),
                _number(check.value),
                _number(check.limit),
                check.detail,
            )
            for check in report.checks
        ),
        fixed=("check", "result", "value", "limit"),
        right=("value", "limit"),
    )
    if not report.worst:
        return
    click.echo("\nNodes whose ledger has the widest gaps:")
    print_table(
        ("gap", "node", "rule", "arrived", "where it went"),
        (
            (
                _number(row.gap),
                row.node,
                row.rule,
                _number(row.relevance_in),
                ", ".join(f"{where} {_number(amount)}" for where, amount in _went(row) if amount),
            )
            for row in report.worst
        ),
        fixed=("gap", "arrived"),
        right=("gap", "arrived"),
        elastic="node",
    )


def _went(row: Any) -> tuple[tuple[str, float], ...]:
    """Where a node's relevance went, and how much of it."""
    return (
        ("passed on", row.relevance_out),
        ("bias", row.bias),
        ("stabiliser", row.stabiliser),
        ("other", row.other),
        ("stopped", row.stopped),
    )


def _result(check: Any) -> str:
    if not check.passed:
        return "FAILED"
    return "-" if check.value is None else "ok"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
