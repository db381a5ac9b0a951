"""The process in which one program is opened and timed, or one model converted or exported.

It reads requests from standard input, one JSON object per line, and answers each with one line on standard
output. Everything else that is printed goes to standard error. It ends when standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmark import bound
from benchmark.models import TRANSFORMERS

Array = np.ndarray[Any, Any]
Request = Mapping[str, Any]

#: Name of the input that switches relevance on in models converted on demand.
SWITCH = "lrp_explain"


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes.

    Linux also has it in ru_maxrss, but there a child starts with what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on every system

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def data_for(shape: list[Any], kind: str, batch: int) -> Array:
    """The same data in every process: a float image-like tensor, or ones of another type.

    `shape` is that of the model's input; its first dimension becomes `batch`, other open ones 1.
    """
    sizes = [batch, *[d if isinstance(d, int) and d > 0 else 1 for d in shape[1:]]] if shape else []
    if "float" in kind or "double" in kind:
        values = np.random.default_rng(0).standard_normal(sizes).clip(-2.1, 2.6)
        return values.astype(np.float64 if "double" in kind else np.float16 if "16" in kind else np.float32)
    return np.ones(sizes, {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(kind, np.bool_))


def open_onnx(asked: Request) -> Callable[[], object]:
    """A run of an ONNX file: "path", "provider", "threads", "batch", "lean", and for on-demand models "explain"."""
    from onnxlrp.run.session import open_session

    providers = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider"]}[asked["provider"]]
    session = open_session(asked["path"], providers, threads=asked["threads"], lean=asked["lean"])
    feeds = {i.name: data_for(i.shape, i.type, asked["batch"]) for i in session.get_inputs()}
    if SWITCH in feeds:
        feeds[SWITCH] = np.full((asked["batch"], 1), bool(asked["explain"]))

    def run() -> object:
        return session.run(None, feeds)

    return run


def open_torch(asked: Request) -> Callable[[], object]:
    """A run of a network in PyTorch: "network", "rules", "provider", "threads", "batch"."""
    if asked["network"] in TRANSFORMERS:
        from benchmark import transformer_networks

        return transformer_networks.gradient(asked["network"], asked["batch"], asked["provider"], asked["threads"])
    from benchmark import networks, peer

    data = data_for([0, 3, networks.SIZE, networks.SIZE], "float", asked["batch"])
    return peer.explainer(asked["network"], asked["rules"], data, asked["provider"], asked["threads"])


def open_lxt(asked: Request) -> Callable[[], object]:
    """A run of a transformer in PyTorch patched by LXT: "network", "provider", "threads", "batch"."""
    from benchmark import lxt_peer

    return lxt_peer.explainer(asked["network"], asked["batch"], asked["provider"], asked["threads"])


def clock(threads: int) -> Callable[[], float]:
    """Processor time of this process with one thread, which other jobs of the machine disturb less; else wall time."""
    return time.process_time if threads == 1 else time.perf_counter


def turn(
    run: Callable[[], object], seconds: float, most: int, warm: bool, now: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Times of single runs, for about `seconds` and at most `most` of them, after an untimed one if `warm`.

    The untimed run fills the caches that the other processes have emptied.
    """
    if warm:
        run()
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < most):
        begun = now()
        run()
        times.append(now() - begun)
    return times


def convert(asked: Request) -> Mapping[str, Any]:
    """Converts "path" to "out" with "rules", "on_demand" and "position"; imports are done before the clock starts."""
    import onnx

    import onnxlrp
    from onnxlrp.api import convert_file

    before = peak_memory()
    rules = bound.SOURCE if asked["rules"] == bound.BOUND else asked["rules"]
    how = {"rules": rules, "on_demand": asked["on_demand"], "position": asked["position"]}
    done = convert_file(asked["path"], asked["out"], **how)
    if asked["rules"] == bound.BOUND:
        bound.strip(Path(done.path))
    peak = peak_memory() - before
    original, converted = (onnx.load(path, load_external_data=False).graph.node for path in (asked["path"], done.path))
    return {
        "seconds": done.seconds,
        "peak": peak,
        "original_bytes": Path(asked["path"]).stat().st_size,
        "grown_bytes": done.grown_bytes,
        "nodes": len(converted) - len(original),
        "cost": done.plan.cost,
        "version": onnxlrp.__version__,
    }


def export(asked: Request) -> Mapping[str, Any]:
    """Exports the network "network" to "path" by "exporter"."""
    source = import_module(
        "benchmark.transformer_networks" if asked["network"] in TRANSFORMERS else "benchmark.networks"
    )
    source.export(asked["network"], Path(asked["path"]), asked["exporter"])
    return {}


def profile(asked: Request) -> Mapping[str, Any]:
    """Profiles "path" on "provider" with "threads" and "batch"."""
    from benchmark import profiling

    spent = profiling.profile(Path(asked["path"]), asked["provider"], asked["threads"], asked["batch"])
    return {"spent": [asdict(each) for each in spent]}


def _imports(asked: Request) -> Sequence[str]:
    """The modules that a program needs."""
    if asked["kind"] == "onnx":
        return ("onnxruntime", "onnxlrp.run.session")
    if asked["kind"] == "lxt":
        return ("benchmark.lxt_peer",)
    return ("benchmark.transformer_networks",) if asked["network"] in TRANSFORMERS else ("benchmark.peer",)


#: What `Worker` can open, by kind.
OPENERS: Mapping[str, Callable[[Request], Callable[[], object]]] = {
    "onnx": open_onnx,
    "torch": open_torch,
    "lxt": open_lxt,
}


class Worker:
    """Answers requests; holds the opened program between them."""

    def __init__(self) -> None:
        self._run: Callable[[], object] | None = None
        self._before = 0
        self._clock = time.perf_counter

    def answer(self, asked: Request) -> Mapping[str, Any]:
        """One request; its "do" says which."""
        actions = {
            "open": self._open,
            "turn": self._turn,
            "convert": convert,
            "export": export,
            "profile": profile,
        }
        return actions[asked["do"]](asked)

    def _open(self, asked: Request) -> Mapping[str, Any]:
        # What is imported is no part of the memory that a program takes.
        for module in _imports(asked):
            import_module(module)
        self._before = peak_memory()
        self._clock = clock(asked["threads"] if asked["provider"] == "cpu" else 0)
        self._run = OPENERS[asked["kind"]](asked)
        return {}

    def _turn(self, asked: Request) -> Mapping[str, Any]:
        if self._run is None:
            raise LookupError("nothing was opened")
        times = turn(self._run, asked["seconds"], asked["most"], asked["warm"], self._clock)
        return {"times": times, "peak": peak_memory() - self._before}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answers until there are no more requests; an exception becomes an answer with "error"."""
    worker = Worker()
    for line in requests:
        try:
            answer: Mapping[str, Any] = worker.answer(json.loads(line))
        except Exception as error:
            text = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serves standard input; keeps standard output for answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
