"""torchvision's detectors as a user has them: an image in; boxes, scores and labels out, overlaps sorted out."""

from __future__ import annotations

import torch
from benchmark.networks import settle, torchvision_models
from torch import Tensor, nn

from zoo.compiled import ensure_compiled_operators
from zoo.network import Network

OUTPUTS = ("boxes", "scores", "labels")
#: Few candidates, and none left out for its score, which says nothing where the weights are random.
_FEW = 20
_TWO_STAGES = {
    "box_score_thresh": 0.0,
    "box_detections_per_img": _FEW // 2,
    "rpn_pre_nms_top_n_test": 2 * _FEW,
    "rpn_post_nms_top_n_test": _FEW,
}
_ONE_STAGE = {"score_thresh": 0.0, "detections_per_img": _FEW // 2, "topk_candidates": 2 * _FEW}


class WholeDetector(nn.Module):
    """One image [3, height, width] with values of 0 to 1 in; boxes [n, 4], scores [n] and labels [n] out."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.detector([image])[0]
        return tuple(found[name] for name in OUTPUTS)


def build_detector(network: Network) -> nn.Module:
    """A detector with random weights for images of the network's size."""
    ensure_compiled_operators()
    torch.manual_seed(0)
    two_stages = "rcnn" in network.name
    options = dict(_TWO_STAGES if two_stages else _ONE_STAGE)
    if not network.name.startswith("ssd"):  # whose size is fixed
        options |= {"min_size": network.size, "max_size": network.size}
    models = torchvision_models()
    found: nn.Module = models.get_model(network.name, weights=None, weights_backbone=None, **options)
    settle(found.backbone, network.size)
    for module in found.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.1)
    return WholeDetector(found).eval()
