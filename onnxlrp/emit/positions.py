"""Positions as a sink of relevance (Bakish et al. 2025): what position embeddings receive is kept, by position.

Of embeddings e = x + p the table p gets R_p = p / (x + p) R. Of rotary embeddings, where each table of cosines or sines
is a factor of queries and keys, the table gets its factor's share; per layer and table it is summed over queries, keys,
heads and width, and its absolute value counts.
"""

from __future__ import annotations

from collections import defaultdict

from onnxlrp.emit.backward import Walked
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Product
from onnxlrp.planning.program import Program
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.positions import Positions, Rotated

#: Rules under which a table of cosines is a factor like any other, with the share that it gets.
_SHARES = {"half": 0.5}


def position_relevance(b: Builder, facts: Facts, positions: Positions, program: Program, walked: Walked) -> str | None:
    """[batch, sequence], or None where positions come in nowhere."""
    arrived = {
        step.nodes[-1].index: (step, walked.arrived[number][0])
        for number, step in enumerate(program.steps)
        if number in walked.arrived
    }
    sums: list[str] = []
    tables: dict[tuple[int, str], list[str]] = defaultdict(list)
    with b.scope("positions"):
        for place in positions.added:
            if place.node.index in arrived:
                _, r = arrived[place.node.index]
                y = place.node.outputs[0]
                share = Relevance(r.as_multiplier(b, facts, y), place.table).as_map(b)
                sums.append(_by_position(b, share, y, (b.graph.rank(y) or 0) - 2))
        for turned in positions.rotated:
            if turned.node.index not in arrived:
                continue
            step, r = arrived[turned.node.index]
            if not isinstance(step.behaviour, Product) or step.rule not in _SHARES:
                continue
            share = b.scale(r.as_map(b), _SHARES[step.rule])
            y = turned.node.outputs[0]
            tables[turned.layer, turned.source].append(_by_position(b, share, y, _sequence_axis(b, turned)))
        sums += [b.op("Abs", b.sum(parts)) for parts in tables.values()]
        return b.sum(sums) if sums else None


def _by_position(b: Builder, tensor: str, y: str, axis: int) -> str:
    """Summed over all axes of y but the batch and the sequence."""
    others = [a for a in range(1, b.graph.rank(y) or 0) if a != axis]
    return b.op("ReduceSum", tensor, b.integers(others), keepdims=0)


def _sequence_axis(b: Builder, turned: Rotated) -> int:
    """The axis of the product along which the table goes from position to position."""
    rank, shape = b.graph.rank(turned.node.outputs[0]) or 0, b.graph.shape(turned.table) or ()
    behind = range(max(len(shape) - rank, 0), len(shape) - 1)
    axes = [rank - len(shape) + i for i in behind if shape[i] != 1 and rank - len(shape) + i > 0]
    return axes[0] if axes else rank - 2
