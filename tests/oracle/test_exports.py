"""torchvision's classifiers by both exporters of torch: the ledger closes and the maps are the same.

One network stands for each family whose operators are treated; those with attention are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch import Tensor

import onnxlrp
from onnxlrp import verify
from tests.oracle.networks import BUILDERS, export, images, randomise
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime, run_reference, to_float64

#: name -> image size
ARCHITECTURES: Mapping[str, int] = {
    "alexnet": 224,
    "vgg11_bn": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "densenet121": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "squeezenet1_0": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "shufflenet_v2_x0_5": 64,
    "mnasnet0_5": 64,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
}
EXPORTERS = {"dynamo": True, "torchscript": False}


@cache
def exported(name: str, exporter: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    extra = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    build = BUILDERS.get(name) or partial(getattr(torchvision.models, name), num_classes=20, **extra)
    network = randomise(build(), size=ARCHITECTURES[name])
    x = images(2, size=ARCHITECTURES[name])
    return export(network, x, dynamo=EXPORTERS[exporter], keep_batch_normalization=False)


def data(name: str, batch: int) -> Tensor:
    return images(batch, seed=3, size=ARCHITECTURES[name])


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_ledger_closes(name: str, exporter: str) -> None:
    model = exported(name, exporter)
    report = verify(model, {model.graph.input[0].name: data(name, 2).numpy()})
    assert [check for check in report.checks if not check.passed] == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_exports_give_the_same_map(name: str) -> None:
    """In float64, where the order of a sum does not matter; the exporters fold in float32, hence 1e-3."""
    maps = []
    for exporter in EXPORTERS:
        model = exported(name, exporter)
        x = model.graph.input[0].name
        emitted = to_float64(onnxlrp.convert(model, rules="epsilon-plus"))
        maps.append(run_reference(emitted, {x: data(name, 2).double().numpy()})[f"{x}_relevance"])
    assert np.isfinite(maps[0]).all()
    assert np.abs(maps[0]).max() > 0
    assert relative_l2(maps[1], maps[0]) < 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_batch_is_dynamic(name: str) -> None:
    """Three samples together give what each gives alone."""
    model = exported(name, "dynamo")
    x = model.graph.input[0].name
    emitted = onnxlrp.convert(model, rules="epsilon-plus")
    samples = data(name, 3).numpy()
    together = run_onnxruntime(emitted, {x: samples})[f"{x}_relevance"]
    for i in range(3):
        alone = run_onnxruntime(emitted, {x: samples[i : i + 1]})[f"{x}_relevance"]
        assert cosine(alone, together[i : i + 1]) > 0.999
