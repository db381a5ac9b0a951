"""The numbers of an evaluation as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from onnxlrp.evaluation.evaluate import Evaluation
from onnxlrp.explain.files import write


def write_csv(path: Path, found: Evaluation) -> None:
    """A line for each sample, method, metric and part; curves are left out.

    Raises:
        UsageError: the file cannot be written.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["place", "sample", "method", "metric", "part", "value"])
    for record in sorted(found.outcome.records, key=lambda r: (r.metric, r.method, r.place)):
        for part, value in record.parts.items():
            if isinstance(value, float):
                lines.writerow([record.place, record.sample, record.method, record.metric, part, repr(value)])
    write(path, text.getvalue().encode())


def as_dict(found: Evaluation) -> dict[str, Any]:
    """The table, the curves and the setting; what JSON needs is left to the caller."""
    setting = found.plan.setting
    return {
        "model": found.model,
        "data": found.data,
        "samples": found.outcome.samples,
        "target": setting.target,
        "fill": setting.fill,
        "unit": setting.unit,
        "seed": setting.seed,
        "settings": {one.metric.name: dict(one.settings) for one in found.plan.metrics},
        "lines": found.lines,
        "curves": found.curves,
        "notes": list(found.notes),
    }
