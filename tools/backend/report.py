"""The results in words: docs/COVERAGE.md, and a short form for the terminal."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from backend.check import LEDGER_LIMIT, LEDGERS, RUNTIME_LIMITS, SLOPE_LIMIT
from backend.results import Result, Status
from onnxlrp.version import VERSION

_STATUSES: tuple[Status, ...] = ("right", "wrong", "refused", "nothing")

_ABOUT = f"""\
Every case of `onnx.backend.test` that has a tensor of floats among its inputs and among its outputs is converted with
all its float inputs and all its float outputs explained, and a random seed on each output. `_expanded` twins, in which
an operator is written as the body of its function, are counted as cases of that operator.

A case is **right** when all of this holds, at inputs that were moved a little so that there are no ties and zeros:

* Under `gradient-x-input`, the relevance of each explained input, divided by the input, agrees with central differences
  of `sum(seed * output)` of the *original* model to a relative error of {SLOPE_LIMIT:.0e}, along each axis of a small
  input and along random directions of a larger one. Both run in float64, by `onnx.reference`.
* The outputs of the original model are what they were: in float64, and in onnxruntime without and with graph
  optimisation where it has the kernels.
* onnxruntime computes the same relevance in the model's own precision (relative L2 distance up to
  {RUNTIME_LIMITS[onnx.TensorProto.FLOAT][1]:g} in float32).
* Under {" and ".join(f"`{name}`" for name in LEDGERS)} the ledger of every step closes to {LEDGER_LIMIT:.0e} of the
  relevance that arrived, and every value is finite, at the case's own inputs (zeros, ties and all) too.
* Where the outputs are affine in an input, LRP-0 of that input is the input times the transposed matrix, which
  differences give.

**Refused**: the conversion stops, and says why. **Nothing**: no output changes with a float input, which differences
confirm and the conversion says; there is nothing to explain. **Wrong**: anything else.
"""


def totals(results: Iterable[Result]) -> Mapping[str, int]:
    """How many cases have each status."""
    counted = Counter(r.status for r in results)
    return {status: counted[status] for status in _STATUSES}


def reason_of(result: Result) -> str:
    """The reason of a refusal or failure without the names of this case's nodes, so that equal reasons are equal."""
    lines = result.reason.splitlines()
    text = lines[1] if len(lines) > 1 and "in the way" in lines[0] else " ".join(lines)
    text = re.sub(r"^\s*\S+ \((\S+)\): ", r"\1: ", text)
    return text.split("; ")[0].strip()


def versions() -> str:
    return (
        f"onnxlrp {VERSION}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, "
        f"numpy {np.__version__}, Python {platform.python_version()}"
    )


def markdown(results: Sequence[Result]) -> str:
    """docs/COVERAGE.md."""
    counts = totals(results)
    share = 100 * counts["refused"] / max(len(results), 1)
    parts = [
        "# Coverage of the standard",
        "<!-- Written by tools/coverage.py. -->",
        _ABOUT.rstrip(),
        "## Totals",
        _table(
            ("cases", *_STATUSES, "refused, share"),
            [(str(len(results)), *(str(counts[s]) for s in _STATUSES), f"{share:.1f} %")],
        ),
        f"Versions: {versions()}.",
        _runtimes(results),
        "## By operator",
        _table(("operator", "cases", *_STATUSES), _operator_rows(results)),
    ]
    for status, title in (("wrong", "Wrong"), ("refused", "Refused")):
        rows = _reason_rows(results, status)
        if rows:
            parts += [f"## {title}", _table(("operator", "cases", "reason", "for example"), rows)]
    left = _left_out_rows(results)
    if left:
        parts += [
            "## What is not explained in right cases",
            "Float inputs that change the output and receive no relevance of their own (parameters rather than data), "
            "and outputs that cannot be explained together with the first.",
            _table(("operator", "cases", "left out"), left),
        ]
    parts += ["## Largest errors", _table(("check", "times made", "largest relative error"), _worst_rows(results))]
    return "\n\n".join(parts) + "\n"


def _runtimes(results: Sequence[Result]) -> str:
    ran = [r for r in results if r.runtime]
    own = sum(r.runtime == "onnxruntime" for r in ran)
    other = sum(r.runtime.startswith("onnxruntime (") for r in ran)
    return (
        f"Of {len(ran)} cases that were run, onnxruntime ran {own} beside the float64 reference, and {other} more in "
        f"which it computes something else than the reference; {len(ran) - own - other} originals it cannot run "
        "(newer opsets than it knows, or no kernel)."
    )


def _operator_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.operator, []).append(result)
    return [
        (op, str(len(group)), *(str(totals(group)[s] or "") for s in _STATUSES))
        for op, group in sorted(groups.items(), key=lambda item: ("." in item[0], item[0]))
    ]


def _reason_rows(results: Sequence[Result], status: Status) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.status == status:
            groups.setdefault((result.operator, reason_of(result)), []).append(result)
    return [(op, str(len(group)), reason, f"`{group[0].name}`") for (op, reason), group in sorted(groups.items())]


def _left_out_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    groups = Counter((r.operator, each) for r in results if r.status == "right" for each in r.left_out)
    return [(op, str(count), each) for (op, each), count in sorted(groups.items())]


def _worst_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    right = [r for r in results if r.status == "right"]
    names = dict.fromkeys(name for r in right for name in r.checks)
    return [
        (
            name,
            str(sum(r.checks.get(name, 0) for r in right)),
            f"{max(r.worst.get(name, 0.0) for r in right):.1e}" if any(name in r.worst for r in right) else "",
        )
        for name in names
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)


def text(results: Sequence[Result]) -> str:
    """What a terminal shows: totals, then each reason with how often it is given."""
    counts = totals(results)
    lines = [", ".join(f"{counts[s]} {s}" for s in _STATUSES) + f" of {len(results)} cases"]
    for status in ("wrong", "refused"):
        for op, count, reason, example in _reason_rows(results, status):
            lines.append(f"{status}  {op}  {count}  {reason}  ({example.strip('`')})")
    return "\n".join(lines)
