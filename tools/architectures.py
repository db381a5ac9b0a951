#!/usr/bin/env python3
"""Convert every classifier of torchvision, as both exporters of torch write it, and print how it went.

    python tools/architectures.py                            all of them (hours; --size 64 or --only makes it shorter)
    python tools/architectures.py --only 'resnet*,vgg11'     some of them
    python tools/architectures.py --dynamic all              height and width dynamic as well as the batch

Needs onnxlrp with onnxruntime, torch, torchvision and onnxscript. Exit code 1: a network was not converted, or its
ledger does not close.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch
from benchmark.networks import build, torchvision_models
from rich.console import Console
from torch import nn

import onnxlrp
from onnxlrp.errors import ConversionError

Array = np.ndarray[Any, Any]

EXPORTERS = ("dynamo", "torchscript")
#: Networks whose operators (attention over windows or patches) are no part of a convolutional network.
ATTENTION = ("vit_*", "swin_*", "maxvit_*")
#: The smallest image that leaves something to pool at the end; everything else takes 64 pixels.
SMALLEST: Mapping[str, int] = {
    "alexnet": 224,
    "vgg*": 224,
    "vit_*": 224,
    "vit_h_14": 518,
    "maxvit_*": 224,
    "inception_v3": 96,
}
_SMALL = 64
#: Beyond this a model cannot be one protobuf message; its weights go into a file beside it.
_INLINE_BYTES = 1_800_000_000


@dataclass(frozen=True)
class Row:
    """What was measured on one export of one network. Differences are relative; None: not measured."""

    name: str
    exporter: str
    nodes: int
    seconds: float
    forward: float | None = None
    ledger: float | None = None
    widest: str = ""
    batch: float | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason


def names(patterns: Sequence[str] = ("*",)) -> list[str]:
    """torchvision's classifiers that match one of the patterns."""
    models = torchvision_models()
    return [n for n in models.list_models(module=models) if any(fnmatch(n, p) for p in patterns)]


def smallest_size(name: str) -> int:
    """Height and width of a small image that the network can take, in pixels."""
    fitting = [size for pattern, size in SMALLEST.items() if fnmatch(name, pattern)]
    return fitting[-1] if fitting else _SMALL


def has_attention(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in ATTENTION)


def network(name: str) -> nn.Module:
    """The network with random weights, non-trivial BatchNorm statistics, biases and layer scales."""
    model = build(name)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("layer_scale"):
                value.uniform_(0.2, 1.0)  # initialised to 1e-6, a block would do nothing
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.normal_(0.0, 0.1)
    return model


def images(batch: int, size: int, seed: int = 3) -> Array:
    """Smooth random images [batch, 3, size, size], float32, about standard normal."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, -(-size // 8), -(-size // 8), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    found: Array = (smooth + 0.3 * torch.randn(batch, 3, size, size, generator=generator)).numpy()
    return found


def export(model: nn.Module, size: int, exporter: str, path: Path, dynamic: str = "batch") -> Path:
    """Writes a network as ONNX, input `image`, output `logits`.

    Args:
        exporter: "dynamo" or "torchscript".
        dynamic: "batch", or "all" for height and width as well.
    """
    example = torch.randn(2, 3, size, size)
    free = {0: "batch"} if dynamic == "batch" else {0: "batch", 2: "height", 3: "width"}
    named: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
    if exporter == "dynamo":
        dimensions = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
        program = torch.onnx.export(
            model, (example,), dynamo=True, dynamic_shapes=(dimensions,), verbose=False, **named
        )
        if program is None:
            raise RuntimeError("torch returned no program")
        size_in_bytes = sum(p.nbytes for p in model.state_dict().values())
        program.save(path, external_data=size_in_bytes > _INLINE_BYTES)
    else:
        torch.onnx.export(
            model,
            (example,),
            str(path),
            dynamo=False,
            dynamic_axes={"image": free, "logits": {0: "batch"}},
            opset_version=18,
            **named,
        )
    return path


def measure(name: str, exporter: str, path: Path, sample: Array, rules: str) -> Row:
    """Converts and verifies one export."""
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    started = time.perf_counter()
    try:
        onnxlrp.convert(path, rules=rules)
    except ConversionError as error:
        lines = str(error).splitlines()
        return Row(name, exporter, nodes, time.perf_counter() - started, reason="; ".join(lines[:3]))
    seconds = time.perf_counter() - started
    report = onnxlrp.verify(path, {"image": sample}, rules=rules)
    checks = {check.name: check for check in report.checks}
    broken = [f"{c.name}: {c.detail}" for c in report.checks if not c.passed]
    return Row(
        name,
        exporter,
        nodes,
        seconds,
        max(c.value or 0.0 for c in report.checks if c.name.startswith("forward")),
        checks["ledger"].value,
        f"{report.worst[0].node} ({report.worst[0].operator}, {report.worst[0].rule})",
        checks["batch independence"].value,
        "; ".join(broken),
    )


def relevance(path: Path, sample: Array, rules: str) -> Array:
    """The map of class 0 as onnxruntime computes it."""
    explainer = onnxlrp.Explainer(path, rules=rules, target=0)
    return explainer.explain({"image": sample}).relevance["image"]


def difference(a: Array, b: Array) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


def rows(
    chosen: Sequence[str], exporters: Sequence[str], rules: str, size: int | None, dynamic: str
) -> Iterator[tuple[list[Row], float | None]]:
    """For each network the rows of its exports, and how far their maps are apart."""
    for name in chosen:
        model, pixels = network(name), size or smallest_size(name)
        found, maps = [], []
        with tempfile.TemporaryDirectory() as folder:
            for exporter in exporters:
                path = export(model, pixels, exporter, Path(folder) / f"{exporter}.onnx", dynamic)
                # Neither batch nor image is as large as it was when the model was exported.
                other = pixels + 32 if dynamic == "all" else pixels
                sample = images(3, other)
                found.append(measure(name, exporter, path, sample, rules))
                if found[-1].passed:
                    maps.append(relevance(path, sample, rules))
                gc.collect()
        apart = difference(maps[0], maps[1]) if len(maps) == 2 else None
        yield found, apart


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


@click.command()
@click.option("--only", default="*", help="Patterns of network names, separated by commas.")
@click.option("--exporter", type=click.Choice(EXPORTERS), help="One exporter instead of both.")
@click.option("--rules", default="epsilon-plus", show_default=True, help="Rule table.")
@click.option("--size", type=int, help="Height and width in pixels instead of the smallest that works.")
@click.option("--dynamic", type=click.Choice(["batch", "all"]), default="batch", show_default=True)
@click.option("--attention", is_flag=True, help="Include the networks with attention.")
def main(only: str, exporter: str | None, rules: str, size: int | None, dynamic: str, attention: bool) -> None:
    """Print a table: architecture, exporter, conversion, ledger, difference of the forward pass."""
    torch.set_num_threads(max(torch.get_num_threads(), 1))
    onnxruntime.set_default_logger_severity(3)
    console = Console(width=200, highlight=False)
    chosen = [n for n in names(only.split(",")) if attention or not has_attention(n)]
    console.print("| network | exporter | nodes | seconds | forward | ledger | batch | exports apart | remark |")
    console.print("|---|---|--:|--:|--:|--:|--:|--:|---|")
    good = True
    for found, apart in rows(chosen, (exporter,) if exporter else EXPORTERS, rules, size, dynamic):
        for i, row in enumerate(found):
            good &= row.passed
            cells = [row.name, row.exporter, str(row.nodes), f"{row.seconds:.2f}", _number(row.forward)]
            cells += [_number(row.ledger), _number(row.batch), _number(apart if i else None)]
            cells.append(row.reason or f"widest gap at {row.widest}")
            console.print("| " + " | ".join(cells) + " |", markup=False, soft_wrap=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
