"""Layers whose weights or bias come from the data: what a weight receives, and biases as sums of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.normalization import channel_shape
from onnxlrp.operators.registry import Situation

if TYPE_CHECKING:
    from onnxlrp.operators.convolution import Window

_END = 2**62


def correlate(b: Builder, x: str, g: str, window: Window, inputs: int) -> str:
    """The derivative of sum(g * conv(x, w)) by the weight w [outputs, inputs, *kernel] of a convolution.

    It is a convolution itself: samples become channels, steps become dilations. `inputs` are the channels of a group.
    """
    n, group = len(window.kernel), window.group
    spatial = list(range(2, n + 2))
    if group == 1:
        samples = b.op("Transpose", x, perm=[1, 0, *spatial])
    else:
        size = b.op("Slice", b.op("Shape", x), b.integers([2]), b.integers([_END]))
        split = b.op("Reshape", x, b.op("Concat", b.integers([0, group, inputs]), size, axis=0))
        turned = b.op("Transpose", split, perm=[2, 1, 0, *range(3, n + 3)])
        samples = b.op("Reshape", turned, b.op("Concat", b.integers([inputs, -1]), size, axis=0))
    kernels = b.op("Transpose", g, perm=[1, 0, *spatial])
    found = b.op(
        "Conv",
        samples,
        kernels,
        **window.attributes(strides=list(window.dilations), dilations=list(window.strides), kernel_shape=None),
    )
    cut = b.op("Slice", found, b.integers([0] * n), b.integers(window.kernel), b.integers(spatial))
    return b.op("Transpose", cut, perm=[1, 0, *spatial])


def _apart_from_its_bias(at: Situation) -> bool:
    """Whether the bias is a term of its own: it comes from the data, or both factors in front of it do."""
    return bool(at.node.input(2)) and (at.is_active(2) or (at.is_active(0) and at.is_active(1)))


def _of_itself(at: Situation, b: Builder) -> Sequence[str] | None:
    """A tensor that stands in both places of a product gets a second name: what each of them receives differs."""
    node = at.node
    if not at.is_active(0) or node.inputs[0] != node.inputs[1]:
        return None
    return (b.op(node.op, node.inputs[0], b.op("Identity", node.inputs[1]), *node.inputs[2:], **node.attributes),)


@lowers("MatMul Div")
def product(at: Situation, b: Builder) -> Sequence[str] | None:
    return _of_itself(at, b)


@lowers("Gemm")
def gemm(at: Situation, b: Builder) -> Sequence[str] | None:
    """alpha A B + beta C as a product and a sum."""
    if not _apart_from_its_bias(at):
        return _of_itself(at, b)
    node, (left, right, bias) = at.node, at.node.inputs
    product = b.op("Gemm", left, right, **{k: v for k, v in node.attributes.items() if k != "beta"})
    return (b.add(product, b.scale(bias, node.attribute("beta", 1.0))),)


@lowers("Conv ConvTranspose")
def convolution(at: Situation, b: Builder) -> Sequence[str] | None:
    """The convolution and the bias added to it."""
    rank = at.graph.rank(at.node.inputs[0])
    if rank is None or not _apart_from_its_bias(at):
        return _of_itself(at, b)
    x, weight, bias = at.node.inputs
    return (b.add(b.op(at.node.op, x, weight, **at.node.attributes), channel_shape(b, bias, rank)),)
