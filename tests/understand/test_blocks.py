"""The parts of transformers that are recognised, in the forms in which exporters write them."""

from __future__ import annotations

import numpy as np
import pytest

import onnxlrp
from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Graph
from onnxlrp.read.load import load
from onnxlrp.read.prepare import prepare
from onnxlrp.understand.blocks import Block, find_blocks
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.reading import read_for_relevance
from tests.support.models import Net


def _blocks(net: Net, y: str, rank: int) -> tuple[Block, ...]:
    ready = prepare(load(net.model(y, ranks=[rank])))
    graph = Graph(ready.model, ready.inferred)
    reading = read_for_relevance(graph, Facts(graph), Builder(graph))
    return find_blocks(reading.graph, reading.facts)


def _linear(net: Net, x: str, seed: int, width: int = 4) -> str:
    return net.op("MatMul", x, net.constant(np.random.default_rng(seed).normal(size=(width, width))))


def _number(net: Net, value: float) -> str:
    return net.constant(np.array(value))


def _gelu_by_erf(net: Net, x: str) -> str:
    inner = net.op("Erf", net.op("Div", x, _number(net, np.sqrt(2.0))))
    whole = net.op("Mul", x, net.op("Add", inner, _number(net, 1.0)))
    return net.op("Mul", whole, _number(net, 0.5))


def _gelu_by_tanh(net: Net, x: str) -> str:
    cubed = net.op("Mul", net.op("Pow", x, _number(net, 3.0)), _number(net, 0.044715))
    inner = net.op("Tanh", net.op("Mul", net.op("Add", x, cubed), _number(net, 0.79788)))
    return net.op("Mul", net.op("Mul", x, _number(net, 0.5)), net.op("Add", inner, _number(net, 1.0)))


def _sigmoid_gelu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", net.op("Mul", x, _number(net, 1.702))))


def _silu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x))


def _layer_norm(net: Net, x: str) -> str:
    axes = net.constant(np.array([-1]))
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes))
    variance = net.op("ReduceMean", net.op("Pow", centred, _number(net, 2.0)), axes)
    unit = net.op("Div", centred, net.op("Sqrt", net.op("Add", variance, _number(net, 1e-5))))
    scale, shift = (net.constant(np.linspace(0.5, 1.5, 4)) for _ in range(2))
    return net.op("Add", net.op("Mul", unit, scale), shift)


def _rms_norm(net: Net, x: str) -> str:
    axes = net.constant(np.array([-1]))
    square = net.op("ReduceMean", net.op("Pow", x, _number(net, 2.0)), axes)
    inverse = net.op("Reciprocal", net.op("Sqrt", net.op("Add", square, _number(net, 1e-6))))
    return net.op("Mul", net.constant(np.linspace(0.5, 1.5, 4)), net.op("Mul", x, inverse))


@pytest.mark.parametrize(
    ("write", "name", "nodes"),
    [
        (_gelu_by_erf, "GELU", 5),
        (_gelu_by_tanh, "GELU", 7),
        (_sigmoid_gelu, "GELU", 3),
        (_silu, "SiLU", 2),
        (lambda net, x: net.op("Gelu", x), "GELU", 1),
        (_layer_norm, "LayerNorm", 9),
        (_rms_norm, "RMSNorm", 7),
        (lambda net, x: net.op("LayerNormalization", x, net.constant(np.ones(4))), "LayerNorm", 1),
    ],
)
def test_one_part(write, name: str, nodes: int) -> None:  # type: ignore[no-untyped-def]
    net = Net(np.float32)
    y = write(net, net.input("x", ["batch", 3, 4]))
    found = _blocks(net, y, 3)
    assert [block.name for block in found] == [name]
    assert len(found[0].nodes) >= nodes - 2, "scalings of the signal itself may stay outside"


def _attention(net: Net, q: str, k: str, v: str, mask: str = "") -> tuple[str, str, str]:
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), _number(net, 0.5))
    weights = net.op("Softmax", net.op("Add", scores, mask) if mask else scores, axis=-1)
    return weights, net.op("MatMul", weights, v), scores


def test_attention_says_where_its_weights_are_and_leaves_the_mask_outside() -> None:
    net = Net(np.float32)
    x, mask = net.input("x", ["batch", 3, 4]), net.input("mask", ["batch", 1, 3])
    low = net.op("Mul", net.op("Sub", mask, _number(net, 1.0)), _number(net, 1e4))
    weights, mixed, _ = _attention(net, *(_linear(net, x, i) for i in range(3)), low)
    (found,) = _blocks(net, mixed, 3)
    assert (found.name, found.tensors) == ("attention", {"weights": weights, "mixed": mixed})
    own = [node.op for node in found.nodes if node.origin is None]
    assert own == ["MatMul", "Mul", "Add", "MatMul"], "the softmax is that of scores with a bound, made for the mask"


def test_a_softmax_over_classes_is_no_attention() -> None:
    net = Net(np.float32)
    assert _blocks(net, net.op("Softmax", _linear(net, net.input("x", ["batch", 4]), 0)), 2) == ()


@pytest.mark.parametrize("gated", [False, True])
def test_a_feed_forward_layer_says_where_its_neurons_are(gated: bool) -> None:
    net = Net(np.float32)
    x = net.input("x", ["batch", 3, 4])
    neurons = _silu(net, _linear(net, x, 0))
    if gated:
        neurons = net.op("Mul", neurons, _linear(net, x, 1))
    y = net.op("Add", x, _linear(net, neurons, 2))
    found = _blocks(net, y, 3)
    name = "gated feed-forward" if gated else "feed-forward"
    assert [(b.name, dict(b.tensors)) for b in found if b.name != "SiLU"] == [(name, {"neurons": neurons})]


def test_a_pooler_is_no_feed_forward_layer() -> None:
    net = Net(np.float32)
    y = _linear(net, net.op("Tanh", _linear(net, net.input("x", ["batch", 4]), 0)), 1)
    assert _blocks(net, y, 2) == ()


def test_rotary_embedding() -> None:
    net = Net(np.float32)
    x = net.input("x", ["batch", 3, 4])
    first, second = (
        net.op("Slice", x, *(net.constant(np.array([n])) for n in (start, start + 2, -1))) for start in (0, 2)
    )
    turned = net.op("Concat", net.op("Neg", second), first, axis=-1)
    cos, sin = (net.constant(f(np.arange(12.0).reshape(3, 4))) for f in (np.cos, np.sin))
    y = net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin))
    (found,) = _blocks(net, y, 3)
    assert found.name == "rotary embedding" and len(found.nodes) == 7


def test_a_plan_counts_the_blocks_and_says_of_each_step_where_it_belongs() -> None:
    net = Net(np.float32)
    x = net.input("x", ["batch", 3, 4])
    h = net.op("Add", x, _attention(net, *(_linear(net, x, i) for i in range(3)))[1])
    y = net.op("Add", h, _linear(net, _silu(net, _linear(net, h, 4)), 5))
    plan = onnxlrp.plan(net.model(y, ranks=[3]), rules="attnlrp", target="seed")
    assert plan.blocks == {"attention": 1, "SiLU": 1, "feed-forward": 1}
    assert [s.block for s in plan.steps if s.operator == "Softmax"] == ["attention 0"]
    assert sum(s.block == "attention 0" for s in plan.steps) == 4, "two products, the scale, the softmax"
    assert plan.to_dict()["blocks"]["attention"] == 1
