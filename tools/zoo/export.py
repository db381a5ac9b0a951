"""Networks written as ONNX by both exporters of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

EXPORTERS = ("dynamo", "torchscript")
#: Beyond this a model cannot be one protobuf message; its weights go into a file beside it.
_INLINE_BYTES = 1_800_000_000


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
