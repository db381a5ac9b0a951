"""Where positions come into a transformer: embeddings that are added, and the tables of rotary embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxlrp.graph.view import Graph, Node
from onnxlrp.understand.blocks import ATTENTION, ROTARY, Block
from onnxlrp.understand.facts import Facts

#: What hands the elements of its first input on, as far as positions are concerned.
_MOVES = frozenset(
    {"Cast", "Transpose", "Identity", "Expand", "Tile", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Concat"}
)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Where", "Clip"})
_COUNTS = frozenset({"Range", "CumSum"})
_MOST_NODES = 40


@dataclass(frozen=True)
class Added:
    """Position embeddings `table` [.., sequence, width] that the Add `node` puts on the embeddings of the input."""

    node: Node
    table: str


@dataclass(frozen=True)
class Rotated:
    """A product of queries or keys with a table of cosines or sines, in attention number `layer`.

    `source` is the tensor that the table was picked and shaped from, the same for queries and keys.
    """

    node: Node
    table: str
    source: str
    layer: int


@dataclass(frozen=True)
class Positions:
    """All places at which positions come in."""

    added: tuple[Added, ...] = ()
    rotated: tuple[Rotated, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that are multiplied with, each once."""
        return tuple(dict.fromkeys(r.table for r in self.rotated))


def find_positions(graph: Graph, facts: Facts, blocks: Sequence[Block], forward: frozenset[str]) -> Positions:
    """The positions of what depends on the explained input, `forward`."""
    layers = [b for b in blocks if b.name == ATTENTION]
    first = min((b.nodes[0].index for b in layers), default=-1)
    added = tuple(
        Added(node, table)
        for node in graph.nodes
        if node.op == "Add" and not node.domain and node.index < first and forward.intersection(node.inputs)
        for table in node.inputs
        if table not in forward and _is_table(graph, facts, table)
    )
    return Positions(added, tuple(_rotated(graph, blocks, layers, forward)))


def _rotated(
    graph: Graph, blocks: Sequence[Block], layers: Sequence[Block], forward: frozenset[str]
) -> Iterator[Rotated]:
    for block in blocks:
        if block.name != ROTARY:
            continue
        last = block.nodes[-1].index
        layer = next((b.number for b in layers if b.nodes[-1].index > last), len(layers))
        for node in block.nodes:
            fixed = [i for i in node.inputs if i not in forward]
            if node.op == "Mul" and len(fixed) == 1 and (graph.rank(fixed[0]) or 0) > 1:
                yield Rotated(node, fixed[0], _source(graph, fixed[0]), layer)


def _source(graph: Graph, table: str) -> str:
    node = graph.producer.get(table)
    while node is not None and not node.domain and (node.op in _MOVES or node.op == "Gather"):
        table = node.inputs[0]
        node = graph.producer.get(table)
    return table


def _is_table(graph: Graph, facts: Facts, tensor: str) -> bool:
    """Whether a tensor has a row for each position: rows of a table that were picked by counting, or all of a table."""
    shape = graph.shape(tensor)
    if not graph.is_float(tensor) or shape is None or len(shape) < 2 or shape[-2] == 1:
        return False
    if facts.is_constant(tensor):
        value = facts.value(tensor)
        return value is None or bool((value != value[..., :1, :]).any())
    node = graph.producer.get(tensor)
    if node is None or node.domain:
        return False
    if node.op == "Gather" and facts.is_constant(node.inputs[0]):
        return _counts(graph, facts, node.inputs[1])
    return node.op in _MOVES and _is_table(graph, facts, node.inputs[0])


def _counts(graph: Graph, facts: Facts, ids: str) -> bool:
    """Whether ids number positions: a range, a running sum, a part of a counting constant, or an input of that name."""
    pending, seen = [ids], set[str]()
    while pending and len(seen) < _MOST_NODES:
        tensor = pending.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        node = graph.producer.get(tensor)
        if facts.is_constant(tensor):
            value = facts.value(tensor)
            if value is not None and value.size > 1 and np.unique(value).size > 1:
                return True
        elif node is None:
            if "position" in tensor.lower():
                return True
        elif node.op in _COUNTS:
            return True
        elif node.op in _MOVES or (node.op == "Gather" and facts.is_constant(node.inputs[1])):
            pending.append(node.inputs[0])
        elif node.op in _ARITHMETIC:
            pending += [i for i in node.inputs if i]
    return False
