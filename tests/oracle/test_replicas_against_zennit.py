"""The slow replicas that the default tests rely on are themselves the rules of zennit, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from zennit.core import Stabilizer
from zennit.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, WSquare, ZBox, ZPlus

from tests.support.evaluate import relative_l2
from tests.support.replicas import dense, propagate

LOW = np.linspace(-3.0, -2.0, 4)
HIGH = np.linspace(2.0, 3.5, 4)

RULES = {
    "epsilon": (Epsilon(), "epsilon", {}),
    "epsilon-large": (Epsilon(0.25), "epsilon", {"epsilon": 0.25}),
    "epsilon-clip": (Epsilon(Stabilizer(0.1, clip=True)), "epsilon", {"epsilon": 0.1, "stabiliser": "clip"}),
    "epsilon-norm": (
        Epsilon(Stabilizer(0.2, norm_scale=True)),
        "epsilon",
        {"epsilon": 0.2, "stabiliser": "norm"},
    ),
    "epsilon-no-bias": (Epsilon(zero_params=["bias"]), "epsilon", {"bias": "ignore"}),
    "norm": (Norm(), "norm", {}),
    "z-plus": (ZPlus(), "z-plus", {}),
    "z-plus-no-bias": (ZPlus(zero_params=["bias"]), "z-plus", {"bias": "ignore"}),
    "alpha-beta": (AlphaBeta(2.0, 1.0), "alpha-beta", {"alpha": 2.0, "beta": 1.0}),
    "alpha-beta-norm": (
        AlphaBeta(3.0, 2.0, stabilizer=Stabilizer(0.3, norm_scale=True)),
        "alpha-beta",
        {"alpha": 3.0, "beta": 2.0, "epsilon": 0.3, "stabiliser": "norm"},
    ),
    "gamma": (Gamma(0.25), "gamma", {"gamma": 0.25}),
    "gamma-large": (Gamma(10.0, stabilizer=0.1), "gamma", {"gamma": 10.0, "epsilon": 0.1}),
    "z-box": (ZBox(-3.0, 2.5), "z-box", {"low": -3.0, "high": 2.5}),
    "w-square": (WSquare(), "w-square", {}),
    "w-square-no-bias": (WSquare(zero_params=["bias"]), "w-square", {"bias": "ignore"}),
    "flat": (Flat(), "flat", {}),
    "flat-norm": (Flat(Stabilizer(0.1, norm_scale=True)), "flat", {"epsilon": 0.1, "stabiliser": "norm"}),
}

LAYERS = {
    "linear": (lambda: torch.nn.Linear(6, 5), (2, 6)),
    "conv": (lambda: torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=(1, 2), groups=2), (2, 4, 6, 7)),
    "conv1d": (lambda: torch.nn.Conv1d(4, 3, 3, padding=2, bias=False), (2, 4, 6)),
    "transposed": (
        lambda: torch.nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 4, 3, 3),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_a_replica_is_the_rule_of_zennit(rule: str, layer: str) -> None:
    generator = np.random.default_rng(7)
    torch.manual_seed(3)
    build, shape = LAYERS[layer]
    module = build().double().eval()
    x = generator.normal(size=shape)
    hook, name, parameters = RULES[rule]

    def forward(array: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(array)).numpy()

    relevance = generator.normal(size=forward(x).shape)
    expected = _zennit(module, hook, x, relevance)
    actual = propagate(dense(forward, shape), name, parameters, x, relevance)
    assert relative_l2(actual, expected) < 1e-12


def test_bounds_per_channel_are_the_planes_of_zennit() -> None:
    generator = np.random.default_rng(8)
    torch.manual_seed(4)
    module = torch.nn.Conv2d(4, 3, 3, padding=1).double().eval()
    x = generator.normal(size=(2, 4, 5, 5))
    low, high = LOW[None, :, None, None], HIGH[None, :, None, None]

    def forward(array: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(array)).numpy()

    relevance = generator.normal(size=forward(x).shape)
    expected = _zennit(module, ZBox(torch.from_numpy(low), torch.from_numpy(high)), x, relevance)
    actual = propagate(dense(forward, x.shape), "z-box", {"low": low, "high": high}, x, relevance)
    assert relative_l2(actual, expected) < 1e-12


def _zennit(module: torch.nn.Module, hook: object, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Relevance of x by the hook."""
    hook = hook.copy()
    handles = hook.register(module)
    data = torch.from_numpy(x).requires_grad_()
    (result,) = torch.autograd.grad(module(data), data, torch.from_numpy(relevance))
    handles.remove()
    return result.numpy()
