"""docs/ARCHITECTURES.md: what was converted, how well it closes, and why the rest was not."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version

import onnx
import onnxruntime

from onnxlrp.version import VERSION
from zoo.network import Network
from zoo.row import Row

GROUPS = ("classification", "segmentation", "detection", "detectors", "timm")

_ABOUT = """\
Networks with random weights (BatchNorm statistics, biases and layer scales like trained ones), exported by both
exporters of torch with a dynamic batch, converted and verified on three images: the forward pass is unchanged, the
ledger of every step closes, every value is finite, and each sample alone gives the same map. Of timm one of the
smallest networks of each family is taken, on the smallest image that it works with.

* *Image* is the height and width in pixels, *parameters* are in millions, *seconds* those of the conversion.
* *Forward* is the largest difference of the outputs over their largest value, *gap* the widest gap of the ledger,
  relative to the relevance that arrived there, and *where* the node with that gap, its operator and its rule.
* *Batch* is the relative L2 distance between the map of a sample alone and with others, *apart* that between the maps
  of class 0 of both exports, in float32, for all samples together and for the median sample. Where a sum nearly
  cancels, relevance is divided by what is left of it, and rounding alone moves the map of that sample: *shaken* is how
  far the map of one export moves where each number of the image is moved to its neighbour in float32 (measured where
  the exports are more than 1e-2 apart).

*Detection* stands for the detectors' networks, with or without their heads, up to where boxes are sorted out.
*Detectors* are whole: one image in, boxes, scores and labels out, `convert --output scores --target seed`, so that a
seed of one 1 explains the score of one box. Relevance goes through the boxes that were chosen and not into the choice.

A network that torch itself cannot export, an export that onnxruntime cannot run as it is, and one that was cut off
because this machine has too little time or memory for it count as such: neither as converted nor as failed."""

#: What a row can say, in the order of the columns of the totals; see `Row.stage`.
_OUTCOMES = {
    "refused": ("convert",),
    "failed": ("verify",),
    "not exported": ("build", "export"),
    "export does not run": ("run",),
    "cut off": ("limits",),
}


def markdown(rows: Sequence[Row], unmeasured: Sequence[Network] = ()) -> str:
    """The page of all rows; `unmeasured` are the networks of which there is none."""
    by_group = {group: [r for r in rows if r.group == group] for group in GROUPS}
    parts = [
        "# Architectures",
        "<!-- Written by tools/architectures.py. -->",
        _ABOUT,
        "## Totals",
        _table(
            ("networks of", "networks", "measured", "both exports", "one export", "share", *_OUTCOMES),
            [_totals(g, by_group[g], sum(n.group == g for n in unmeasured)) for g in GROUPS],
        ),
        "*Both* and *one* count networks of which that many exports are converted and verified; the *share* is that of "
        "networks that are converted and verified in every export that torch wrote and that ran here. The other columns"
        " count exports.",
        f"Versions: onnxlrp {VERSION}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, "
        f"torch {version('torch')}, torchvision {version('torchvision')}, timm {version('timm')}, "
        f"Python {platform.python_version()}.",
    ]
    if unmeasured:
        parts.append(f"Not measured yet: {', '.join(f'`{n.name}` ({n.group})' for n in unmeasured)}.")
    for group, inside in by_group.items():
        if inside:
            parts += [f"## {group}", *_group(sorted(inside, key=lambda r: (r.name, r.exporter)))]
    return "\n\n".join(parts) + "\n"


def _group(rows: Sequence[Row]) -> list[str]:
    parts = []
    rest = [(f"`{r.name}`", r.exporter, _outcome(r), r.reason) for r in rows if not r.passed]
    if rest:
        parts += ["Not converted and verified:", _table(("network", "exporter", "outcome", "reason"), rest)]
    good = [r for r in rows if r.passed]
    # The group is the family of torchvision's networks, and only detectors are taken in part.
    optional = {
        "family": any(r.family != r.group for r in good),
        "part": any(r.part for r in good),
        # Whole detectors have one sample, and no class of which maps are compared.
        "batch": any(r.batch is not None for r in good),
        **dict.fromkeys(("apart", "median", "shaken"), any(r.apart is not None for r in good)),
    }
    header = [h for h in _COLUMNS if optional.get(h, True)]
    return [*parts, _table(header, [[_COLUMNS[h](r) for h in header] for r in good])] if good else parts


def _outcome(row: Row) -> str:
    return next(outcome for outcome, stages in _OUTCOMES.items() if row.stage in stages)


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "network": lambda row: f"`{row.name}`",
    "family": lambda row: row.family,
    "part": lambda row: row.part,
    "parameters": lambda row: f"{row.parameters / 1e6:.1f}",
    "image": lambda row: str(row.size),
    "exporter": lambda row: row.exporter,
    "nodes": lambda row: str(row.nodes),
    "seconds": lambda row: f"{row.seconds:.1f}",
    "forward": lambda row: number(row.forward),
    "gap": lambda row: number(row.ledger),
    "where": lambda row: row.widest,
    "batch": lambda row: number(row.batch),
    "apart": lambda row: number(row.apart),
    "median": lambda row: number(row.apart_median),
    "shaken": lambda row: number(row.shaken),
}


def _totals(group: str, rows: Sequence[Row], unmeasured: int) -> tuple[str, ...]:
    by_network: dict[str, list[Row]] = {}
    for row in rows:
        by_network.setdefault(row.name, []).append(row)
    passed = [sum(r.passed for r in found) for found in by_network.values()]
    # What did not get as far as a conversion says nothing of it.
    ours = [[r for r in found if r.passed or r.stage in ("convert", "verify")] for found in by_network.values()]
    judged = [all(r.passed for r in found) for found in ours if found]
    share = f"{100 * sum(judged) / len(judged):.1f} %" if judged else ""
    counts = [sum(r.stage in stages for r in rows) for stages in _OUTCOMES.values()]
    numbers = (len(by_network) + unmeasured, len(by_network), sum(p == 2 for p in passed), sum(p == 1 for p in passed))
    return group, *map(str, numbers), share, *map(str, counts)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
