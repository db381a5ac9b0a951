"""Every linear operator in every attribute, as small networks x -> y with random weights and biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto

from tests.support.models import Dim, Net

Build = Callable[[Net, str], str]


@dataclass(frozen=True)
class Case:
    """A linear operator: `build` adds it to a net behind a tensor of this shape.

    `batch` and `spatial` are the axes of x that may be declared dynamic.
    """

    shape: tuple[int, ...]
    build: Build
    batch: tuple[int, ...] = (0,)
    spatial: tuple[int, ...] = ()
    y_rank: int | None = None

    def model(self, *, relu: bool = False, dynamic: str = "static", dtype: type = np.float64) -> ModelProto:
        """x -> [Relu] -> operator -> y. `dynamic` is static, batch or all."""
        free = {"static": (), "batch": self.batch, "all": (*self.batch, *self.spatial)}[dynamic]
        dims: list[Dim] = [f"d{axis}" if axis in free else size for axis, size in enumerate(self.shape)]
        net = Net(dtype)
        x = net.input("x", dims)
        y = self.build(net, net.op("Relu", x) if relu else x)
        return net.model(y, ranks=[len(self.shape) if self.y_rank is None else self.y_rank])


@dataclass
class _Weights:
    """Random numbers that are the same in every run, each case with its own."""

    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(2024))

    def __call__(self, *shape: int) -> np.ndarray:
        return self.generator.normal(size=shape)

    def positive(self, *shape: int) -> np.ndarray:
        return self.generator.uniform(0.3, 2.0, size=shape)


_random = _Weights()


def _convolution(op: str, shape: tuple[int, ...], weight: tuple[int, ...], bias: int | None, **attributes: Any) -> Case:
    w = _random(*weight)
    b = None if bias is None else _random(bias)

    def build(net: Net, x: str) -> str:
        operands = [x, net.constant(w), *([] if b is None else [net.constant(b)])]
        return net.op(op, *operands, **attributes)

    # A given output shape makes the padding depend on the size, so that the size must be known.
    return Case(shape, build, spatial=() if "output_shape" in attributes else tuple(range(2, len(shape))))


def _gemm(
    shape: tuple[int, ...], weight: tuple[int, ...], c: tuple[int, ...] | None, left: bool = False, **at: Any
) -> Case:
    w = _random(*weight)
    bias = None if c is None else _random(*c)

    def build(net: Net, x: str) -> str:
        pair = [net.constant(w), x] if left else [x, net.constant(w)]
        return net.op("Gemm", *pair, *([] if bias is None else [net.constant(bias)]), **at)

    batch = (1,) if at.get("transB" if left else "transA", 0) != left else (0,)
    return Case(shape, build, batch=batch if c is None or c[:1] in ((), (1,)) or len(c) == 1 else ())


def _matmul(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    rank: int,
    left: bool = False,
    batch: tuple[int, ...] = (),
) -> Case:
    w = _random(*weight)

    def build(net: Net, x: str) -> str:
        return net.op("MatMul", net.constant(w), x) if left else net.op("MatMul", x, net.constant(w))

    return Case(shape, build, batch=batch, y_rank=rank)


def _layer(op: str, *shapes: tuple[int, ...], **attributes: Any) -> Build:
    """A node with random constants of these shapes."""
    constants = [_random(*shape) for shape in shapes]
    return lambda net, x: net.op(op, x, *(net.constant(c) for c in constants), **attributes)


def _normalized(channels: int) -> Build:
    """A BatchNormalization with scales of both signs and non-trivial statistics."""
    values = (_random(channels), _random(channels), _random(channels), _random.positive(channels))
    return lambda net, x: net.op("BatchNormalization", x, *(net.constant(v) for v in values), epsilon=1e-3)


def _merged(shape: tuple[int, ...], *steps: Build, rank: int | None = None) -> Case:
    """Several nodes that are one linear operator."""

    def build(net: Net, x: str) -> str:
        for step in steps:
            x = step(net, x)
        return x

    return Case(shape, build, spatial=tuple(range(2, len(shape))), y_rank=rank)


CONVOLUTIONS: Mapping[str, Case] = {
    "conv1d": _convolution("Conv", (2, 3, 6), (4, 3, 3), 4, pads=[1, 1]),
    "conv1d-strided-dilated": _convolution("Conv", (2, 3, 8), (2, 3, 3), 2, strides=[2], dilations=[2], pads=[1, 0]),
    "conv2d": _convolution("Conv", (2, 3, 5, 4), (4, 3, 3, 3), 4, pads=[1, 1, 1, 1]),
    "conv2d-asymmetric": _convolution(
        "Conv", (1, 2, 6, 7), (3, 2, 3, 2), None, strides=[2, 1], dilations=[1, 2], pads=[0, 1, 2, 1]
    ),
    "conv2d-uncovered-rest": _convolution("Conv", (1, 4, 6, 6), (4, 2, 2, 2), 4, group=2, strides=[3, 4]),
    "conv2d-1x1-strided": _convolution("Conv", (2, 3, 4, 5), (5, 3, 1, 1), None, strides=[2, 2]),
    "conv2d-kernel-over-edges": _convolution("Conv", (1, 2, 3, 3), (2, 2, 5, 5), 2, pads=[2, 3, 2, 1]),
    "depthwise": _convolution("Conv", (2, 4, 5, 5), (4, 1, 3, 3), 4, group=4, pads=[1, 1, 1, 1]),
    "depthwise-asymmetric": _convolution("Conv", (2, 3, 5, 6), (3, 1, 3, 2), None, group=3, pads=[0, 1, 2, 0]),
    "depthwise-dilated": _convolution("Conv", (1, 3, 7, 7), (3, 1, 3, 3), 3, group=3, dilations=[2, 2], pads=[2] * 4),
    "depthwise-strided": _convolution("Conv", (2, 3, 7, 6), (3, 1, 3, 3), 3, group=3, strides=[2, 2], pads=[1] * 4),
    "depthwise-strided-uneven": _convolution(
        "Conv", (1, 3, 8, 9), (3, 1, 3, 2), None, group=3, strides=[3, 2], dilations=[1, 2], pads=[0, 3, 2, 1]
    ),
    "depthwise-multiplied": _convolution("Conv", (2, 3, 6, 5), (6, 1, 3, 3), 6, group=3, pads=[1] * 4),
    "depthwise-multiplied-strided": _convolution(
        "Conv", (1, 3, 6, 7), (6, 1, 3, 3), 6, group=3, strides=[2, 2], pads=[1, 1, 0, 1]
    ),
    "conv2d-same-upper": _convolution("Conv", (2, 2, 6, 5), (3, 2, 3, 2), 3, auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv2d-same-lower": _convolution("Conv", (2, 2, 6, 5), (3, 2, 3, 2), 3, auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv2d-valid": _convolution("Conv", (1, 2, 5, 5), (3, 2, 3, 3), 3, auto_pad="VALID"),
    "conv3d": _convolution("Conv", (1, 2, 3, 4, 3), (3, 2, 2, 3, 2), 3, pads=[1, 0, 1, 0, 1, 0]),
    "conv3d-grouped": _convolution("Conv", (1, 4, 4, 3, 3), (4, 2, 2, 2, 2), None, group=2, strides=[2, 1, 2]),
    "transposed1d": _convolution(
        "ConvTranspose", (2, 3, 4), (3, 2, 3), 2, strides=[2], pads=[1, 0], output_padding=[1]
    ),
    "transposed2d": _convolution("ConvTranspose", (2, 3, 3, 4), (3, 2, 3, 3), 2, pads=[1, 1, 1, 1]),
    "transposed2d-strided": _convolution(
        "ConvTranspose",
        (1, 3, 3, 3),
        (3, 2, 3, 2),
        2,
        strides=[2, 3],
        pads=[1, 0, 0, 1],
        output_padding=[1, 2],
    ),
    "transposed2d-grouped": _convolution("ConvTranspose", (2, 4, 3, 3), (4, 3, 2, 2), 6, group=2, strides=[2, 2]),
    "transposed2d-depthwise": _convolution("ConvTranspose", (1, 3, 4, 3), (3, 1, 3, 3), 3, group=3, strides=[2, 2]),
    "transposed2d-dilated": _convolution("ConvTranspose", (1, 2, 3, 3), (2, 2, 2, 2), None, dilations=[2, 3]),
    "transposed2d-output-shape": _convolution(
        "ConvTranspose",
        (1, 2, 3, 3),
        (2, 2, 3, 3),
        2,
        strides=[2, 2],
        output_shape=[6, 6],
        auto_pad="SAME_UPPER",
    ),
    "transposed2d-same-lower": _convolution(
        "ConvTranspose", (1, 2, 3, 3), (2, 2, 3, 3), 2, strides=[2, 2], auto_pad="SAME_LOWER"
    ),
    "transposed3d": _convolution("ConvTranspose", (1, 2, 2, 2, 3), (2, 2, 2, 2, 2), 2, strides=[1, 2, 2]),
}

DENSE: Mapping[str, Case] = {
    "gemm": _gemm((3, 4), (4, 5), (5,)),
    "gemm-no-bias": _gemm((3, 4), (4, 5), None),
    "gemm-trans-b": _gemm((3, 4), (5, 4), (1, 5), transB=1),
    "gemm-trans-a": _gemm((4, 3), (4, 5), (5,), transA=1),
    "gemm-trans-both": _gemm((4, 3), (5, 4), (3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    "gemm-scaled": _gemm((3, 4), (4, 5), (3, 5), alpha=-1.5, beta=0.25),
    "gemm-scalar-bias": _gemm((3, 4), (4, 5), (), alpha=0.7),
    "gemm-constant-left": _gemm((4, 5), (3, 4), (5,), left=True),
    "gemm-constant-left-transposed": _gemm((5, 4), (4, 3), (3, 1), left=True, transA=1, transB=1, alpha=2.0),
    "matmul": _matmul((3, 4), (4, 5), 2, batch=(0,)),
    "matmul-vector": _matmul((4,), (4, 5), 1),
    "matmul-sequence": _matmul((2, 3, 4), (4, 5), 3, batch=(0, 1)),
    "matmul-heads": _matmul((2, 3, 2, 4), (3, 4, 5), 4, batch=(0, 2)),
    "matmul-weight-repeats-data": _matmul((2, 4), (3, 4, 5), 3),
    "matmul-by-vector": _matmul((2, 3, 4), (4,), 2, batch=(0,)),
    "matmul-left": _matmul((2, 5, 3), (6, 5), 3, left=True, batch=(0,)),
    "matmul-left-vector-data": _matmul((5,), (6, 5), 1, left=True),
    "matmul-left-vector": _matmul((2, 5, 3), (5,), 2, left=True, batch=(0,)),
    "matmul-left-heads": _matmul((2, 3, 5, 4), (3, 6, 5), 4, left=True, batch=(0,)),
    "matmul-left-repeats-data": _matmul((5, 4), (3, 6, 5), 3, left=True),
}

MERGED: Mapping[str, Case] = {
    "conv-bn": _merged((2, 2, 5, 4), _layer("Conv", (3, 2, 3, 3), (3,), pads=[1] * 4), _normalized(3)),
    "conv-without-bias-bn": _merged((2, 2, 6), _layer("Conv", (3, 2, 3), strides=[2]), _normalized(3)),
    "depthwise-bn": _merged((1, 3, 5, 5), _layer("Conv", (3, 1, 3, 3), group=3, pads=[1] * 4), _normalized(3)),
    "transposed-bn": _merged(
        (1, 4, 3, 3), _layer("ConvTranspose", (4, 2, 2, 2), (4,), group=2, strides=[2, 2]), _normalized(4)
    ),
    "gemm-bn": _merged((3, 4), _layer("Gemm", (5, 4), (5,), transB=1), _normalized(5)),
    "bn-conv": _merged((2, 2, 5, 4), _normalized(2), _layer("Conv", (3, 2, 2, 2), (3,))),
    "bn-padded-conv": _merged((2, 2, 5, 4), _normalized(2), _layer("Conv", (3, 2, 3, 3), (3,), pads=[1, 1, 1, 1])),
    "bn-padded-grouped-conv": _merged(
        (1, 4, 4, 5), _normalized(4), _layer("Conv", (4, 2, 3, 3), group=2, pads=[1, 2, 0, 1], strides=[2, 1])
    ),
    "bn-gemm": _merged((3, 4), _normalized(4), _layer("Gemm", (4, 5), (5,))),
    "matmul-add": _merged((3, 4), _layer("MatMul", (4, 5)), _layer("Add", (5,)), rank=2),
    "sequence-matmul-add": _merged((2, 3, 4), _layer("MatMul", (4, 5)), _layer("Add", (5,)), rank=3),
}
