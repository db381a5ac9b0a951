"""Networks with what goes wrong in practice: several consumers of a tensor, a weight used twice, residuals.

Its relevance is worked out step by step with the matrix replicas and compared with the emitted model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.support.evaluate import reference, relative_l2
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient
from tests.support.models import Net
from tests.support.replicas import Dense, dense, propagate

Array = np.ndarray

_r = np.random.default_rng(11)
FIRST, FIRST_BIAS = _r.normal(size=(3, 2, 3, 3)), _r.normal(size=3)
SHARED = _r.normal(size=(3, 3, 3, 3))
HEAD, HEAD_BIAS = _r.normal(size=(4, 3)), _r.normal(size=4)
X = _r.normal(size=(2, 2, 4, 4))
PADS = [1, 1, 1, 1]


def network(dynamic: bool) -> Any:
    """h = relu(conv x); y = head(mean(h + shared(relu(shared(h))))), and h once more behind the sum."""
    net = Net(np.float64)
    x = net.input("x", ["n", 2, "rows", "columns"] if dynamic else X.shape)
    shared = net.constant(SHARED)
    h = net.op("Relu", net.op("Conv", x, net.constant(FIRST), net.constant(FIRST_BIAS), pads=PADS))
    inner = net.op("Relu", net.op("Conv", h, shared, pads=PADS))
    total = net.op("Sum", h, net.op("Conv", inner, shared, pads=PADS), h)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", total))
    return net.model(net.op("Gemm", pooled, net.constant(HEAD), net.constant(HEAD_BIAS), transB=1), ranks=[2])


def convolution(weight: Array, bias: Array | None, shape: tuple[int, ...]) -> Dense:
    net = Net(np.float64)
    operands = [net.constant(weight), *([] if bias is None else [net.constant(bias)])]
    y = net.op("Conv", net.input("x", shape), *operands, pads=PADS)
    run = reference(net.model(y))
    return dense(lambda v: run({"x": v})[y], shape)


class Layers:
    """The same network as matrices, and every tensor on the way."""

    def __init__(self) -> None:
        wide = (2, 3, 4, 4)
        self.first, self.shared = convolution(FIRST, FIRST_BIAS, X.shape), convolution(SHARED, None, wide)
        self.h = np.maximum(self.first(X), 0)
        self.inner = np.maximum(self.shared(self.h), 0)
        self.outer = self.shared(self.inner)
        self.total = self.h + self.outer + self.h
        self.mean = dense(lambda v: v.mean(axis=(2, 3)), wide)
        self.head = dense(lambda v: v @ HEAD.T + HEAD_BIAS, (2, 3))

    def propagate(self, relevance: Array, hidden: Mapping[str, Any], first: Mapping[str, Any]) -> Array:
        """`hidden` and `first` name the rule of the inner convolutions and of the first, with parameters."""
        r = propagate(self.head, "epsilon", {}, self.mean(self.total), relevance)
        r = propagate(self.mean, "epsilon", {}, self.total, r)
        s = r / (self.total + 1e-6 * np.where(self.total >= 0, 1, -1))
        inner = propagate(self.shared, x=self.inner, relevance=self.outer * s, **hidden)
        h = 2 * self.h * s + propagate(self.shared, x=self.h, relevance=inner, **hidden)
        return propagate(self.first, x=X, relevance=h, **first)


def _rule(name: str, **parameters: float) -> dict[str, Any]:
    return {"rule": name, "parameters": parameters}


COMPOSITES = {
    "epsilon": (_rule("epsilon"), _rule("epsilon")),
    "epsilon-plus": (_rule("z-plus"), _rule("z-plus")),
    "epsilon-plus-flat": (_rule("z-plus"), _rule("flat")),
    "epsilon-alpha2-beta1": (_rule("alpha-beta", alpha=2, beta=1), _rule("alpha-beta", alpha=2, beta=1)),
    "epsilon-alpha2-beta1-flat": (_rule("alpha-beta", alpha=2, beta=1), _rule("flat")),
    "epsilon-gamma-box": (_rule("gamma", gamma=0.25), _rule("z-box", low=-2.12, high=2.64)),
    "default": (_rule("z-plus"), _rule("z-plus")),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("table", COMPOSITES)
def test_a_whole_network(table: str, dynamic: bool) -> None:
    explained = explain_seeded(network(dynamic), table, {"x": X})
    expected = Layers().propagate(explained.seeded, *COMPOSITES[table])
    assert relative_l2(explained.relevance["x"], expected) < 1e-9


def test_its_gradient() -> None:
    model = network(dynamic=True)
    explained = explain_seeded(model, "gradient-x-input", {"x": X})
    run, y = reference(model), model.graph.output[0].name
    gradient = central_gradient(lambda at: float((explained.seed * run(at)[y]).sum()), {"x": X}, "x")
    assert relative_l2(explained.relevance["x"], X * gradient) < 1e-7


def test_relevance_is_linear_in_the_seed() -> None:
    """What two seeds give adds up to what their sum gives."""
    model = network(dynamic=False)
    one, two = (explain_seeded(model, "epsilon-plus", {"x": X}, random_seed=s) for s in (1, 2))
    both = explain_seeded(model, "epsilon-plus", {"x": X}, seed=one.seed + two.seed)
    assert relative_l2(both.relevance["x"], one.relevance["x"] + two.relevance["x"]) < 1e-12
