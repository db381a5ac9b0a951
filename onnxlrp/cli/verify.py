"""`onnxlrp verify`: prove the promises on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import json_option, model_argument, request_options
from onnxlrp.cli.output import on_terminal, plain, print_json, print_table, shortened, working
from onnxlrp.errors import UsageError, VerificationError

if TYPE_CHECKING:
    import numpy as np

_NAME_WIDTH = 36


@click.command(short_help="Prove the promises on one model.")
@model_argument
@click.argument("data", required=False, metavar="[DATA]")
@request_options
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many samples to use where no DATA is given.",
)
@json_option
def verify(model: str, data: str | None, request: dict[str, Any], samples: int | None, as_json: bool) -> None:
    """Prove the promises on this model: forward equality, finite values, the ledger, batch independence.

    MODEL may be an original or a converted one. DATA is an .npz file with one array per input, batch axis
    first; without it random samples are used. Exits with 5 when a check fails.
    """
    if data is not None and samples is not None:
        raise click.UsageError("--samples is for random data; with DATA all of its samples are used")
    arrays = None if data is None else read_arrays(data)
    from onnxlrp.verification import verify as verify_model

    if samples is not None:
        request = {**request, "samples": samples}
    with working(f"Verifying {model}"):
        report = verify_model(model, arrays, **request)
    if as_json:
        print_json({**plain(report), "passed": report.passed})
    else:
        _print_report(report)
    failed = [check.name for check in report.checks if not check.passed]
    if not report.passed:
        raise VerificationError(
            f"{model}: {len(failed)} of {len(report.checks)} checks failed: {', '.join(failed)}"
        )


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises UsageError for any other file."""
    import zipfile

    import numpy as np

    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(
                f"{path} holds a single array; save it by its input's name: numpy.savez(file, NAME=array)"
            )
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
                "ok" if check.passed else "FAILED",
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
    numbers = ("relevance in", "out", "bias", "stabiliser", "stopped", "gap")
    click.echo("\nNodes whose ledger has the widest gaps:")
    print_table(
        ("node", "operator", "rule", *numbers),
        (
            (
                shortened(row.node, _NAME_WIDTH) if on_terminal() else row.node,
                row.operator,
                row.rule,
                *map(
                    _number,
                    (row.relevance_in, row.relevance_out, row.bias, row.stabiliser, row.stopped, row.gap),
                ),
            )
            for row in report.worst
        ),
        fixed=("operator", *numbers),
        right=numbers,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
