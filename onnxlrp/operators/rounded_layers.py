"""Layers between DequantizeLinear and QuantizeLinear, computed a second time where a rule reads their real output.

onnxruntime runs such a layer as one kernel on integers, as long as nobody reads what stands between it and the
QuantizeLinear. A relevance pass that did would change how the model itself is computed: slower, and with results that
differ by a step here and there. So rules read a copy, which is written differently enough for the runtime not to take
it for the model's own layer again. Where no rule reads it, it is not emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Node
from onnxlrp.operators.lowering import lowers_whatever
from onnxlrp.operators.registry import Situation

#: (builder, node) -> the same value, written in another way.
Copy = Callable[[Builder, Situation], str | None]


def _toggled(b: Builder, at: Situation, name: str, neutral: list[int]) -> str | None:
    """An attribute that changes nothing is stated where it was left out, and left out where it was stated."""
    given = at.node.attribute(name)
    if given is not None and list(given) != neutral:
        return None
    attributes: dict[str, Any] = {k: v for k, v in at.node.attributes.items() if k != name}
    if given is None:
        attributes[name] = neutral
    return b.op(at.node.op, *at.node.inputs, **attributes)


def _convolution(b: Builder, at: Situation) -> str | None:
    rank = at.graph.rank(at.node.inputs[1])
    return None if rank is None else _toggled(b, at, "dilations", [1] * (rank - 2))


def _average(b: Builder, at: Situation) -> str | None:
    if at.node.attribute("auto_pad", "NOTSET") != "NOTSET":
        return None
    return _toggled(b, at, "pads", [0, 0] * len(at.node.attribute("kernel_shape")))


def _gemm(b: Builder, at: Situation) -> str | None:
    """The bias is added apart."""
    node = at.node
    if not node.input(2) or node.attribute("beta", 1.0) != 1.0:
        return None
    return b.add(b.op("Gemm", *node.inputs[:2], **node.attributes), node.inputs[2])


def _commuted(b: Builder, at: Situation) -> str | None:
    first, second = at.node.inputs
    return b.op(at.node.op, second, first) if first != second else None


def _global_average(b: Builder, at: Situation) -> str | None:
    rank = at.graph.rank(at.node.inputs[0])
    return None if rank is None else b.op("ReduceMean", at.node.inputs[0], b.integers(range(2, rank)), keepdims=1)


_COPIES: Mapping[str, Copy] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "AveragePool": _average,
    "Gemm": _gemm,
    "Add": _commuted,
    "Mul": _commuted,
    "GlobalAveragePool": _global_average,
}


@lowers_whatever
def rounded_layer(at: Situation, b: Builder) -> Sequence[str] | None:
    copy = _COPIES.get(at.node.op)
    if copy is None or at.node.domain or at.node.origin is not None or not _on_integers(at):
        return None
    made = copy(b, at)
    return None if made is None else (b.op("Identity", made),)


def _on_integers(at: Situation) -> bool:
    """Whether the runtime may run a node on integers: they are read in front of it, and written behind it alone."""
    graph, y = at.graph, at.y
    makers = [graph.producer.get(i) for i in at.node.inputs if i in at.active]
    readers = graph.consumers.get(y, ())
    return (
        bool(makers and readers)
        and y not in graph.outputs
        and all(_is(m, "DequantizeLinear") for m in makers)
        and all(_is(r, "QuantizeLinear") for r in readers)
    )


def _is(node: Node | None, op: str) -> bool:
    return node is not None and node.op == op and not node.domain
