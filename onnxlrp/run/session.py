"""onnxruntime sessions: imported only here, so that converting works without it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import onnx

from onnxlrp.check.save import save
from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.read.load import Source

_MISSING = (
    "onnxruntime is not installed; install it with `pip install onnxlrp[cpu]`, or `pip install onnxlrp[gpu]` for CUDA"
)


class Opening(TypedDict, total=False):
    """The options of `open_session`."""

    optimised: bool
    threads: int | None
    lean: bool
    arena: bool


def runtime() -> Any:
    """The onnxruntime module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(_MISSING) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise UsageError(
            "the installed onnxruntime is broken (two of its packages were installed over one another);"
            " uninstall all of them and install one"
        )
    return onnxruntime


def open_session(
    model: onnx.ModelProto | str | os.PathLike[str],
    providers: Sequence[str] | None = None,
    *,
    optimised: bool = True,
    threads: int | None = None,
    lean: bool = False,
    arena: bool = True,
) -> Any:
    """An InferenceSession.

    Args:
        model: a model, or the path of a file (needed where external data lies beside it).
        providers: execution providers by name; the CPU when None.
        optimised: whether the runtime may rewrite the graph.
        threads: threads within an operator; the runtime's choice when None.
        lean: whether weights are kept once, as they are, and not once more for each way in which they are multiplied:
            less memory, and a little more time at small batches.
        arena: whether memory that a run gives back is kept for the next one. Without it a session that is let go leaves
            none behind: of a ViT-B/16 `verify` took 3.0 GB in place of 4.4, in the same time.

    Raises:
        UsageError: a provider was asked for that does not work here.
        ModelReadError: the runtime refuses the model.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # The pattern's block lies beside the arena: without it peak memory was about half (ResNet-50, batch 8, epsilon:
    # 2338 against 1372 MB) at no measurable cost.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = arena
    if lean:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = list(providers or ["CPUExecutionProvider"])
    if any(p.startswith(("CUDA", "Tensorrt")) for p in wanted) and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    given = os.fspath(model) if not isinstance(model, onnx.ModelProto) else model.SerializeToString()
    try:
        session = ort.InferenceSession(given, options, providers=wanted)
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise ModelReadError(f"onnxruntime cannot load the model: {_reason(error)}") from error
    missing = [p for p in wanted if p not in session.get_providers()]
    if missing:
        raise UsageError(
            f"{missing[0]} does not work on this machine; it needs `pip install onnxlrp[gpu]` and its driver"
        )
    return session


def open_beside(
    source: Source, model: onnx.ModelProto, providers: Sequence[str] | None = None, **how: Unpack[Opening]
) -> Any:
    """A session for a model that was made of another one, whose weights may lie in files beside that.

    It is then written to a temporary file beside links to them.

    Raises:
        UsageError, ModelReadError: as `open_session`, which has the options.
    """
    if source.base_dir is None:
        return open_session(model, providers, **how)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, source)
        return open_session(path, providers, **how)


def _reason(error: BaseException) -> str:
    unknown = re.search(r"Fatal error: (\S*?):(\w+)\(-?\d+\) is not a registered function/op", str(error))
    if unknown is not None:
        domain, op = unknown.groups()
        return (
            f"it does not know the model's own operator {domain}.{op}, so that the model can be converted but not run"
            " here; run it where the library of that operator is registered"
        )
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
