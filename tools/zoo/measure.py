"""One export converted and verified, and how it went."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

import onnxlrp
from onnxlrp.errors import ConversionError
from zoo.export import export
from zoo.networks import Array, Network, build, images
from zoo.row import Row


def measure(name: str, exporter: str, path: Path, sample: Array, rules: str) -> Row:
    """Converts and verifies one export."""
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    started = time.perf_counter()
    try:
        onnxlrp.convert(path, rules=rules)
    except ConversionError as error:
        lines = str(error).splitlines()
        spent = time.perf_counter() - started
        return Row(name, exporter, nodes, spent, reason="; ".join(lines[:3]), stage="convert")
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
        "verify" if broken else "",
    )


def relevance(path: Path, sample: Array, rules: str) -> Array:
    """The map of class 0 as onnxruntime computes it."""
    explainer = onnxlrp.Explainer(path, rules=rules, target=0)
    return explainer.explain({"image": sample}).relevance["image"]


def difference(a: Array, b: Array) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


def rows(network: Network, exporters: Sequence[str], rules: str, dynamic: str = "batch") -> Iterator[Row]:
    """A row for each exporter; whatever goes wrong is in its `stage` and `reason`."""
    about = Row(
        network.name, "", group=network.group, family=network.family, part=network.part, size=network.size, rules=rules
    )
    try:
        model = build(network)
    except Exception as error:
        yield from (replace(about, exporter=e, stage="build", reason=_short(error)) for e in exporters)
        return
    maps: list[Array] = []
    for exporter in exporters:
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = export(model, network.size, exporter, Path(folder) / "model.onnx", dynamic)
            except Exception as error:  # exporters raise whatever they like
                yield replace(about, exporter=exporter, stage="export", reason=_short(error))
                continue
            yield _row(about, exporter, path, rules, dynamic, maps)
        gc.collect()


def _row(about: Row, exporter: str, path: Path, rules: str, dynamic: str, maps: list[Array]) -> Row:
    # Neither batch nor image is as large as it was when the model was exported.
    sample = images(3, about.size + 32 if dynamic == "all" else about.size)
    try:
        found = measure(about.name, exporter, path, sample, rules)
        if found.passed:
            maps.append(relevance(path, sample, rules))
    except Exception as error:  # onnxruntime may not know the exported model
        found = Row(about.name, exporter, stage="verify", reason=_short(error))
    apart = difference(maps[0], maps[1]) if len(maps) == 2 else None
    return replace(
        found,
        group=about.group,
        family=about.family,
        part=about.part,
        size=about.size,
        rules=rules,
        apart=apart,
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
