"""Networks that are chains of operators, as models and as stacks of dense matrices with the textbook rules between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

import onnxlrp
from onnxlrp.tables import RuleTable
from tests.support.evaluate import run_reference, to_float64
from tests.support.models import Net
from tests.support.replicas import Dense, dense, propagate

Array = np.ndarray
Shape = tuple[int, ...]
#: Of the rules, as their tables have them.
DEFAULTS: Mapping[str, Any] = {"epsilon": 1e-6, "alpha": 2.0, "beta": 1.0, "gamma": 0.5}


@dataclass(frozen=True)
class Op:
    """An operator with its constants."""

    name: str
    constants: tuple[Array, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()

    def add(self, net: Net, x: str) -> str:
        return net.op(self.name, x, *map(net.constant, self.constants), **dict(self.attributes))


class Layers:
    """Layers with random constants, the same for the same seed and order."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def norm(self, channels: int, *, signs: bool = False) -> Op:
        scale = self.rng.uniform(0.5, 2.0, channels) * (np.resize([1, -1], channels) if signs else 1)
        values = (
            scale,
            self.rng.normal(size=channels),
            self.rng.normal(size=channels),
            self.rng.uniform(0.3, 3.0, channels),
        )
        return Op("BatchNormalization", values, (("epsilon", 1e-3),))

    def conv(self, into: int, out: int, pads: int = 0, *, bias: bool = True) -> Op:
        constants = (self.rng.normal(size=(out, into, 3, 3)), *((self.rng.normal(size=out),) if bias else ()))
        return Op("Conv", constants, (("pads", [pads] * 4),))

    def transposed(self, into: int, out: int) -> Op:
        return Op(
            "ConvTranspose",
            (self.rng.normal(size=(into, out, 2, 2)), self.rng.normal(size=out)),
            (("strides", [2, 2]),),
        )

    def gemm(self, into: int, out: int) -> Op:
        return Op("Gemm", (self.rng.normal(size=(into, out)), self.rng.normal(size=out)))


RELU, FLAT = Op("Relu"), Op("Flatten")


def built(ops: Sequence[Op], shape: Shape) -> onnx.ModelProto:
    net = Net(np.float64)
    y = net.input("x", ["n", *shape])
    for op in ops:
        y = op.add(net, y)
    return net.model(y)


def apply(ops: Sequence[Op], x: Array) -> Array:
    model = built(ops, x.shape)
    (y,) = run_reference(model, {"x": x[None]}).values()
    return y[0]


def emitted_map(model: onnx.ModelProto, rules: RuleTable, x: Array) -> tuple[Array, Array]:
    """(relevance of x, output) for the largest element of the output."""
    emitted = onnxlrp.convert(model, rules=rules)
    found = run_reference(to_float64(emitted), {"x": x[None]})
    return found["x_relevance"][0], found[model.graph.output[0].name][0]


def back(op: Dense, rule: str, x: Array, relevance: Array, parameters: Mapping[str, Any] = DEFAULTS) -> Array:
    """Relevance of x from that of the output of an affine map."""
    return propagate(op, rule, parameters, x, relevance)


Treat = Callable[[int], tuple[str, Mapping[str, Any]]]


def replica(runs: Sequence[Sequence[Op]], rule: str | Treat, x: Array) -> tuple[Array, Array]:
    """(relevance of x, output) with every run that is no Relu as one dense layer.

    Args:
        rule: of all layers, or the rule and parameters of layer number i.
    """
    treat: Treat = rule if callable(rule) else lambda i: (rule, DEFAULTS)
    values, layers = [x], []
    for run in runs:
        if run == (RELU,):
            layers.append(None)
            values.append(np.maximum(values[-1], 0))
        else:
            layers.append(dense(lambda v, run=run: apply(run, v), values[-1].shape))
            values.append(layers[-1](values[-1]))
    relevance = values[-1] * np.eye(values[-1].size)[values[-1].argmax()]
    number = sum(layer is not None for layer in layers)
    for layer, value in zip(reversed(layers), reversed(values[:-1]), strict=True):
        if layer is not None:
            number -= 1
            relevance = back(layer, treat(number)[0], value, relevance, treat(number)[1])
    return relevance, values[-1]
