"""Heads and neurons as outputs, on a layer of attention and a feed-forward layer written node by node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.check.strip import strip
from onnxlrp.errors import UsageError
from onnxlrp.run.explainer import Explainer
from tests.support.evaluate import relative_l2, run_reference, to_float64
from tests.support.gradients import distinct
from tests.support.models import Net

_Q, _K, _V, _UP, _DOWN = (distinct(4, 4, seed=i) for i in range(5))


def _layer(dtype: type = np.float64) -> onnx.ModelProto:
    """h = x + softmax(x Q (x K)^T) x V with two heads of width 2; y = h + sigmoid(h U) D."""
    net = Net(dtype)
    x = net.input("x", ["batch", 3, 4])

    def heads(w: np.ndarray) -> str:
        split = net.op("Reshape", net.op("MatMul", x, net.constant(w)), net.constant(np.array([0, 0, 2, 2])))
        return net.op("Transpose", split, perm=[0, 2, 1, 3])

    q, k, v = (heads(w) for w in (_Q, _K, _V))
    weights = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    h = net.op("Add", x, net.op("Reshape", mixed, net.constant(np.array([0, 0, 4]))))
    neurons = net.op("Sigmoid", net.op("MatMul", h, net.constant(_UP)))
    return net.model(net.op("Add", h, net.op("MatMul", neurons, net.constant(_DOWN))), ranks=[3])


def _by_head(x: np.ndarray) -> np.ndarray:
    return x.reshape(2, 3, 2, 2).transpose(0, 2, 1, 3)


def test_contributions_of_heads_and_neurons() -> None:
    x, t = distinct(2, 3, 4, seed=7), distinct(2, 3, 4, seed=8)
    emitted = onnxlrp.convert(_layer(), rules="attnlrp", target="seed", components=("heads", "neurons"))
    found = run_reference(to_float64(emitted), {"x": x, "lrp_seed": t})
    q, k, v = (_by_head(x @ w) for w in (_Q, _K, _V))
    weights = np.exp(q @ k.swapaxes(2, 3))
    weights /= weights.sum(-1, keepdims=True)
    h = x + (weights @ v).transpose(0, 2, 1, 3).reshape(2, 3, 4)
    inner = h @ _UP
    neurons = 1 / (1 + np.exp(-inner))
    assert relative_l2(found["neurons_0_relevance"], neurons * (t @ _DOWN.T)) < 1e-12
    t_mid = t + (t @ _DOWN.T * neurons / inner) @ _UP.T
    assert relative_l2(found["heads_0_relevance"], weights * (_by_head(t_mid) @ v.swapaxes(2, 3))) < 1e-12


def test_they_are_named_by_layer_in_explanations_and_go_with_the_rest_of_the_conversion() -> None:
    model = _layer(np.float32)
    converted = onnxlrp.convert(model, rules="attnlrp", components=("neurons", "heads"))
    found = Explainer(converted).explain({"x": distinct(1, 3, 4).astype(np.float32)})
    assert {name: r.shape for name, r in found.relevance_of.items()} == {
        "neurons_0": (1, 3, 4),
        "heads_0": (1, 2, 3, 3),
    }
    assert [o.name for o in strip(converted).graph.output] == [o.name for o in model.graph.output]


def test_what_cannot_be_had_is_said() -> None:
    with pytest.raises(UsageError, match="none of heads, neurons"):
        onnxlrp.convert(_layer(), rules="attnlrp", components=("layers",))
    net = Net(np.float32)
    y = net.op("MatMul", net.input("x", ["batch", 4]), net.constant(_UP))
    with pytest.raises(UsageError, match="no attention"):
        onnxlrp.convert(net.model(y, ranks=[2]), rules="attnlrp", components=("heads",))
