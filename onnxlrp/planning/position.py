"""One position of a sequence as the target: logits [batch, sequence, vocabulary] read as [batch, vocabulary].

The reading graph gets nodes that pick the position, and relevance starts at what they give. They pick as early as
possible: the layer that makes the logits treats positions one by one, so it is run again for the one that matters,
and its relevance pass costs one position instead of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.inputs import POSITION_INPUT
from onnxlrp.errors import UsageError
from onnxlrp.graph.view import Graph, Node
from onnxlrp.planning.target import Explained, Target
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.reading import SCOPE, Reading, extended

_NODES = f"{SCOPE}/position"
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
_UNARY = frozenset({"Identity", "Cast", "Tanh", "Neg"})
_END = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Position:
    """Which position along axis 1 of the explained output is explained.

    Attributes:
        index: counted from the end where negative (mode "index").
    """

    mode: Literal["index", "input", "all"]
    index: int = -1

    def __str__(self) -> str:
        if self.mode != "index":
            return self.mode
        return "last" if self.index == -1 else str(self.index)


def parse_position(position: str | int) -> Position:
    """The position as a value.

    Raises:
        UsageError: it is none of last, an index, input or all.
    """
    if isinstance(position, int | np.integer) and not isinstance(position, bool):
        return Position("index", int(position))
    if position == "last":
        return Position("index")
    if position in ("input", "all"):
        return Position(position)  # type: ignore[arg-type]
    try:
        return Position("index", int(str(position)))
    except ValueError:
        raise UsageError(f"position {position!r} is not last, an index such as 4 or -2, input or all") from None


def with_position(target: Target, position: Position | None) -> tuple[Target, Position | None]:
    """The target and the position to pick: `all` is the largest element along the last axis at every position.

    Raises:
        UsageError: the two do not go together.
    """
    if position is None:
        return target, None
    if target.axis is not None:
        raise UsageError("an axis and a position are two ways to say what is explained of a sequence; give one of them")
    if position.mode != "all":
        return target, position
    if target.mode != "argmax" or target.rather_than:
        raise UsageError(f"position all explains the largest element at every position: it has no target {target}")
    return replace(target, axis=-1), None


def position_input(position: Position | None, tensor: str, graph: Graph) -> tuple[onnx.ValueInfoProto, ...]:
    """The graph input [batch, 1] that a position given at run time needs; `tensor` has its batch axis."""
    if position is None or position.mode != "input":
        return ()
    shape = graph.shape(tensor) or (None,)
    size = "batch" if shape[0] is None else shape[0]
    return (helper.make_tensor_value_info(POSITION_INPUT, TensorProto.INT64, [size, 1]),)


def at_position(
    original: Graph, reading: Reading, targets: Sequence[Explained], position: Position, b: Builder
) -> tuple[Reading, tuple[Explained, ...]]:
    """The reading graph with nodes that pick the position out of each explained tensor, and what is explained then.

    Raises:
        UsageError: an explained tensor has no three axes, or no such position.
    """
    for t in targets:
        _check(t, reading.graph, position)
    picked: dict[str, str] = {}

    def make() -> dict[str, Node]:
        origins: dict[str, Node] = {}
        b.declare(POSITION_INPUT, TensorProto.INT64)
        for t in targets:
            picked[t.tensor] = _picked(reading, t.tensor, position, b, origins)
        return origins

    known = {v.name: v.type for v in position_input(position, targets[0].tensor, reading.graph)}
    further = extended(original, reading, make, known, b)
    where = POSITION_INPUT if position.mode == "input" else str(position)
    note = f"relevance starts at position {where} of axis 1"
    found = tuple(
        replace(t, tensor=picked[t.tensor], whole=t.tensor, notes=(*t.notes, f"{t.name}: {note}")) for t in targets
    )
    return further, found


def _check(t: Explained, graph: Graph, position: Position) -> None:
    shape = graph.shape(t.tensor)
    if shape is None or len(shape) != 3:
        has = "unknown" if shape is None else str(len(shape))
        raise UsageError(
            f"a position is taken out of an output [batch, sequence, classes]; the rank of {t.tensor!r} is {has}"
        )
    size = shape[1]
    if position.mode == "index" and isinstance(size, int) and not -size <= position.index < size:
        raise UsageError(
            f"position {position} is out of range: axis 1 of output {t.tensor!r} has {size} positions (0 to {size - 1})"
        )


def _picked(reading: Reading, tensor: str, position: Position, b: Builder, origins: dict[str, Node]) -> str:
    chain = _position_by_position(reading.graph, reading.facts, tensor)
    start = chain[0][1] if chain else tensor
    with b.scope(_NODES):
        found = _pick(b, start, position)
    for node, active in chain:
        inputs = [found if i == active else i for i in node.inputs]
        with b.scope(f"{SCOPE}/{node.name}"):
            found = b.op(node.op, *inputs, domain=node.domain, **node.attributes)
        origins[found] = node
    return found


def _pick(b: Builder, tensor: str, position: Position) -> str:
    """[batch, sequence, width] -> [batch, width]. A position that does not exist is an error at run time."""
    if position.mode == "input":
        return b.op("GatherND", tensor, POSITION_INPUT, batch_dims=1)
    at, axis = position.index, b.integers([1])
    end = at + 1 if at != -1 else _END
    return b.op("Squeeze", b.op("Slice", tensor, b.integers([at]), b.integers([end]), axis), axis)


def _position_by_position(graph: Graph, facts: Facts, tensor: str) -> list[tuple[Node, str]]:
    """The last nodes before a tensor that treat its positions one by one, in order, each with its data input."""
    chain: list[tuple[Node, str]] = []
    while (node := graph.producer.get(tensor)) is not None:
        active = [i for i in node.inputs if i and not facts.is_constant(i)]
        if len(active) != 1 or node.domain or graph.rank(active[0]) != 3 or not graph.is_float(active[0]):
            break
        fixed = [i for i in node.inputs if i and i != active[0]]
        ranks = [graph.rank(i) for i in fixed]
        layer = node.op == "MatMul" and node.inputs[0] == active[0] and ranks == [2]
        scaling = node.op in _ELEMENTWISE and len(fixed) == 1 and ranks[0] in (0, 1)
        if not (layer or scaling or node.op in _UNARY):
            break
        chain.append((node, active[0]))
        tensor = active[0]
    return chain[::-1]
