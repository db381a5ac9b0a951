"""absLRP against its rule by the letter, on timm networks with random weights: the rule alone and the released code."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import onnxlrp
from tests.oracle.absolute_networks import Replica
from tests.oracle.networks import export, images, randomise
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime, run_reference, to_float64

# After tests.oracle.conftest, which makes torchvision importable.
from timm.layers import ClassifierHead  # isort: skip
from timm.models.resnet import BasicBlock, Bottleneck, ResNet  # isort: skip
from timm.models.vgg import VGG, ConvMlp  # isort: skip
from timm.models.vision_transformer import VisionTransformer  # isort: skip

CLASSES = 7


def _vgg() -> nn.Module:
    """Its convolutions fewer and narrower, its head 32 wide: 28 by 28 pixels leave 7 by 7."""
    network = VGG([8, 12, "M", 16, "M"], num_classes=CLASSES)
    network.pre_logits = ConvMlp(16, 32, 7)
    network.head = ClassifierHead(32, CLASSES)
    return network


BUILDERS = {
    "vgg": (_vgg, 28),
    "resnet-basic": (lambda: ResNet(BasicBlock, [2, 1, 1, 1], CLASSES, channels=(8, 12, 16, 20)), 32),
    "resnet-bottleneck": (lambda: ResNet(Bottleneck, [1, 2, 1, 1], CLASSES, channels=(8, 8, 12, 12)), 32),
    "vit": (
        lambda: VisionTransformer(
            img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES, fc_norm=False
        ),
        16,
    ),
}


@cache
def network(name: str) -> nn.Module:
    build, size = BUILDERS[name]
    torch.manual_seed(3)
    made = randomise(build(), size)
    for module in made.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    if isinstance(made, VisionTransformer):
        nn.init.normal_(made.pos_embed, 0.0, 0.5)
        nn.init.normal_(made.cls_token, 0.0, 0.5)
    return made


@cache
def model(name: str) -> onnx.ModelProto:
    return export(network(name), images(2, size=BUILDERS[name][1]))


def check(name: str, rules: str, *, reference: bool) -> None:
    x = images(2, seed=5, size=BUILDERS[name][1])
    double = network(name).double()
    try:
        expected = Replica(double, x.double(), reference=reference).contrast().numpy()
    finally:
        double.float()
    emitted = onnxlrp.convert(model(name), rules=rules)
    found = run_reference(to_float64(emitted), {"x": x.double().numpy()})["x_relevance"]
    assert relative_l2(found, expected) < 1e-4  # what float32 weights leave, where a logit nearly cancels
    assert cosine(run_onnxruntime(emitted, {"x": x.numpy()})["x_relevance"], expected) > 0.999
    assert np.abs(expected).max() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_rule_on_every_operator(name: str) -> None:
    check(name, "abslrp", reference=False)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_released_code(name: str) -> None:
    """Sign filters, undivided max-pooling in VGG, and shortcuts that get what autograd hands them."""
    check(name, "abslrp-reference-vgg" if name == "vgg" else "abslrp-reference", reference=True)
