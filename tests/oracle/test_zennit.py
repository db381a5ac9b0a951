"""Whole networks against zennit, in float64 and in float32, for every rule table that zennit also has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from zennit.composites import (
    DeconvNet,
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    GuidedBackprop,
    LayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import Epsilon
from zennit.types import Linear

import onnxlrp
from tests.oracle.networks import BUILDERS, canonizers, export, images, network
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime, run_reference, to_float64

#: Of the table epsilon-gamma-box; zennit would round plain numbers to float32.
LOW, HIGH = torch.tensor(-2.12, dtype=torch.float64), torch.tensor(2.64, dtype=torch.float64)


def _epsilon(canonizers: list[object]) -> Composite:
    return LayerMapComposite([*layer_map_base(), (Linear, Epsilon())], canonizers=canonizers)


COMPOSITES: Mapping[str, Callable[[list[object]], Composite]] = {
    "epsilon": _epsilon,
    "epsilon-plus": lambda c: EpsilonPlus(canonizers=c),
    "epsilon-plus-flat": lambda c: EpsilonPlusFlat(canonizers=c),
    "epsilon-alpha2-beta1": lambda c: EpsilonAlpha2Beta1(canonizers=c),
    "epsilon-alpha2-beta1-flat": lambda c: EpsilonAlpha2Beta1Flat(canonizers=c),
    "epsilon-gamma-box": lambda c: EpsilonGammaBox(low=LOW, high=HIGH, canonizers=c),
    "excitation-backprop": lambda c: ExcitationBackprop(canonizers=c),
    "deconvnet": lambda c: DeconvNet(canonizers=c),
    "guided-backprop": lambda c: GuidedBackprop(canonizers=c),
}
#: These yield a modified gradient of the logit, the others the relevance that the logit is worth.
GRADIENTS = ("deconvnet", "guided-backprop")


@cache
def model(name: str) -> onnx.ModelProto:
    return export(network(name), images(2))


def logits_of_winners(y: Tensor) -> Tensor:
    """The logit of each sample's most likely class at its place, zero elsewhere."""
    return torch.where(y == y.max(dim=1, keepdim=True).values, y, 0.0)


def by_zennit(name: str, table: str, x: Tensor) -> np.ndarray:
    double = network(name).double()
    x = x.double().requires_grad_()
    with COMPOSITES[table](canonizers(name)).context(double) as modified:
        y = modified(x)
        seed = logits_of_winners(y.detach())
        if table in GRADIENTS:
            seed = (seed != 0).double()
        (relevance,) = torch.autograd.grad(y, x, seed)
    return relevance.numpy()


def check(name: str, table: str, expected: np.ndarray, x: Tensor) -> None:
    emitted = onnxlrp.convert(model(name), rules=table)
    in_float64 = run_reference(to_float64(emitted), {"x": x.double().numpy()})["x_relevance"]
    assert cosine(in_float64, expected) >= 0.9999
    assert relative_l2(in_float64, expected) <= 1e-6  # what float32 weights and attributes leave
    in_float32 = run_onnxruntime(emitted, {"x": x.numpy()})["x_relevance"]
    assert cosine(in_float32, expected) >= 0.999


@pytest.mark.parametrize("table", COMPOSITES)
@pytest.mark.parametrize("name", BUILDERS)
def test_a_rule_table_is_the_composite_of_zennit(name: str, table: str) -> None:
    x = images(2)
    check(name, table, by_zennit(name, table, x), x)


@pytest.mark.parametrize("name", BUILDERS)
def test_gradient_x_input(name: str) -> None:
    x = images(2)
    double: nn.Module = network(name).double()
    data = x.double().requires_grad_()
    y = double(data)
    (gradient,) = torch.autograd.grad(y, data, (logits_of_winners(y.detach()) != 0).double())
    check(name, "gradient-x-input", (data * gradient).detach().numpy(), x)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_networks_are_worth_comparing(name: str) -> None:
    """Live activations, logits that differ between images, and the same forward pass in both worlds."""
    x = images(2)
    y = network(name).double()(x.double()).detach().numpy()
    assert 0.05 < np.abs(y).max() < 1e3
    assert relative_l2(y[1:], y[:1]) > 1e-3
    assert y.max(axis=1).min() > 0
    assert relative_l2(run_reference(to_float64(model(name)), {"x": x.double().numpy()})["y"], y) < 1e-8
