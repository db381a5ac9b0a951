"""Operators on one element at a time: activations, scalings, products, gates, quotients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.support.case import Case, alone, constant, joined, with_constants
from tests.support.models import Net


def _prelu(net: Net, x: str) -> str:
    return net.op("PRelu", x, net.constant([[[0.3]], [[-0.2]], [[1.5]]]))


def _sigmoid(net: Net, x: str) -> str:
    """Not as the last operator, where it would be taken for a head and stepped over."""
    return net.op("Mul", net.op("Sigmoid", x), net.constant(2.0))


def _silu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x))


def _gelu(net: Net, x: str) -> str:
    erf = net.op("Erf", net.op("Div", x, net.constant(np.sqrt(2.0))))
    return net.op("Mul", net.op("Mul", x, net.op("Add", erf, net.constant(1.0))), net.constant(0.5))


def _hard_swish(net: Net, x: str) -> str:
    clipped = net.op("Clip", net.op("Add", x, net.constant(3.0)), net.constant(0.0), net.constant(6.0))
    return net.op("Div", net.op("Mul", x, clipped), net.constant(6.0))


def _hard_swish_of_gate(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


ACTIVATIONS: Mapping[str, Case] = {
    "relu": alone("Relu", 2, 3, 4),
    "leakyrelu": alone("LeakyRelu", 2, 3, 4, alpha=0.2),
    "prelu": Case(((2, 3, 2, 2),), _prelu, 4),
    "elu": alone("Elu", 2, 3, 4, alpha=0.7),
    "selu": alone("Selu", 2, 3, 4),
    "celu": alone("Celu", 2, 3, 4, alpha=1.5),
    "thresholdedrelu": alone("ThresholdedRelu", 2, 3, 4, alpha=0.55),
    "clip": with_constants("Clip", (2, 3, 4), np.array(-0.55), np.array(0.95)),
    "clip-below": with_constants("Clip", (2, 3, 4), np.array(-0.55)),
    "clip-above": with_constants("Clip", (2, 3, 4), None, np.array(0.95)),
    "sigmoid": Case(((2, 3, 4),), _sigmoid, 3),
    "hardsigmoid": alone("HardSigmoid", 2, 3, 4, alpha=0.4, beta=0.45),
    "hardswish": alone("HardSwish", 2, 3, 4),
    "tanh": alone("Tanh", 2, 3, 4),
    "softplus": alone("Softplus", 2, 3, 4),
    "softsign": alone("Softsign", 2, 3, 4),
    "mish": alone("Mish", 2, 3, 4),
    "gelu": alone("Gelu", 2, 3, 4),
    "gelu-tanh": alone("Gelu", 2, 3, 4, approximate="tanh"),
    "erf": alone("Erf", 2, 3, 4),
    "exp": alone("Exp", 2, 3, 4),
    "log": alone("Log", 2, 3, 4, low=0.5),
    "sqrt": alone("Sqrt", 2, 3, 4, low=0.5),
    "abs": alone("Abs", 2, 3, 4),
    "reciprocal": alone("Reciprocal", 2, 3, 4, low=0.5),
    "square": with_constants("Pow", (2, 3, 4), np.array(2.0)),
    "cube": with_constants("Pow", (2, 3, 4), np.array(3.0)),
    "silu-primitive": Case(((2, 3, 4),), _silu, 3),
    "gelu-primitive": Case(((2, 3, 4),), _gelu, 3),
    "hardswish-primitive": Case(((2, 3, 4),), _hard_swish, 3),
    "hardswish-of-gate": Case(((2, 3, 4),), _hard_swish_of_gate, 3),
}

SCALINGS: Mapping[str, Case] = {
    "mul-constant": with_constants("Mul", (2, 3), constant(3)),
    "mul-larger-constant": with_constants("Mul", (1, 3), constant(2, 4, 3), rank=3),
    "constant-times-data": Case(
        ((2, 3),), lambda net, x: net.op("Mul", net.constant(constant(2, 1)), x), 2, frozen=(0,)
    ),
    "div-constant": with_constants("Div", (2, 3), constant(3)),
    "neg": alone("Neg", 2, 3),
}


def _gated(net: Net, x: str, g: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", g))


def _squeeze_excite(net: Net, x: str) -> str:
    pooled = net.op("GlobalAveragePool", x)
    hidden = net.op("Conv", pooled, net.constant(constant(2, 3, 1, 1)))
    gate = net.op("Sigmoid", net.op("Conv", net.op("Relu", hidden), net.constant(constant(3, 2, 1, 1))))
    return net.op("Mul", gate, x)


GATES: Mapping[str, Case] = {
    "gate": Case(((2, 3), (2, 3)), _gated, 2),
    "gate-broadcast": Case(((2, 3, 4), (3, 1)), _gated, 3),
    "signal-broadcast": Case(((3, 1), (2, 3, 4)), _gated, 3),
}

PRODUCTS: Mapping[str, Case] = {
    "mul": joined("Mul", (2, 3), (2, 3), rank=2),
    "mul-broadcast": joined("Mul", (2, 1, 3), (4, 1), rank=3),
    "mul-itself": Case(((2, 3),), lambda net, x: net.op("Mul", x, x), 2),
}

QUOTIENTS: Mapping[str, Case] = {
    "div": Case(((2, 3), (2, 3)), lambda net, x, z: net.op("Div", x, z), 2, low=0.5),
    "div-broadcast": Case(((2, 1, 3), (4, 1)), lambda net, x, z: net.op("Div", x, z), 3, low=0.5),
    "constant-over-data": Case(((2, 3),), lambda net, x: net.op("Div", net.constant(constant(3)), x), 2, low=0.5),
}


SQUEEZE_EXCITE: Mapping[str, Case] = {"squeeze-and-excite": Case(((2, 3, 2, 3),), _squeeze_excite, 4)}
