"""Members of torchvision's families that tests/oracle leaves out, by both exporters of torch.

tools/architectures.py does the same for every network of torchvision; that takes hours, so that its functions are
used here on a few.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from zoo import networks
from zoo.export import EXPORTERS
from zoo.export import export as write
from zoo.measure import measure, relevance
from zoo.networks import Array, Network, build, images, smallest_size

from tests.support.evaluate import cosine, relative_l2

#: Deeper, wider, or with other blocks than the smallest of the family.
NETWORKS = (
    *("resnet50", "efficientnet_v2_s", "mobilenet_v3_large", "mnasnet1_3", "regnet_x_400mf"),
    *("shufflenet_v2_x2_0", "squeezenet1_1"),
)
#: Networks that keep working when height and width are open as well.
OPEN_SIZES = ("resnet18", "densenet121", "efficientnet_b0", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5")


def described(name: str) -> Network:
    (found,) = networks.networks((name,), ("classification",))
    return found


@cache
def network(name: str) -> nn.Module:
    return build(described(name))


def export(name: str, exporter: str, folder: Path, dynamic: str = "batch") -> Path:
    return write(network(name), smallest_size(name), exporter, folder / f"{exporter}.onnx", dynamic)


def image(name: str, batch: int = 3, larger: int = 0) -> Array:
    return images(batch, smallest_size(name) + larger)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_exports_verify_and_give_one_map(name: str, tmp_path: Path) -> None:
    maps = []
    for exporter in EXPORTERS:
        path = export(name, exporter, tmp_path)
        row = measure(name, exporter, path, image(name), "epsilon-plus")
        assert row.reason == ""
        assert row.ledger is not None
        assert row.ledger < 1e-3
        maps.append(relevance(path, image(name), "epsilon-plus"))
    assert np.abs(maps[0]).max() > 0
    # In float32, in which the exporters' graphs round differently.
    assert cosine(maps[1], maps[0]) > 0.9999
    assert relative_l2(maps[1], maps[0]) < 1e-2


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", OPEN_SIZES)
def test_height_and_width_may_be_open(name: str, exporter: str, tmp_path: Path) -> None:
    """Run at another size than that of the export: the map is that of an export at this very size."""
    sample = image(name, batch=2, larger=32)
    path = export(name, exporter, tmp_path, "all")
    row = measure(name, exporter, path, sample, "epsilon-plus")
    assert row.reason == ""
    fixed = write(network(name), sample.shape[2], exporter, tmp_path / "fixed.onnx", "batch")
    expected = relevance(fixed, sample, "epsilon-plus")
    assert relative_l2(relevance(path, sample, "epsilon-plus"), expected) < 1e-3
