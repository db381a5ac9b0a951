#!/usr/bin/env python3
"""Measure rule tables against baselines on real models and write docs/EVALUATION.md.

    python tools/evaluation.py                      everything
    python tools/evaluation.py digits --samples 50  some of it, without writing the page (--out FILE writes one)

Models and data come from models/MANIFEST.toml and are fetched where they are missing. Results are kept in
models/cache/evaluation: a run that was stopped goes on, and one that has nothing new to compute only writes the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evaluated.page import Measured, page
from evaluated.subjects import CACHE, ROOT, SUBJECTS, Subject

from onnxlrp.errors import OnnxLrpError
from onnxlrp.evaluation.evaluate import Evaluation, Options, evaluate
from onnxlrp.evaluation.registry import metrics
from onnxlrp.evaluation.report import write_report
from onnxlrp.evaluation.summary import Line
from onnxlrp.tables import preset_names
from onnxlrp.version import VERSION

FOLDER = CACHE / "evaluation"
PAGE = ROOT / "docs" / "EVALUATION.md"


def measure(subject: Subject, samples: int | None, folder: Path) -> tuple[Measured, Evaluation]:
    """One model on its data; what was measured before is not measured again."""
    path, data = subject.prepare(folder)
    options = Options(
        rules=[name for name in subject.rules if name in preset_names()],
        baselines=subject.baselines,
        metrics=[name for name in subject.metrics if name in metrics()],
        settings=subject.settings,
        samples=samples,
        batch=16,
        results=folder / f"{subject.name}.results.jsonl",
        data=data,
    )
    found = evaluate(str(subject.model()), path, options, _progress)
    identities: dict[str, str] = {}
    same = {}
    for method in found.plan.methods:
        first = identities.setdefault(method.identity, method.name)
        if first != method.name:
            same[method.name] = first
    notes = [note for note in found.notes if "were known" not in note]
    tables = [name for name in options.rules if name in found.methods]
    measured = Measured(
        subject.title,
        subject.about,
        found.outcome.samples,
        _distinct(found.lines),
        found.outcome.records,
        found.methods,
        tables,
        same,
        notes,
    )
    return measured, found


def _distinct(lines: Sequence[Line]) -> list[Line]:
    """Without those that say the same as one before: deletion and the first half of pixel flipping, for one."""
    kept: list[Line] = []
    for line in lines:
        means = [cell.mean for cell in line.cells]
        if not any(np.allclose(means, [cell.mean for cell in other.cells], equal_nan=True) for other in kept):
            kept.append(line)
    return kept


def _progress(done: int, total: int, what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{100 * done / max(1, total):5.1f} %  {what:<60.60}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure explanations on real models and write docs/EVALUATION.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(SUBJECTS)}; all by default")
    parser.add_argument("--samples", type=int, metavar="N", help="the first N samples of each only")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the page goes")
    parser.add_argument("--html", type=Path, metavar="DIR", help="also write a report with maps for each model")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in SUBJECTS]
    if unknown:
        print(f"error: nothing is called {unknown[0]}; there are: {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    whole = not chosen.names and chosen.samples is None
    out = chosen.out or (PAGE if whole else None)
    found = []
    try:
        for name in chosen.names or SUBJECTS:
            measured, evaluation = measure(SUBJECTS[name], chosen.samples, FOLDER)
            found.append(measured)
            if chosen.html is not None:
                write_report(chosen.html / f"{name}.html", evaluation, 4)
    except OnnxLrpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = page(found, VERSION)
    if out is None:
        print(text)
    else:
        out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
