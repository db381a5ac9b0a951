"""Col2Im: blocks added up to an image where they overlap."""

from __future__ import annotations

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Term
from onnxlrp.operators.registry import Situation, register


@register("Col2Im", "average", "shared in proportion to the blocks that overlap", "cut into blocks again")
def col2im(at: Situation) -> Linear | Refusal:
    """The transpose cuts blocks out of an image: a convolution whose kernels are the units of a block."""
    node, x, y = at.node, at.node.inputs[0], at.y
    rank = at.graph.rank(y)
    if rank is None:
        return Refusal("the number of its dimensions is not known", "run shape inference on the model first")
    n, block = rank - 2, at.facts.integers(node.inputs[2])
    attributes = {
        "strides": node.attribute("strides", [1] * n),
        "dilations": node.attribute("dilations", [1] * n),
        "pads": node.attribute("pads", [0] * (2 * n)),
    }

    def units(b: Builder, like: str) -> str:
        """Kernels [block elements, 1, *block], each with a single 1."""
        if block is not None:
            size = int(np.prod(block))
            return b.constant(np.eye(size, dtype=b.numpy_type(like)).reshape(size, 1, *block))
        size_ = b.op("Squeeze", b.op("ReduceProd", node.inputs[2], keepdims=1))
        numbers = b.op("Range", b.constant_int(0), size_, b.constant_int(1))
        ends = b.constant(np.asarray([0.0, 1.0], b.numpy_type(like)))
        kernels = b.op("OneHot", numbers, size_, ends)
        return b.op("Reshape", kernels, b.op("Concat", b.integers([-1, 1]), node.inputs[2], axis=0))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("Col2Im", value, *node.inputs[1:], **node.attributes)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, s: str) -> str:
        size = b.op("Concat", b.integers([-1, 1]), node.inputs[1], axis=0)
        planes = b.op("Reshape", s, size)
        return b.reshape_like(b.op("Conv", planes, units(b, s), **attributes), x)

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint))),), y)
