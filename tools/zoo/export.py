"""Networks written as ONNX by both exporters of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.detectors import OUTPUTS

EXPORTERS = ("dynamo", "torchscript")
#: Beyond this a model cannot be one protobuf message; its weights go into a file beside it.
_INLINE_BYTES = 1_800_000_000


def export(model: nn.Module, size: int, exporter: str, path: Path, dynamic: str = "batch") -> Path:
    """Writes a network as ONNX, input `image`, output `logits`.

    Args:
        exporter: "dynamo" or "torchscript".
        dynamic: "batch", or "all" for height and width as well.
    """
    free = {0: "batch"} if dynamic == "batch" else {0: "batch", 2: "height", 3: "width"}
    return _write(model, torch.randn(2, 3, size, size), exporter, path, ("logits",), free)


def export_detector(model: nn.Module, size: int, exporter: str, path: Path) -> Path:
    """Writes a whole detector as ONNX, input `image` [3, size, size], outputs `boxes`, `scores` and `labels`."""
    return _write(model, torch.rand(3, size, size), exporter, path, OUTPUTS, {})


def _write(
    model: nn.Module, example: Tensor, exporter: str, path: Path, outputs: Sequence[str], free: Mapping[int, str]
) -> Path:
    """`free` are the names of the axes of the input whose sizes are open; the first is open in the outputs as well."""
    if exporter == "dynamo":
        shapes = (dict.fromkeys(free, torch.export.Dim.DYNAMIC),) if free else None
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
            input_names=["image"],
            output_names=list(outputs),
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
            dynamic_axes={"image": dict(free), **{name: {0: free[0]} for name in outputs}} if free else None,
            opset_version=18,
            input_names=["image"],
            output_names=list(outputs),
        )
    return path
