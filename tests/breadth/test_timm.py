"""Small members of timm's families, whose blocks torchvision does not have, by both exporters of torch.

tools/architectures.py does the same for a member of every family of timm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from zoo import networks
from zoo.export import EXPORTERS, export
from zoo.measure import measure, relevance
from zoo.networks import build, images

from tests.support.evaluate import cosine, relative_l2

#: Gated blocks, a product of two branches, attention with relative positions, linear attention on feature maps, blocks
#: of convolution and attention, split depthwise convolutions with attention across channels, ghost features, and
#: attention over reduced maps.
NETWORKS = (
    *("test_mambaout", "starnet_s050", "test_vit_relpos", "cpubone_nano"),
    *("mobilevit_xxs", "edgenext_xx_small", "ghostnet_050", "pvt_v2_b0"),
)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_exports_verify_and_give_one_map(name: str, tmp_path: Path) -> None:
    (network,) = networks.networks((name,), ("timm",))
    model, sample = build(network), images(3, network.size)
    maps = []
    for exporter in EXPORTERS:
        path = export(model, network.size, exporter, tmp_path / f"{exporter}.onnx")
        row = measure(name, exporter, path, sample, "epsilon-plus")
        assert row.reason == ""
        assert row.ledger is not None
        assert row.ledger < 1e-3
        maps.append(relevance(path, sample, "epsilon-plus"))
    assert np.abs(maps[0]).max() > 0
    # In float32, in which the exporters' graphs round differently.
    assert cosine(maps[1], maps[0]) > 0.9999
    assert relative_l2(maps[1], maps[0]) < 1e-2
