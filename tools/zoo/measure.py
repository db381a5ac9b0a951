"""One export converted and verified, and how it went."""

from __future__ import annotations

import gc
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

import onnxlrp
from onnxlrp.errors import ConversionError, OnnxLrpError
from onnxlrp.run.session import open_session
from zoo.forms import Form, form_of
from zoo.isolated import Job, Tell
from zoo.network import Network
from zoo.networks import Array
from zoo.row import Row

#: What colours the words of an error on a terminal.
_STYLE = re.compile(r"\x1b\[[0-9;]*m")

#: Maps of two exports are mostly no further apart than this.
_ROUNDING = 1e-2


def measure(
    name: str,
    exporter: str,
    path: Path,
    sample: Array,
    rules: str,
    tell: Tell = lambda stage: None,
    **asked: Any,
) -> Row:
    """Converts and verifies one export; `tell` is given each stage as it begins.

    Args:
        asked: further arguments of `onnxlrp.convert`.
    """
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    tell("convert")
    started = time.perf_counter()
    try:
        onnxlrp.convert(path, rules=rules, **asked)
    except ConversionError as error:
        lines = str(error).splitlines()
        spent = time.perf_counter() - started
        return Row(name, exporter, nodes, spent, reason="; ".join(lines[:3]), stage="convert")
    except OnnxLrpError as error:
        trouble = _trouble_of_original(path, sample)
        stage, reason = ("run", trouble) if trouble else ("convert", short(error))
        return Row(name, exporter, nodes, reason=reason, stage=stage)
    seconds = time.perf_counter() - started
    tell("verify")
    try:
        report = onnxlrp.verify(path, {"image": sample}, rules=rules, **asked)
    except OnnxLrpError as error:
        trouble = _trouble_of_original(path, sample)
        stage, reason = ("run", trouble) if trouble else ("verify", short(error))
        return Row(name, exporter, nodes, seconds, reason=reason, stage=stage)
    checks = {check.name: check for check in report.checks}
    broken = [f"{c.name}: {c.detail} ({c.value:.0e})" for c in report.checks if not c.passed]
    broken += [c.detail for c in report.checks if "zero everywhere" in c.detail]
    if any(text.startswith("forward") for text in broken):
        moved = _own_movement(path, sample)
        broken.append(f"between optimisation levels the first output of the exported model itself moves by {moved:.0e}")
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


def _trouble_of_original(path: Path, sample: Array) -> str:
    """Why the exported model itself does not run on this sample, whose batch is another than it was exported with."""
    try:
        open_session(path).run(None, {"image": sample})
    except Exception as error:  # onnxruntime raises its own unrelated classes
        said = short(error).replace(str(path), path.name)
        return f"the exported model itself does not run on {list(sample.shape)}: {said}"
    return ""


def _own_movement(path: Path, sample: Array) -> float:
    """How far onnxruntime's optimisation moves the first output of the exported model, over its largest value."""
    plain, optimised = (open_session(path, optimised=o).run(None, {"image": sample})[0] for o in (False, True))
    return float(np.abs(optimised - plain).max() / np.abs(plain).max())


def relevance(path: Path, sample: Array, rules: str) -> Array:
    """The map of class 0 as onnxruntime computes it."""
    explainer = onnxlrp.Explainer(path, rules=rules, target=0)
    return explainer.explain({"image": sample}).relevance["image"]


def shaken(sample: Array) -> Array:
    """The image with each number moved to one of its neighbours in float32, at random."""
    up = np.random.default_rng(7).random(sample.shape) < 0.5
    found: Array = np.nextafter(sample, np.where(up, np.inf, -np.inf).astype(sample.dtype))
    return found


def difference(a: Array, b: Array) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


def rows_of_job(job: Job, tell: Tell) -> Iterator[Row]:
    """Measures on one thread, for the sake of whoever else works on the machine for those hours."""
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions

    def one_thread() -> Any:
        made = options()
        made.intra_op_num_threads = 1
        return made

    onnxruntime.SessionOptions = one_thread  # `verify` leaves the number to the runtime
    return rows(job.network, job.exporters, job.rules, job.dynamic, tell)


def rows(
    network: Network,
    exporters: Sequence[str],
    rules: str,
    dynamic: str = "batch",
    tell: Tell = lambda stage: None,
) -> Iterator[Row]:
    """A row for each exporter; whatever goes wrong is in its `stage` and `reason`."""
    about = Row.start(network, "", rules)
    form = form_of(network)
    tell("build")
    try:
        model = form.build(network)
    except Exception as error:
        yield from (replace(about, exporter=e).failed("build", short(error)) for e in exporters)
        return
    about = replace(about, parameters=sum(p.numel() for p in model.parameters()))
    maps: list[Array] = []
    for exporter in exporters:
        about = replace(about, exporter=exporter)
        with tempfile.TemporaryDirectory() as folder:
            tell("export")
            try:
                path = form.export(model, network.size, exporter, Path(folder) / "model.onnx", dynamic)
            except Exception as error:  # exporters raise whatever they like
                yield about.failed("export", short(error))
                continue
            yield _row(about, form, path, dynamic, maps, tell)
        gc.collect()


def _row(about: Row, form: Form, path: Path, dynamic: str, maps: list[Array], tell: Tell) -> Row:
    sample = form.sample(about.size + 32 if dynamic == "all" else about.size)
    try:
        found = measure(about.name, about.exporter, path, sample, about.rules, tell, **form.asked)
        if found.passed and form.compared:
            maps.append(relevance(path, sample, about.rules))
    except Exception as error:
        return about.failed("verify", short(error))
    if len(maps) == 2:
        each = [difference(a, b) for a, b in zip(*maps, strict=True)]
        found = replace(found, apart=difference(*maps), apart_median=float(np.median(each)))
        if difference(*maps) > _ROUNDING:
            moved = relevance(path, shaken(sample), about.rules)
            found = replace(found, shaken=difference(moved, maps[1]))
    return replace(
        found,
        group=about.group,
        family=about.family,
        part=about.part,
        size=about.size,
        rules=about.rules,
        parameters=about.parameters,
    )


def short(error: BaseException) -> str:
    """Kind and first words of an error, of its first cause where it has one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(_STYLE.sub('', str(error)).split())[:300]}"
