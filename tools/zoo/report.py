"""docs/ARCHITECTURES.md: what was converted, how well it closes, and why the rest was not."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import onnx
import onnxruntime

from onnxlrp.version import VERSION
from zoo.row import Row

GROUPS = ("classification", "segmentation", "detection", "timm")

_ABOUT = """\
Networks with random weights (BatchNorm statistics, biases and layer scales like trained ones), exported by both
exporters of torch with a dynamic batch, converted and verified on three images: the forward pass is unchanged, the
ledger of every step closes, every value is finite, and each sample alone gives the same map. *Apart* is the relative L2
distance between the maps of class 0 of both exports, in float32. *Image* is the height and width in pixels.

A network that torch itself cannot export counts as such, not as one that onnxlrp cannot convert."""


def markdown(rows: Sequence[Row], unmeasured: Sequence[str] = ()) -> str:
    """The page of all rows; `unmeasured` are the names of networks of which there is none."""
    parts = [
        "# Architectures",
        "<!-- Written by tools/architectures.py. -->",
        _ABOUT,
        "## Totals",
        _table(
            ("networks of", "networks", "exports", "converted and verified", "refused", "failed", "not exported"),
            [_totals(group, [r for r in rows if r.group == group]) for group in GROUPS],
        ),
        f"Versions: onnxlrp {VERSION}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, "
        f"torch {version('torch')}, Python {platform.python_version()}.",
    ]
    if unmeasured:
        parts.append(f"Not measured yet: {len(unmeasured)} networks ({', '.join(f'`{n}`' for n in unmeasured)}).")
    for group in GROUPS:
        inside = sorted((r for r in rows if r.group == group), key=lambda r: (r.name, r.exporter))
        failed = [r for r in inside if not r.passed]
        if inside:
            parts.append(f"## {group}")
        if failed:
            rest = [(f"`{r.name}`", r.exporter, r.stage, r.reason) for r in failed]
            parts += ["What was not converted and verified:", _table(("network", "exporter", "at", "reason"), rest)]
        good = [r for r in inside if r.passed]
        if good:
            parts.append(_table(_HEADER, [_cells(r) for r in good]))
    return "\n\n".join(parts) + "\n"


_HEADER = ("network", "image", "exporter", "nodes", "seconds", "forward", "ledger", "batch", "apart", "part")


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (row.forward, row.ledger, row.batch, row.apart)
    seconds = f"{row.seconds:.1f}"
    return (f"`{row.name}`", str(row.size), row.exporter, str(row.nodes), seconds, *map(number, numbers), row.part)


def _totals(group: str, rows: Sequence[Row]) -> tuple[str, ...]:
    def count(*stages: str) -> str:
        return str(sum(r.stage in stages for r in rows))

    networks = len({r.name for r in rows})
    good = str(sum(r.passed for r in rows))
    return group, str(networks), str(len(rows)), good, count("convert"), count("verify"), count("build", "export")


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
