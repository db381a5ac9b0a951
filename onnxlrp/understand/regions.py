"""Nodes that belong together: a linear layer with the affine steps before and behind it.

A BatchNormalization behind a convolution is the same convolution with other weights; so is one in front of it, where
zero padding makes the bias depend on the position. A MatMul with the Add behind it is a dense layer. The forward pass
keeps its nodes; only the relevance pass sees one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.behaviour import Expression, Linear, Refusal, Term, Weighted
from onnxlrp.operators.normalization import batch_norm_factors, channel_shape
from onnxlrp.operators.registry import Situation, find
from onnxlrp.understand.facts import Facts

_HEADS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Region:
    """A linear layer `head`, BatchNormalizations `before` it and affine steps `behind` it, in graph order."""

    head: Node
    before: tuple[Node, ...] = ()
    behind: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*self.before, self.head, *self.behind)

    @property
    def name(self) -> str:
        return "+".join(n.op for n in self.nodes)


@dataclass(frozen=True)
class _Affine:
    """y = k x + c along the output channels; either may be missing.

    Both are vectors over the channels; behind a dense layer `c` may have any shape that broadcasts to y.
    """

    k: Expression | None = None
    c: Expression | None = None


def find_regions(
    graph: Graph, facts: Facts, pinned: frozenset[str], merge_batch_normalization: bool = True
) -> Mapping[int, Region]:
    """Regions by the index of each of their nodes. Tensors in `pinned` stay visible and are not merged away."""
    regions: dict[int, Region] = {}
    for node in graph.nodes:
        if not is_layer(node, facts):
            continue
        behind: list[Node] = []
        tail = node.outputs[0]
        while True:
            following = _only_consumer(graph, tail, pinned)
            if following is None or following.index in regions:
                break
            if _affine(following, tail, node, graph, facts, merge_batch_normalization) is None:
                break
            behind.append(following)
            tail = following.outputs[0]
        region = Region(node, (), tuple(behind))
        regions.update({n.index: region for n in region.nodes})
    if merge_batch_normalization:
        _merge_forward(graph, facts, pinned, regions)
    return {i: r for i, r in regions.items() if len(r.nodes) > 1}


def is_layer(node: Node, facts: Facts) -> bool:
    """Whether a node is a layer with constant weights, which affine steps can be merged into."""
    if node.domain or node.op not in _HEADS:
        return False
    return facts.is_constant(node.inputs[1]) and not facts.is_constant(node.inputs[0])


def _only_consumer(graph: Graph, tensor: str, pinned: frozenset[str]) -> Node | None:
    readers = graph.value_readers(tensor)
    if len(readers) != 1 or tensor in pinned:
        return None
    return readers[0]


def _channel_axis(head: Node, graph: Graph, tensor: str) -> int | None:
    rank = graph.rank(tensor)
    if not rank:
        return None
    return rank - 1 if _is_dense(head) else 1


def _is_channel_vector(graph: Graph, constant: str, tensor: str, axis: int) -> bool:
    """Whether a constant varies along the channels of `tensor` only and does not enlarge it."""
    shape, rank = graph.static_shape(constant), graph.rank(tensor)
    if shape is None or rank is None or len(shape) > rank:
        return False
    channels = (graph.shape(tensor) or ())[axis]
    padded = (1,) * (rank - len(shape)) + shape
    return padded[axis] in (1, channels) and all(d == 1 for i, d in enumerate(padded) if i != axis)


def _affine(node: Node, x: str, head: Node, graph: Graph, facts: Facts, merge_bn: bool) -> _Affine | None:
    """What `node` does to x when it can be merged into the layer `head`, otherwise None."""
    axis, rank = _channel_axis(head, graph, x), graph.rank(x)
    if node.domain or axis is None or rank is None:
        return None
    if node.op == "BatchNormalization":
        constants = all(facts.is_constant(i) for i in node.inputs[1:5])
        if not merge_bn or not constants or node.attribute("training_mode", 0) or node.inputs[0] != x or axis != 1:
            return None
        epsilon = node.attribute("epsilon", 1e-5)
        if not _can_scale(head, graph):
            return None
        return _Affine(
            lambda b: batch_norm_factors(b, node.inputs, epsilon)[0],
            lambda b: batch_norm_factors(b, node.inputs, epsilon)[1],
        )
    if node.op not in ("Add", "Sub", "Mul", "Div") or node.inputs[0] == node.inputs[1]:
        return None
    swapped = node.inputs[1] == x
    constant = node.inputs[0] if swapped else node.inputs[1]
    if not facts.is_constant(constant) or (swapped and node.op in ("Sub", "Div")):
        return None
    vector = _is_channel_vector(graph, constant, x, axis)
    size = (graph.shape(x) or ())[axis]

    def change(b: Builder) -> str:
        turned = {"Div": "Reciprocal", "Sub": "Neg"}.get(node.op)
        return b.op(turned, constant) if turned else constant

    if node.op in ("Mul", "Div") or not _is_dense(head):
        if not vector or not isinstance(size, int) or not _can_scale(head, graph):
            return None
        channels = partial(_vector, constant=change, size=size)
        return _Affine(k=channels) if node.op in ("Mul", "Div") else _Affine(c=channels)
    # A dense layer's bias may have any shape that does not enlarge the output.
    if not vector and (head.op != "MatMul" or graph.shape(node.outputs[0]) != graph.shape(x)):
        return None
    return _Affine(c=change)


def _vector(b: Builder, constant: Expression, size: int) -> str:
    flat = b.op("Reshape", constant(b), b.integers([-1]))
    return b.op("Expand", flat, b.integers([size]))


def _can_scale(head: Node, graph: Graph) -> bool:
    return head.op != "MatMul" or graph.rank(head.inputs[1]) == 2


def _merge_forward(graph: Graph, facts: Facts, pinned: frozenset[str], regions: dict[int, Region]) -> None:
    """Merges a BatchNormalization that nothing in front of it can take into the layers that read it."""
    for node in graph.nodes:
        if node.op != "BatchNormalization" or node.domain or node.index in regions:
            continue
        y = node.outputs[0]
        readers = graph.value_readers(y)
        constants = all(facts.is_constant(i) for i in node.inputs[1:5])
        if not readers or y in pinned or not constants or node.attribute("training_mode", 0):
            continue
        heads = [regions.get(r.index) for r in readers]
        if not all(
            region is not None and region.head is reader and reader.inputs[0] == y and takes_scale(reader, graph)
            for region, reader in zip(heads, readers, strict=True)
        ):
            continue
        for region in heads:
            if region is not None:
                merged = replace(region, before=(node,))
                regions.update({n.index: merged for n in (region.head, *region.behind)})


def takes_scale(reader: Node, graph: Graph) -> bool:
    """Whether the weights of a layer can take the factors of a BatchNormalization in front of it."""
    if reader.op == "MatMul":
        return graph.rank(reader.inputs[1]) == 2 and graph.rank(reader.inputs[0]) == 2
    return reader.op != "Gemm" or not reader.attribute("transA", 0)


def describe_region(region: Region, at: Situation, active: Callable[[Node], frozenset[str]]) -> Linear | Refusal:
    """The region as one linear layer.

    Args:
        at: the situation of its last node (for graph and facts).
        active: the inputs of a node that carry relevance.
    """
    entry = find(region.head)
    if entry is None:
        raise LookupError(region.head.op)
    behaviour = entry.describe(Situation(region.head, at.graph, at.facts, active(region.head)))
    if not isinstance(behaviour, Linear):
        return behaviour if isinstance(behaviour, Refusal) else Refusal("its layer is not linear")
    for node in region.before:
        behaviour = _behind_batch_norm(behaviour, node, region.head, at.graph)
    x = region.head.outputs[0]
    for node in region.behind:
        step = _affine(node, x, region.head, at.graph, at.facts, True)
        if step is None:
            raise LookupError(node.op)
        behaviour = _before_affine(behaviour, step, node.outputs[0], at.graph, region.head)
        x = node.outputs[0]
    return behaviour


def _weighted(op: Linear) -> tuple[Term, Weighted]:
    term = op.terms[0]
    if not isinstance(term.map, Weighted):
        raise TypeError("only weighted layers are merged")
    return term, term.map


def _before_affine(op: Linear, step: _Affine, y: str, graph: Graph, head: Node) -> Linear:
    """The layer followed by y = k z + c."""
    term, weighted = _weighted(op)
    k, c = step.k, step.c
    inner_weight, scale_output = weighted.weight, weighted.scale_output
    if k is not None and scale_output is not None:
        weighted = replace(weighted, weight=lambda b: scale_output(b, inner_weight(b), k(b)))
    before, rank = op.bias, graph.rank(y) or 2
    native = op.bias_size is not None

    def bias(b: Builder) -> str:
        parts = []
        if before is not None:
            factor = None
            if k is not None:
                factor = k(b) if native else channel_shape(b, k(b), rank, rank - 1 if _is_dense(head) else 1)
            parts.append(before(b) if factor is None else b.mul(before(b), factor))
        if c is not None:
            parts.append(c(b) if native or _is_dense(head) else channel_shape(b, c(b), rank))
        return b.sum(parts)

    has_bias = before is not None or c is not None
    return replace(op, terms=(Term(term.x, weighted),), y=y, bias=bias if has_bias else None)


def _is_dense(head: Node) -> bool:
    return head.op in ("Gemm", "MatMul")


def _behind_batch_norm(op: Linear, node: Node, head: Node, graph: Graph) -> Linear:
    """The layer applied to k x + c. With zero padding c does not reach the border, so the bias is a plane."""
    _, weighted = _weighted(op)
    scale_input, inner = weighted.scale_input, weighted
    if scale_input is None:
        raise LookupError(head.op)
    x, epsilon = node.inputs[0], node.attribute("epsilon", 1e-5)
    scaled = replace(
        weighted,
        weight=lambda b: scale_input(b, inner.weight(b), batch_norm_factors(b, node.inputs, epsilon)[0]),
    )
    before, rank = op.bias, graph.rank(x) or 2

    def bias(b: Builder) -> str:
        shift = channel_shape(b, batch_norm_factors(b, node.inputs, epsilon)[1], rank)
        shape = graph.shape(x) or ()
        sizes = [d for d in shape[1:] if isinstance(d, int)]
        static = len(sizes) == rank - 1
        plane = b.op("Expand", shift, b.integers([1, *sizes])) if static else b.expand_like(shift, x)
        return inner.forward(b, plane, inner.weight(b), before(b) if before else None)

    return replace(op, terms=(Term(x, scaled),), bias=bias, bias_size=None)
