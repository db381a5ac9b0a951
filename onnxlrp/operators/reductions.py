"""Reductions that are no plain sum: products, logarithms of sums, sums of squares, determinants.

Each is linear around the model's own x (y = sum of x_i a_i + c with coefficients a that depend on x), so that relevance
is shared in proportion to x_i a_i. What can be written as a sum of something simpler is taken apart instead. The axes
may be computed at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Node
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Stop, Term
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register


@dataclass(frozen=True)
class _Reduction:
    """A reducing node, and other reductions over the same axes that keep them as 1."""

    node: Node

    @property
    def x(self) -> str:
        return self.node.inputs[0]

    @property
    def keeps(self) -> bool:
        return bool(self.node.attribute("keepdims", 1))

    def over(self, b: Builder, op: str, t: str, *, keepdims: bool = True) -> str:
        """A reduction of t, which has the shape of x."""
        noop = self.node.attribute("noop_with_empty_axes", 0)
        return b.op(op, t, *self.node.inputs[1:], keepdims=int(keepdims), noop_with_empty_axes=noop or None)

    def restored(self, b: Builder, t: str) -> str:
        """A tensor of y's shape with the reduced axes back as 1."""
        return t if self.keeps else b.op("Reshape", t, b.op("Shape", self.over(b, "ReduceSum", self.x)))

    def weighted(self, b: Builder, value: str, coefficients: str) -> str:
        """Sum of value * coefficients, in y's shape."""
        return self.over(b, "ReduceSum", b.mul(value, coefficients), keepdims=self.keeps)


def _empty(at: Situation) -> Stop | None:
    """What a reduction of no elements is."""
    empty = 0 in (at.graph.shape(at.node.inputs[0]) or ())
    return Stop("it reduces nothing, and is a constant") if empty else None


@lowers("ReduceSumSquare", treatment="taken apart: half of the square to each factor, then a sum")
def reduce_sum_square(at: Situation, b: Builder) -> Sequence[str]:
    """Sum of x * x."""
    reduction = _Reduction(at.node)
    return (reduction.over(b, "ReduceSum", b.square(reduction.x), keepdims=reduction.keeps),)


@lowers("ReduceLogSum", treatment="taken apart: the logarithm passes, then a sum")
def reduce_log_sum(at: Situation, b: Builder) -> Sequence[str]:
    """log of the sum of x."""
    reduction = _Reduction(at.node)
    return (b.op("Log", reduction.over(b, "ReduceSum", reduction.x, keepdims=reduction.keeps)),)


@register(
    "ReduceLogSumExp",
    "average",
    "linear around the input: shared in proportion to x softmax(x); the constant term of the expansion acts as a bias",
    "softmax(x)",
)
def reduce_log_sum_exp(at: Situation) -> Linear | Stop:
    if empty := _empty(at):
        return empty
    reduction, x, y = _Reduction(at.node), at.node.inputs[0], at.y

    def probabilities(b: Builder) -> str:
        return b.op("Exp", b.sub(x, reduction.restored(b, y)))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        total = reduction.weighted(b, value, probabilities(b))
        return b.add(total, bias) if bias else total

    def adjoint(b: Builder, s: str) -> str:
        return b.mul(probabilities(b), reduction.restored(b, s))

    return Linear(
        "average",
        (Term(x, Fixed(Map(forward, adjoint))),),
        y,
        bias=lambda b: b.sub(y, forward(b, x, None)),
        note="linear around the input",
    )


def _product_of_the_others(b: Builder, x: str, reduction: _Reduction) -> str:
    """For each element the product of the others, exact where some are zero."""
    nothing, one = b.scalar(0.0, x), b.scalar(1.0, x)
    zero = b.op("Equal", x, nothing)
    zeros = reduction.over(b, "ReduceSum", b.op("Cast", zero, to=b.dtype(x)))
    filled = b.where(zero, one, x)
    product = reduction.over(b, "ReduceProd", filled)
    no_zero = b.where(b.op("Equal", zeros, nothing), b.div(product, filled), nothing)
    only_zero = b.op("And", zero, b.op("Equal", zeros, one))
    return b.where(only_zero, product, no_zero)


@register("ReduceProd", "average", "shared equally among the factors", "product of the other factors")
def reduce_prod(at: Situation) -> Linear | Stop:
    if empty := _empty(at):
        return empty
    reduction, x = _Reduction(at.node), at.node.inputs[0]

    def shares(b: Builder) -> str:
        ones = b.op("Expand", b.scalar(1.0, x), b.op("Shape", x))
        return b.div(_product_of_the_others(b, x, reduction), reduction.over(b, "ReduceSum", ones))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        total = reduction.weighted(b, value, shares(b))
        return b.add(total, bias) if bias else total

    def adjoint(b: Builder, s: str) -> str:
        return b.mul(shares(b), reduction.restored(b, s))

    def derivative(b: Builder, m: str) -> str:
        return b.mul(_product_of_the_others(b, x, reduction), reduction.restored(b, m))

    return Linear(
        "average",
        (Term(x, Fixed(Map(forward, adjoint), sign=0)),),
        at.y,
        vjp=lambda b, m: {x: derivative(b, m)},
        note="n factors, 1/n to each",
    )


@lowers("CumProd", treatment="taken apart: products of the elements so far, shared equally among the factors")
def cum_prod(at: Situation, b: Builder) -> Sequence[str]:
    """y_i = product over j of (x_j where j counts for i, otherwise 1), over a new axis for i."""
    node, x = at.node, at.node.inputs[0]
    shape = b.op("Shape", x)
    one, zero, end = (b.integers([i]) for i in (1, 0, 2**62))
    # Whatever is before and behind the axis is one axis each, so that the axis itself may be computed at run time.
    axis = b.op(
        "Mod", b.op("Reshape", b.op("Cast", node.inputs[1], to=int(TensorProto.INT64)), one), b.op("Shape", shape)
    )
    behind = b.add(axis, one)
    size = b.op("Slice", shape, axis, behind)
    before, after = (
        b.op("ReduceProd", b.op("Slice", shape, *ends), keepdims=1) for ends in ((zero, axis), (behind, end))
    )
    along = b.op("Range", b.constant_int(0), b.op("Squeeze", size), b.constant_int(1))
    i, j = (b.op("Unsqueeze", along, b.integers(axes)) for axes in ([1, 2], [0, 2]))
    first, second = (j, i) if node.attribute("reverse", 0) else (i, j)
    counts = b.op("Greater" if node.attribute("exclusive", 0) else "GreaterOrEqual", first, second)
    apart = b.op("Reshape", x, b.op("Concat", before, one, size, after, axis=0))
    products = b.op("ReduceProd", b.where(counts, apart, b.scalar(1.0, x)), b.integers([2]), keepdims=0)
    return (b.op("Reshape", products, shape),)


@register("Det", "average", "in proportion to the elements times their cofactors", "the cofactors")
def det(at: Situation) -> Linear | Refusal:
    x, y = at.node.inputs[0], at.y
    shape = at.graph.shape(x)
    size = shape[-1] if shape is not None else None
    if shape is None or not isinstance(size, int):
        return Refusal("the size of its matrices is not known", "export with static sizes")
    rank = len(shape)

    def cofactors(b: Builder) -> str:
        if size == 1:
            return b.op("Expand", b.scalar(1.0, x), b.op("Shape", x))
        others = np.asarray([[j for j in range(size) if j != i] for i in range(size)], np.int64)
        rows = b.op("Gather", x, b.constant(others), axis=rank - 2)
        minors = b.op("Gather", rows, b.constant(others), axis=rank)
        lead = list(range(rank - 2))
        apart = b.op("Transpose", minors, perm=[*lead, rank - 2, rank, rank - 1, rank + 1])
        signs = np.asarray([[(-1.0) ** (i + j) for j in range(size)] for i in range(size)], b.numpy_type(x))
        return b.mul(b.op("Det", apart), b.constant(signs))

    def outer(b: Builder, s: str) -> str:
        return b.op("Unsqueeze", s, b.integers([-2, -1]))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        total = b.op("ReduceSum", b.mul(value, cofactors(b)), b.integers([-2, -1]), keepdims=0)
        scaled = b.scale(total, 1.0 / size)
        return b.add(scaled, bias) if bias else scaled

    return Linear(
        "average",
        (Term(x, Fixed(Map(forward, lambda b, s: b.scale(b.mul(cofactors(b), outer(b, s)), 1.0 / size)), sign=0)),),
        y,
        vjp=lambda b, m: {x: b.mul(cofactors(b), outer(b, m))},
        note="the sum of elements times cofactors is n times y",
    )
