"""Where a model's time goes: onnxruntime's profile, summed by operator, the relevance part for itself."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from benchmark.report import Table
from benchmark.worker import SWITCH, data_for

#: New tensors and nodes of a converted model begin with this.
_PREFIX = "lrp/"
_RUNS, _WARM = 10, 3
FORWARD, RELEVANCE = "forward", "relevance"


@dataclass(frozen=True)
class Spent:
    """Time of all nodes of one operator in one part: seconds per run, and how many nodes."""

    part: str
    operator: str
    seconds: float
    nodes: int


def profile(path: Path, provider: str, threads: int, batch: int) -> list[Spent]:
    """Runs the model with onnxruntime's profiling; the most expensive first."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        session = ort.InferenceSession(
            str(path),
            options,
            providers=[{"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[provider]],
        )
        feeds = {i.name: data_for(i.shape, i.type, batch) for i in session.get_inputs()}
        feeds.update({name: value | True for name, value in feeds.items() if name == SWITCH})
        for _ in range(_WARM + _RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        labels = labels_of(onnx.load(Path(folder) / "optimised.onnx", load_external_data=False).graph)
    return summed(events, labels)


def labels_of(graph: onnx.GraphProto) -> Mapping[str, tuple[str, str]]:
    """Part and operator of each node by its name.

    A node that the runtime added (a change of memory layout) belongs to the relevance part where only that
    reads it.
    """
    by_input: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            by_input[name].append(node)
    labels: dict[str, tuple[str, str]] = {}
    for node in reversed(graph.node):
        named = node.name.startswith(_PREFIX) or any(o.startswith(_PREFIX) for o in node.output)
        readers = [labels[r.name][0] for o in node.output for r in by_input[o] if r.name in labels]
        added = node.op_type.startswith("Reorder")
        behind = added and bool(readers) and all(part == RELEVANCE for part in readers)
        labels[node.name] = (RELEVANCE if named or behind else FORWARD, operator_of(node))
    return labels


def operator_of(node: onnx.NodeProto) -> str:
    """The operator; of a convolution also what makes it expensive or cheap."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    name = f"{node.domain.rpartition('.')[2]}.{node.op_type}" if node.domain else node.op_type
    if not node.op_type.endswith(("Conv", "ConvTranspose")) or not given.get("kernel_shape"):
        return name
    words = [name, "x".join(map(str, given["kernel_shape"]))]
    if given.get("group", 1) > 1:
        words.append("grouped")
    if set(given.get("strides", [1])) != {1}:
        words.append("strided")
    return " ".join(words)


def summed(
    events: Sequence[Mapping[str, Any]], labels: Mapping[str, tuple[str, str]], runs: int = _WARM + _RUNS
) -> list[Spent]:
    """Time per run by part and operator, from the runtime's trace events (durations in microseconds).

    The median over the runs of each node counts, so that the first runs do not.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            times[node, event["args"]["op_name"]].append(event["dur"] / 1e6)
    total: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (node, operator), durations in times.items():
        unknown = (RELEVANCE if node.startswith(_PREFIX) else FORWARD, operator)
        # A node that runs several times in a run (in a loop) counts that often.
        total[labels.get(node, unknown)].append(median(durations) * max(len(durations) // runs, 1))
    spent = [Spent(part, operator, sum(each), len(each)) for (part, operator), each in total.items()]
    return sorted(spent, key=lambda s: -s.seconds)


def table(spent: Sequence[Spent], title: str, most: int = 20) -> Table:
    """The most expensive operators, and the sum of each part."""
    whole = sum(s.seconds for s in spent) or 1.0
    rows = [
        (s.part, s.operator, str(s.nodes), f"{s.seconds * 1e3:.3f}", f"{100 * s.seconds / whole:.1f}")
        for s in spent[:most]
    ]
    for part in (FORWARD, RELEVANCE):
        here = [s for s in spent if s.part == part]
        time = sum(s.seconds for s in here)
        nodes = str(sum(s.nodes for s in here))
        rows.append((part, "all", nodes, f"{time * 1e3:.3f}", f"{100 * time / whole:.1f}"))
    return Table(title, ("part", "operator", "nodes", "ms", "%"), rows, ("part", "operator"))
