"""The parts that transformers are made of, found in what exporters write: attention, norms, activations, gates, rotary
embeddings.

No rule depends on what is found here: each node has the rule of its kind. It tells people what was recognised, and
where the tensors are that the parts of a transformer are explained by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.own import AVERAGES, OwnFactor, average_of, own_factor
from onnxlrp.operators.registry import find
from onnxlrp.understand.facts import Facts

ATTENTION, FEED_FORWARD, GATED = "attention", "feed-forward", "gated feed-forward"
ROTARY = "rotary embedding"
_LAYER_NORM, _RMS_NORM = "LayerNorm", "RMSNorm"

#: Operators that are a part by themselves, or were before they were taken apart.
_OPERATORS: Mapping[str, str] = {
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization"), _LAYER_NORM),
    **dict.fromkeys(
        ("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"), _RMS_NORM
    ),
    **dict.fromkeys(("Gelu", "FastGelu", "BiasGelu", "QuickGelu"), "GELU"),
    "Swish": "SiLU",
    "RotaryEmbedding": ROTARY,
}
#: What stands between the products of queries and keys, the softmax, and the product with the values.
_SHAPES = ("Cast", "CastLike", "Identity", "Dropout", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice")
_SCORES = frozenset(
    {*_SHAPES, "Add", "Sub", "Mul", "Div", "Where", "Max", "Min", "Clip", "Tanh", "Concat", "Gather", "GatherElements"}
)
_WEIGHTS = frozenset({*_SHAPES, "Where", "IsNaN", "Mul", "Div"})
_CONTRACTIONS = frozenset({"MatMul", "Einsum", "Gemm"})
_MOST_NODES = 40
#: The slope of the logistic function in the quick form of GELU.
_QUICK_GELU = 1.702


@dataclass(frozen=True)
class Block:
    """One part of a transformer.

    Attributes:
        number: counted from 0 among those of its name, in the order of the graph.
        nodes: in the order of the graph.
        tensors: those that it is explained by: of attention its `weights` [batch, heads, query, key] and `mixed`, their
            product with the values; of feed-forward layers the `neurons`, which the last of its matrices reads.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, str] = field(default_factory=dict)
    number: int = 0

    @property
    def title(self) -> str:
        return f"{self.name} {self.number}"


def find_blocks(graph: Graph, facts: Facts) -> tuple[Block, ...]:
    """All parts that are recognised, in the order of their last nodes. They may overlap: a gate holds an activation."""
    at = _At(graph, facts)
    found = [block for finder in _FINDERS for block in finder(at)]
    found.sort(key=lambda block: (block.nodes[-1].index, -len(block.nodes)))
    counts: dict[str, int] = {}
    numbered = []
    for block in found:
        counts[block.name] = counts.get(block.name, -1) + 1
        numbered.append(replace(block, number=counts[block.name]))
    return tuple(numbered)


def innermost(blocks: Sequence[Block]) -> Mapping[int, Block]:
    """By the index of each node, the smallest part that it belongs to."""
    by_node: dict[int, Block] = {}
    for block in sorted(blocks, key=lambda block: -len(block.nodes)):
        by_node.update({node.index: block for node in block.nodes})
    return by_node


@dataclass(frozen=True)
class _At:
    """The graph that is searched, with its facts."""

    graph: Graph
    facts: Facts

    def producer(self, tensor: str) -> Node | None:
        return self.graph.producer.get(tensor)

    def varying(self, node: Node) -> tuple[str, ...]:
        """The inputs of a node that are no constants."""
        return tuple(i for i in node.inputs if i and not self.facts.is_constant(i))

    def only_reader(self, node: Node, *ops: str) -> Node | None:
        """What alone reads the first output of a node, if it is one of these operators."""
        readers = self.graph.value_readers(node.outputs[0])
        return readers[0] if len(readers) == 1 and readers[0].op in ops and not readers[0].domain else None


def _block(name: str, nodes: Sequence[Node], **tensors: str) -> Block:
    unique = {node.index: node for node in nodes}
    return Block(name, tuple(unique[i] for i in sorted(unique)), tensors)


# -- operators


def _by_operator(at: _At) -> Iterator[Block]:
    """Nodes that are one part, or come from one that was taken apart."""
    of: dict[int, tuple[Node, list[Node]]] = {}
    for node in at.graph.nodes:
        # The outermost: a norm with its addition is one norm, although one is among its parts.
        for origin in (*reversed(node.ancestors), node):
            if origin.op in _OPERATORS:
                of.setdefault(id(origin), (origin, []))[1].append(node)
                break
    for origin, nodes in of.values():
        is_silu = origin.op == "QuickGelu" and not _is_slope_of_gelu(origin.attribute("alpha", _QUICK_GELU))
        yield _block("SiLU" if is_silu else _OPERATORS[origin.op], nodes)


def _is_operator(node: Node) -> bool:
    return any(origin.op in _OPERATORS for origin in (node, *node.ancestors))


# -- attention


def _attention(at: _At) -> Iterator[Block]:
    """Softmax of what products of two tensors give, multiplied with a third."""
    for node in at.graph.nodes:
        if node.op != "Softmax" or node.domain:
            continue
        behind = _to_values(at, node)
        scores = _to_scores(at, node)
        if behind is not None and scores:
            weights = next(i for i in behind[-1].inputs if i in {o for n in (node, *behind) for o in n.outputs})
            yield _block(ATTENTION, [*scores, node, *behind], weights=weights, mixed=behind[-1].outputs[0])


def _to_values(at: _At, softmax: Node) -> list[Node] | None:
    """The nodes from the softmax to the product with the values."""
    pending, path, seen = [softmax], list[Node](), set[int]()
    while pending and len(seen) < _MOST_NODES:
        here = pending.pop(0)
        for reader in at.graph.consumers.get(here.outputs[0], ()):
            if reader.index in seen:
                continue
            seen.add(reader.index)
            if reader.op in _CONTRACTIONS and len(at.varying(reader)) > 1:
                return [*path, reader]
            if reader.op in _WEIGHTS and not reader.domain:
                path.append(reader)
                pending.append(reader)
    return None


def _to_scores(at: _At, softmax: Node) -> list[Node]:
    """The products of two tensors that the scores come from, with what lies between; none where there are none."""
    pending, seen = [softmax.inputs[0]], dict[int, Node]()
    reached: list[Node] = []
    while pending and len(seen) < _MOST_NODES:
        node = at.producer(pending.pop(0))
        if node is None or node.index in seen or node.domain:
            continue
        if node.op in _CONTRACTIONS and len(at.varying(node)) > 1:
            reached.append(node)
        elif node.op in _SCORES:
            seen[node.index] = node
            pending += [i for i in at.varying(node) if at.graph.is_float(i)]
    return _between(seen, reached)


def _between(seen: Mapping[int, Node], reached: Sequence[Node]) -> list[Node]:
    """The nodes of `seen` that depend on those reached, and these: without what the mask is made of."""
    inside = {o for node in reached for o in node.outputs}
    kept = []
    for index in sorted(seen):
        if inside.intersection(seen[index].inputs):
            inside.update(seen[index].outputs)
            kept.append(seen[index])
    return [*reached, *kept]


# -- norms and activations written out


def _written_out(at: _At) -> Iterator[Block]:
    """x * n(x) or x / n(x): RMSNorm, LayerNorm, GELU, SiLU, Mish."""
    for node in at.graph.nodes:
        if node.domain or node.op not in ("Mul", "Div") or _is_operator(node) or len(at.varying(node)) < 2:
            continue
        a, c = node.inputs
        for signal, factor in ((a, c), (c, a)) if node.op == "Mul" else ((a, c),):
            own = own_factor(at.graph, at.facts, signal, factor)
            if own is not None:
                found = _norm(at, node, signal, own) if own.reduced else _activation(at, node, own)
                if found is not None:
                    yield found
                break


def _norm(at: _At, node: Node, signal: str, own: OwnFactor) -> Block | None:
    """A norm whose statistics are means, with its scale and shift."""
    if not any(n.op in AVERAGES for n in own.nodes) or not (own.inverse or node.op == "Div"):
        return None
    nodes = [*own.nodes, node]
    centred = at.producer(signal)
    name = _RMS_NORM
    if centred is not None and centred.op == "Sub":
        mean = at.producer(centred.inputs[1])
        if mean is not None and mean.op in AVERAGES:
            name, nodes = _LAYER_NORM, [mean, centred, *nodes]
    elif any(n.op == "Sub" and average_of(at.graph, n.inputs[1]) for n in own.nodes):
        # x n(x) - mean n(x): the part with x stands for both.
        name = _LAYER_NORM
    for op in ("Cast", "Mul", "Add"):
        following = at.only_reader(nodes[-1], op)
        if following is not None and len(at.varying(following)) == 1:
            nodes.append(following)
    return _block(name, nodes)


def _activation(at: _At, node: Node, own: OwnFactor) -> Block | None:
    ops = {n.op for n in own.nodes}
    if "Erf" in ops or ("Tanh" in ops and "Softplus" not in ops and "Log" not in ops):
        following = at.only_reader(node, "Mul")
        half = [following] if following is not None and len(at.varying(following)) == 1 else []
        return _block("GELU", [*own.nodes, node, *half])
    if ops & {"Sigmoid", "Swish"}:
        return _block("GELU" if _is_quick(at, own) else "SiLU", [*own.nodes, node])
    if "HardSigmoid" in ops:
        return _block("HardSwish", [*own.nodes, node])
    return _block("Mish", [*own.nodes, node]) if "Tanh" in ops else None


def _is_quick(at: _At, own: OwnFactor) -> bool:
    slopes = [at.facts.scalar(i) for n in own.nodes if n.op == "Mul" for i in n.inputs if at.facts.is_constant(i)]
    return any(slope is not None and _is_slope_of_gelu(slope) for slope in slopes)


def _is_slope_of_gelu(slope: float) -> bool:
    return abs(slope - _QUICK_GELU) < 1e-3


# -- feed-forward layers


def _feed_forward(at: _At) -> Iterator[Block]:
    """An activation, gated or not, between two linear layers, the last of which is added to something."""
    for node in at.graph.nodes:
        if node.op not in ("MatMul", "Gemm") or len(at.varying(node)) != 1 or not _is_added(at, node):
            continue
        neurons = at.varying(node)[0]
        path = [node]
        source = at.producer(neurons)
        while source is not None and source.op in _SHAPES and not source.domain:
            path.append(source)
            source = at.producer(source.inputs[0])
        if source is None:
            continue
        gate = _gate(at, source)
        if gate is not None:
            yield _block(GATED, [*gate, *path], neurons=neurons)
        elif _is_activation(at, source) is not None:
            yield _block(FEED_FORWARD, [*(_is_activation(at, source) or ()), *path], neurons=neurons)


def _is_added(at: _At, node: Node) -> bool:
    """Whether the output of a linear layer ends up in a sum with another tensor that depends on the input."""
    for _ in range(_MOST_NODES):
        readers = at.graph.consumers.get(node.outputs[0], ())
        if len(readers) != 1 or readers[0].domain:
            return False
        node = readers[0]
        if node.op in ("Add", "Sum") and len(at.varying(node)) > 1:
            return True
        if node.op not in (*_SHAPES, "Add", "Mul", "Div"):
            return False
    return False


def _is_activation(at: _At, node: Node) -> tuple[Node, ...] | None:
    """The nodes of the activation that ends in `node`, or None."""
    entry = find(node)
    if entry is not None and entry.kind == "activation":
        return (node,)
    if node.op != "Mul" or node.domain:
        return None
    a, c = node.inputs
    for signal, factor in ((a, c), (c, a)):
        own = own_factor(at.graph, at.facts, signal, factor)
        if own is not None and not own.reduced:
            return (*own.nodes, node)
    if len(at.varying(node)) == 1:  # half of an activation: 0.5 x (1 + erf x)
        inner = at.producer(at.varying(node)[0])
        found = None if inner is None or inner.op != "Mul" else _is_activation(at, inner)
        return None if found is None else (*found, node)
    return None


def _gate(at: _At, node: Node) -> tuple[Node, ...] | None:
    """The nodes of activation(g) * u that ends in `node`, or None."""
    if node.op != "Mul" or node.domain or len(at.varying(node)) < 2 or _is_activation(at, node) is not None:
        return None
    for factor in node.inputs:
        source = at.producer(factor)
        while source is not None and source.op in _SHAPES and not source.domain:
            source = at.producer(source.inputs[0])
        nodes = None if source is None else _is_activation(at, source)
        if nodes is not None:
            return (*nodes, node)
    return None


# -- rotary embeddings


def _rotary(at: _At) -> Iterator[Block]:
    """x * cos + turned(x) * sin, where turned(x) puts the negative second half of x before the first."""
    for node in at.graph.nodes:
        if node.op != "Add" or node.domain or _is_operator(node):
            continue
        left, right = (at.producer(i) for i in node.inputs)
        for straight, turned in ((left, right), (right, left)):
            if straight is None or turned is None or straight.op != "Mul" or turned.op != "Mul":
                continue
            turning = next((found for i in turned.inputs if (found := _turned(at, i, straight.inputs))), None)
            if turning:
                yield _block(ROTARY, [*turning, straight, turned, node])
                break


def _turned(at: _At, tensor: str, signals: Sequence[str]) -> tuple[Node, ...] | None:
    """The nodes that make Concat(-second half, first half) of one of `signals`."""
    joined = at.producer(tensor)
    if joined is None or joined.op != "Concat" or len(joined.inputs) != 2:
        return None
    negative, first = (at.producer(i) for i in joined.inputs)
    if negative is None or negative.op != "Neg" or first is None:
        return None
    second = at.producer(negative.inputs[0])
    if second is None or {second.op, first.op} - {"Slice", "Split", "Gather"}:
        return None
    same = first.inputs[0] == second.inputs[0] and first.inputs[0] in signals
    return (first, second, negative, joined) if same else None


_FINDERS: tuple[Callable[[_At], Iterator[Block]], ...] = (
    _by_operator,
    _attention,
    _written_out,
    _feed_forward,
    _rotary,
)
