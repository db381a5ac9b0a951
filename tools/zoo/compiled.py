"""torchvision's compiled operators, written in torch where those that are installed do not fit the installed torch.

A detector needs them to run and to be exported; both exporters write them as NonMaxSuppression and RoiAlign.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from benchmark.networks import torchvision_models
from torch import Tensor

#: Declarations hold as long as their library lives.
_declared: list[Any] = []


def ensure_compiled_operators() -> None:
    """Makes torchvision's detectors run: does nothing where its compiled operators are there."""
    torchvision_models()
    extension = import_module("torchvision.extension")
    if extension._has_ops():
        return
    registry: Any = torch.library
    library = registry.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    align = import_module("torchvision.ops.roi_align")
    library.impl("nms", nms, "CPU")
    library.impl("roi_align", align._roi_align, "CPU")
    registry.register_fake("torchvision::nms", _some_boxes)
    extension._has_ops = _has_ops
    for module in (extension, align):
        module._has_ops = _has_ops


def _has_ops() -> bool:
    return True


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes stay, best first: one goes where it overlaps a better one by more than the threshold.

    Args:
        boxes: [n, 4], two opposite corners of each, the smaller coordinates first.
        scores: [n].
        iou_threshold: intersection over union.
    """
    order = scores.argsort(descending=True).tolist()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for i in order:
        others = torch.tensor(kept, dtype=torch.int64)
        sides = torch.minimum(boxes[i, 2:], boxes[others, 2:]) - torch.maximum(boxes[i, :2], boxes[others, :2])
        shared = sides.clamp(min=0).prod(1)
        if not bool((shared / (areas[i] + areas[others] - shared) > iou_threshold).any()):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _some_boxes(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """What exporters are told: how many boxes stay is known only at run time."""
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)
