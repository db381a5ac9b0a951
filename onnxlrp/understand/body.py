"""The body of an If, Loop or Scan as a graph of its own, with what the graph around it says of what it captures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Graph, Node, TensorInfo
from onnxlrp.understand.facts import UNBOUNDED, Facts, Range
from onnxlrp.understand.iterating import typed_body
from onnxlrp.understand.reading import Reading, read_for_relevance

#: How often bounds of carried state are widened before they are given up.
_ROUNDS = 4


@dataclass(frozen=True)
class Body:
    """A subgraph, read for relevance. Everything that it defines itself has a name of its own in the whole model.

    Attributes:
        inputs: its formal inputs.
        outputs: its outputs, in order.
        captured: what it takes from the graph around it.
        graph: the subgraph without its initializers.
        hoisted: its own initializers, which the emitted model keeps beside its own.
        growing: carried state whose sizes change from one iteration to the next.
    """

    reading: Reading
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    graph: onnx.GraphProto
    hoisted: tuple[onnx.TensorProto, ...]
    growing: tuple[str, ...] = ()


def read_body(
    outer: Reading,
    node: Node,
    attribute: str,
    formal: Sequence[TensorInfo],
    b: Builder,
    carried: Sequence[tuple[int, int]] = (),
    bounds: Sequence[Range] = (),
) -> Body:
    """Reads the subgraph in `attribute` of `node`.

    Args:
        formal: what is known of each formal input from outside; the subgraph's own word goes first.
        b: the builder of the graph around it.
        carried: (input, output) positions of carried state: the output is the next iteration's input, so that only
            what both agree on is known of it.
        bounds: of each formal input, as far as they are known from outside; of carried state at the start.
    """
    with b.scope(node.name):
        within = b.unique(attribute)
    typed = typed_body(outer.graph, outer.facts, node.attribute(attribute), within, formal, carried)
    graph, own, captured = typed.proto, typed.graph, typed.captured
    around = dict.fromkeys(captured, outer.facts)
    facts = _bounded(own, outer.facts.data_folders, around, bounds, [(i, graph.output[o].name) for i, o in carried])
    inner = b.inside(own, b.scope_name)
    return Body(
        read_for_relevance(own, facts, inner, outer.declared),
        tuple(v.name for v in graph.input),
        tuple(v.name for v in graph.output),
        captured,
        _without_initializers(graph),
        tuple(graph.initializer),
        typed.growing,
    )


def _bounded(
    graph: Graph,
    data_folders: tuple[Path, ...],
    around: Mapping[str, Facts],
    bounds: Sequence[Range],
    carried: Sequence[tuple[int, str]],
) -> Facts:
    """Facts under bounds of the formal inputs that hold in every iteration: by induction, or none."""
    names = graph.inputs
    given = {name: bound for name, bound in zip(names, bounds, strict=False) if bound != UNBOUNDED}
    for _ in range(_ROUNDS):
        facts = Facts(graph, data_folders, around, given)
        wider = {}
        for i, output in carried:
            known, following = given.get(names[i], UNBOUNDED), facts.range(output)
            hull = Range(min(known.low, following.low), max(known.high, following.high))
            if hull != known:
                wider[names[i]] = hull
        if not wider:
            return facts
        given.update(wider)
    return Facts(graph, data_folders, around, {n: r for n, r in given.items() if n not in wider})


def _without_initializers(graph: onnx.GraphProto) -> onnx.GraphProto:
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    del result.initializer[:]
    return result
