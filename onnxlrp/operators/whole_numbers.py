"""Whole numbers that a model is given as numbers: pixels in uint8, integer columns of a table.

They become floats by a Cast or a DequantizeLinear, often after some moves (NHWC to NCHW, columns put together), and
sometimes after sums and products. For the relevance pass the floats are made first and moved then, so that relevance
finds its way back to the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import FLOAT_TYPES, WHOLE_TYPES, Graph, Node
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

#: Operators that move values, and how many of their inputs, from the first on, are values; None for all of them.
_MOVES: Mapping[str, int | None] = {
    **dict.fromkeys(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"), 1),
    **dict.fromkeys(("Slice", "Split", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"), 1),
    "Concat": None,
}
#: Operators that compute in whole numbers what floats would give too.
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Neg"})
#: Types in which sums and products do not run over: those of narrow ones begin again at the other end, which no float
#: computation does.
_WIDE = frozenset({TensorProto.INT32, TensorProto.INT64})


@lowers("Cast")
def cast_after_moves(at: Situation, b: Builder) -> Sequence[str] | None:
    """Cast(move(x)) as move(Cast(x)), where x is whole numbers that the model is given; a sum likewise."""
    node, kind = at.node, int(at.node.attribute("to", 0))
    mover = at.graph.producer.get(node.inputs[0])
    if mover is None or kind not in FLOAT_TYPES or not is_given(at.graph, node.inputs[0]):
        return None
    values = _values(at.graph, mover)
    if mover.op == "Cast":
        return (b.op("Cast", mover.inputs[0], to=kind),)
    moved = [b.op("Cast", i, to=kind) if i in values else i for i in mover.inputs]
    made = b.ops(mover.op, *moved, outputs=len(mover.outputs), dtype=kind, **mover.attributes)
    return (made[mover.outputs.index(node.inputs[0])],)


def is_given(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is whole numbers that come, moved or not, from an input of the model."""
    pending, seen = [tensor], set[str]()
    while pending:
        name = pending.pop()
        if graph.dtype(name) not in WHOLE_TYPES:
            return False
        if name in graph.inputs:
            return True
        seen.add(name)
        maker = graph.producer.get(name)
        if maker is not None:
            pending.extend(v for v in _values(graph, maker) if v not in seen)
    return False


def _values(graph: Graph, mover: Node) -> tuple[str, ...]:
    """The inputs of a node that may be made floats before it instead of behind it; none of any other node."""
    if mover.domain:
        return ()
    if mover.op in _MOVES:
        return mover.inputs[: _MOVES[mover.op]]
    wide = graph.dtype(mover.outputs[0]) in _WIDE
    if mover.op in _ARITHMETIC and wide:
        return mover.inputs
    # To a wide type nothing is lost. (An unsigned number of 64 bits may be; none of that size is a pixel or a count.)
    return mover.inputs[:1] if mover.op == "Cast" and wide else ()
