"""A whole detector of torchvision in two stages, with the choice of boxes, as the TorchScript exporter writes it.

tools/architectures.py does the same for all of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import networks
from zoo.compiled import ensure_compiled_operators, nms
from zoo.forms import form_of
from zoo.measure import measure

import onnxlrp
from tests.support.evaluate import run_onnxruntime


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    (network,) = networks.networks(("fasterrcnn_mobilenet_v3_large_320_fpn",), ("detectors",))
    form = form_of(network)
    path = tmp_path_factory.mktemp("detector") / "model.onnx"
    return form.export(form.build(network), network.size, "torchscript", path, "batch"), form.sample(network.size)


def test_it_verifies(detector: tuple[Path, np.ndarray]) -> None:
    path, image = detector
    row = measure("detector", "torchscript", path, image, "epsilon-plus", outputs=("scores",), target="seed")
    assert row.reason == ""


def test_the_seed_chooses_the_box(detector: tuple[Path, np.ndarray]) -> None:
    """The maps of two boxes add up to the map of both, and are not the same."""
    path, image = detector
    emitted = onnxlrp.convert(path, rules="epsilon-plus", outputs=("scores",), target="seed")
    count = run_onnxruntime(emitted, {"image": image, "lrp_seed": np.zeros(10, np.float32)})["scores"].size
    maps = [
        run_onnxruntime(emitted, {"image": image, "lrp_seed": seed.astype(np.float32)})["image_relevance"]
        for seed in (np.eye(count)[0], np.eye(count)[1], np.eye(count)[:2].sum(0))
    ]
    assert np.linalg.norm(maps[0] + maps[1] - maps[2]) < 1e-4 * np.linalg.norm(maps[2])
    assert np.linalg.norm(maps[0] - maps[1]) > 0.1 * np.linalg.norm(maps[0])


def test_boxes_that_overlap_a_better_one_go() -> None:
    """The stand-in for torchvision's compiled operator, on boxes whose overlaps are plain to see."""
    ensure_compiled_operators()
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [1, 1, 3, 3], [5, 5, 6, 6]])
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.8, 0.1]), 0.5).tolist() == [1, 2, 3]
    # The second and the third share 0.9 of the 6.9 that they cover.
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.8, 0.1]), 0.1).tolist() == [1, 3]
