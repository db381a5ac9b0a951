"""Conversion takes time in proportion to the number of nodes: calls of Python functions are counted, not seconds.

A chain of 20,000 nodes (convolution, Relu, MatMul, residual Add) converts in about 13 s of one busy core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import onnxlrp
from tests.support.models import Net


def residual(blocks: int) -> ModelProto:
    net = Net(np.float32)
    x = net.input("x", ["N", 4, 4, 4])
    kernel, matrix = net.constant(np.full((4, 4, 3, 3), 0.1)), net.constant(np.full((4, 4), 0.2))
    for _ in range(blocks):
        y = net.op("Relu", net.op("Conv", x, kernel, pads=[1, 1, 1, 1]))
        x = net.op("Add", x, net.op("MatMul", y, matrix))
    return net.model(x, ranks=[4])


def one_tensor_read_everywhere(readers: int) -> ModelProto:
    net = Net(np.float32)
    x = net.input("x", ["N", 4])
    scaled = [net.op("Mul", x, net.constant(np.full(4, 0.1 + i))) for i in range(readers)]
    return net.model(net.op("Sum", *(net.op("Tanh", y) for y in scaled)), ranks=[2])


def attention(blocks: int) -> ModelProto:
    net = Net(np.float32)
    x = net.input("x", ["N", "T", 8])
    for i in range(blocks):
        q, k, v = (net.op("MatMul", x, net.constant(np.full((8, 8), 0.1 + i + j))) for j in range(3))
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]))
        x = net.op("Add", x, net.op("MatMul", net.op("Softmax", scores, axis=-1), v))
    return net.model(x, ranks=[3])


def taken_apart(blocks: int) -> ModelProto:
    net = Net(np.float32, opset=23)
    x, scale = net.input("x", ["N", 3, 8]), net.constant(np.ones(8))
    for _ in range(blocks):
        x = net.op("Add", x, net.op("RMSNormalization", x, scale))
    return net.model(x, ranks=[3])


def calls(convert: Callable[[], Any]) -> int:
    """How many Python functions are called."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        convert()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("network", [residual, one_tensor_read_everywhere, attention, taken_apart])
def test_every_further_block_costs_the_same(network: Callable[[int], ModelProto]) -> None:
    sizes = (8, 24, 40)
    onnxlrp.convert(network(2))  # what is computed once per process
    few, more, many = (calls(lambda n=n: onnxlrp.convert(network(n))) for n in sizes)
    assert many - more == pytest.approx(more - few, rel=0.01)
