"""A network written as ONNX with a dynamic batch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def export_with_open_batch(network: nn.Module, example: Tensor, name_of_input: str, path: Path, exporter: str) -> None:
    """Writes a network of one input, output `logits`; nothing half-written is left under `path`.

    Args:
        exporter: "dynamo" or "torchscript".
    """
    part = path.with_name(path.name + ".part")
    if exporter == "dynamo":
        batch = torch.export.Dim("batch", min=1, max=1024)
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=[name_of_input],
            output_names=["logits"],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch returned no program")
        program.save(part, external_data=False)
    else:
        torch.onnx.export(
            network,
            (example,),
            str(part),
            dynamo=False,
            input_names=[name_of_input],
            output_names=["logits"],
            dynamic_axes={name_of_input: {0: "batch"}, "logits": {0: "batch"}},
            opset_version=18,
        )
    part.replace(path)
