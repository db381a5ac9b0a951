"""Gemm and MatMul: linear where one operand is free of the explained input, a product where both carry relevance."""

from __future__ import annotations

from collections.abc import Callable

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Graph
from onnxlrp.operators.behaviour import Linear, Product, Refusal, Term, Weighted
from onnxlrp.operators.products import attention_roles, signal_of
from onnxlrp.operators.registry import Situation, register

_TREATMENT = "linear rule of the table; with two data operands a product rule"


def _size(graph: Graph, tensor: str, axis: int) -> int | None:
    shape = graph.shape(tensor)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _product(at: Situation, a: str, w: str, beside: Callable[[Builder, str, str, str], str]) -> Product:
    """Two matrices that both carry relevance; `beside` as in `Product`."""
    signal = signal_of(at, a, w)
    return Product(
        a,
        w,
        at.y,
        lambda b, g, factor: beside(b, g, factor, w if factor == a else a),
        signal,
        roles=attention_roles(a, w, signal),
        beside=beside,
        note="two data operands",
    )


@register("Gemm", "linear", _TREATMENT, "adjoint", data=(0, 1, 2))
def gemm(at: Situation) -> Linear | Product:
    """With a constant bias, and without one where both factors carry relevance; the others are taken apart."""
    node, graph = at.node, at.graph
    a, w = node.inputs[:2]
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    ta, tb = int(node.attribute("transA", 0)), int(node.attribute("transB", 0))
    if at.is_active(0) and at.is_active(1):

        def beside(b: Builder, g: str, factor: str, other: str) -> str:
            g = b.scale(g, alpha)
            if factor == a:
                return b.op("Gemm", other, g, transA=tb, transB=1) if ta else b.op("Gemm", g, other, transB=1 - tb)
            return b.op("Gemm", g, other, transA=1, transB=ta) if tb else b.op("Gemm", other, g, transA=1 - ta)

        return _product(at, a, w, beside)
    if at.is_active(0):
        weighted = Weighted(
            weight=lambda b: b.scale(w, alpha),
            forward=lambda b, x, v, bias: b.op("Gemm", x, v, bias or "", transA=ta, transB=tb),
            adjoint=lambda b, s, v: (
                b.op("Gemm", v, s, transA=tb, transB=1) if ta else b.op("Gemm", s, v, transB=1 - tb)
            ),
            scale_output=lambda b, v, k: b.mul(v, b.op("Reshape", k, b.integers([-1, 1])) if tb else k),
            scale_input=lambda b, v, k: b.mul(v, k if tb else b.op("Reshape", k, b.integers([-1, 1]))),
        )
        x = a
    else:
        weighted = Weighted(
            weight=lambda b: b.scale(a, alpha),
            forward=lambda b, x, v, bias: b.op("Gemm", v, x, bias or "", transA=ta, transB=tb),
            adjoint=lambda b, s, v: (
                b.op("Gemm", s, v, transA=1, transB=ta) if tb else b.op("Gemm", v, s, transA=1 - ta)
            ),
        )
        x = w
    bias = node.input(2)
    return Linear(
        "linear",
        (Term(x, weighted),),
        at.y,
        bias=(lambda b: b.scale(bias, beta)) if bias else None,
        bias_size=_size(graph, at.y, -1),
    )


def _transpose(b: Builder, tensor: str, rank: int) -> str:
    return b.op("Transpose", tensor, perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul_adjoint(b: Builder, s: str, v: str, other: str, x: str, left: bool) -> str:
    """The transpose of x -> x @ v (`left`) or x -> v @ x, where `v` has the shape of the forward tensor `other`."""
    graph = b.graph
    rx, ro = graph.rank(x) or 0, graph.rank(other) or 0
    if ro == 1:
        outer = b.op("Unsqueeze", s, b.integers([-1 if left else -2])) if rx > 1 else s
        return b.mul(outer, v if left or rx == 1 else b.op("Unsqueeze", v, b.integers([1])))
    if left and ro == 2 and rx == 2:
        return b.op("Gemm", s, v, transB=1)
    if left and ro == 2:
        width = _size(graph, other, 1)
        size = (
            b.integers([-1, width])
            if width is not None
            else b.op("Concat", b.integers([-1]), b.op("Gather", b.op("Shape", other), b.integers([1])), axis=0)
        )
        flat = b.op("Gemm", b.op("Reshape", s, size), v, transB=1)
        return b.reshape_like(flat, x)
    if not left and ro == 2 and rx == 2:
        return b.op("Gemm", v, s, transA=1)
    # Batched or vector operands: what is transposed here is a batched weight or data, never a large 2-D weight.
    if rx == 1:
        s = b.op("Unsqueeze", s, b.integers([-2 if left else -1]))
    turned = _transpose(b, v, ro)
    full = b.op("MatMul", s, turned) if left else b.op("MatMul", turned, s)
    if rx == 1:
        squeezed = b.op("Squeeze", full, b.integers([-2 if left else -1]))
        return b.op("ReduceSum", squeezed, b.integers(range(ro - 2)), keepdims=0) if ro > 2 else squeezed
    if rx < ro:
        full = b.op("ReduceSum", full, b.integers(range(ro - rx)), keepdims=0)
    batch_x, batch_o = (graph.shape(x) or ())[:-2], (graph.shape(other) or ())[:-2]
    stretched = batch_o and batch_x != batch_o and any(d == 1 or not isinstance(d, int) for d in batch_x)
    return b.sum_to_at_run_time(full, x, graph.rank(x)) if stretched else full


@register("MatMul", "linear", _TREATMENT, "adjoint", data=(0, 1))
def matmul(at: Situation) -> Linear | Product | Refusal:
    node, graph = at.node, at.graph
    a, w = node.inputs
    ra, rw = graph.rank(a), graph.rank(w)
    if ra is None or rw is None:
        return Refusal("the rank of an operand is not known", "run shape inference on the model first")
    if at.is_active(0) and at.is_active(1):

        def beside(b: Builder, g: str, factor: str, value: str) -> str:
            return _matmul_adjoint(b, g, value, w if factor == a else a, factor, factor == a)

        return _product(at, a, w, beside)
    left = at.is_active(0)
    x, other = (a, w) if left else (w, a)
    plain = ra == 2 and rw == 2

    def forward(b: Builder, x: str, v: str, bias: str | None) -> str:
        left_operand, right_operand = (x, v) if left else (v, x)
        if plain and bias:
            return b.op("Gemm", left_operand, right_operand, bias)
        product = b.op("MatMul", left_operand, right_operand)
        return b.add(product, bias) if bias else product

    weighted = Weighted(
        weight=lambda b: other,
        forward=forward,
        adjoint=lambda b, s, v: _matmul_adjoint(b, s, v, other, x, left),
        scale_output=(lambda b, v, k: b.mul(v, k)) if left and rw == 2 else None,
        scale_input=(lambda b, v, k: b.mul(v, b.op("Reshape", k, b.integers([-1, 1])))) if left and rw == 2 else None,
    )
    size = _size(graph, w, -1) if left and plain else None
    return Linear("linear", (Term(x, weighted),), at.y, bias_size=size)
