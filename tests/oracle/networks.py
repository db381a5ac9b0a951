"""torchvision networks with random weights and non-trivial statistics, and what zennit needs to be right."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from zennit.canonizers import AttributeCanonizer, Canonizer, SequentialMergeBatchNorm
from zennit.layer import Sum
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer

SIZE = 64


def _vgg11_bn() -> nn.Module:
    """VGG-11 with a smaller head: 64 by 64 pixels leave 2 by 2, averaged to one."""
    network = torchvision.models.vgg11_bn(num_classes=1, init_weights=False)
    network.avgpool = nn.AdaptiveAvgPool2d((1, 1))
    network.classifier = nn.Sequential(
        nn.Linear(512, 256),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(256, 128),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(128, 20),
    )
    return network


BUILDERS: Mapping[str, Callable[[], nn.Module]] = {
    "vgg11_bn": _vgg11_bn,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=20),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=20),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=20),
    "squeezenet1_1": lambda: torchvision.models.squeezenet1_1(num_classes=20),
}


def network(name: str, seed: int = 0) -> nn.Module:
    """The network in float32 and evaluation mode; `.double()` gives the same numbers in float64."""
    torch.manual_seed(seed)
    return randomise(BUILDERS[name]())


def images(batch: int, seed: int = 1, size: int = SIZE) -> Tensor:
    """Smooth random images within the normalised ImageNet range [batch, 3, size, size], float32."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, size // 4, size // 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth + 0.2 * torch.randn(batch, 3, size, size, generator=generator)).clamp(-2.1, 2.6)


def randomise(model: nn.Module, size: int = SIZE) -> nn.Module:
    """Random scales, biases and statistics of the size that training leaves: no layer dies or explodes."""
    normalisations = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None:
                m.bias.copy_(0.1 * torch.randn_like(m.bias))
            elif isinstance(m, nn.Dropout):
                m.p = 0.0
        for m in normalisations:
            m.weight.copy_(0.5 + torch.rand_like(m.weight))
            m.weight[::7] *= -1  # a merge must mind the sign
            m.bias.copy_(0.3 * torch.randn_like(m.bias))
            m.reset_running_stats()
            m.momentum = None  # plain average
        if normalisations:
            model.train()
            model(images(8, seed=9, size=size))
        for m in normalisations:
            deviation = m.running_var.sqrt()
            m.running_mean += 0.1 * deviation * torch.randn_like(deviation)
            m.running_var *= 0.8 + 0.5 * torch.rand_like(deviation)
    return model.eval()


class _ExactMerge(SequentialMergeBatchNorm):
    """zennit's merge of BatchNorm leaves its epsilon behind, a factor 1 / sqrt(1 + epsilon) per layer: not so here."""

    def register(self, linears: Any, batch_norm: Any) -> None:
        super().register(linears, batch_norm)
        self.epsilon = batch_norm.eps
        batch_norm.eps = 0.0

    def remove(self) -> None:
        super().remove()
        self.batch_norm.eps = self.epsilon


class _ResidualCanonizer(AttributeCanonizer):
    """The addition in an inverted residual block becomes a Sum module, to which a rule can be attached."""

    def __init__(self) -> None:
        super().__init__(self._attributes)

    @classmethod
    def _attributes(cls, name: str, module: nn.Module) -> dict[str, Any] | None:
        if isinstance(module, InvertedResidual) and module.use_res_connect:
            return {"forward": cls._forward.__get__(module), "canonizer_sum": Sum()}
        return None

    @staticmethod
    def _forward(self: Any, x: Tensor) -> Tensor:
        return self.canonizer_sum(torch.stack([x, self.conv(x)], dim=-1))


class _PoolCanonizer(AttributeCanonizer):
    """The functional average pool of MobileNetV2 becomes a module."""

    def __init__(self) -> None:
        super().__init__(self._attributes)

    @classmethod
    def _attributes(cls, name: str, module: nn.Module) -> dict[str, Any] | None:
        if isinstance(module, MobileNetV2):
            return {"forward": cls._forward.__get__(module), "canonizer_pool": nn.AdaptiveAvgPool2d((1, 1))}
        return None

    @staticmethod
    def _forward(self: Any, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.canonizer_pool(self.features(x)), 1))


def canonizers(name: str) -> list[Canonizer]:
    """What zennit must do to the network before its composites are right."""
    if name.startswith("resnet"):
        return [_ExactMerge(), ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()]
    if name.startswith("mobilenet"):
        return [_ExactMerge(), _ResidualCanonizer(), _PoolCanonizer()]
    return [_ExactMerge()]


def export(
    model: nn.Module, x: Tensor, *, dynamo: bool = False, keep_batch_normalization: bool = True
) -> onnx.ModelProto:
    """The network as ONNX with a dynamic batch, by one of the two exporters of torch."""
    if dynamo:
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
        return program.model_proto
    mode = torch.onnx.TrainingMode.PRESERVE if keep_batch_normalization else torch.onnx.TrainingMode.EVAL
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (x,),
        file,
        dynamo=False,
        training=mode,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        opset_version=18,
    )
    return onnx.load_from_string(file.getvalue())
