"""torchvision beside a torch that cannot load its compiled operators: they only need to be declared."""

from __future__ import annotations

import torch

torch.set_num_threads(2)
try:
    import torchvision
except RuntimeError:
    _library = torch.library.Library("torchvision", "DEF")
    for _operator in ("nms", "qnms"):
        _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
