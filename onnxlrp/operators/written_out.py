"""Activations written out in primitive nodes, x * g(x), as the one function that they are, with its slope anywhere.

The slope is found in forward mode: every node on the way says its value and its derivative, from x on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Node
from onnxlrp.operators.behaviour import Elementwise
from onnxlrp.operators.elementwise import DERIVATIVES
from onnxlrp.operators.own import roots_of
from onnxlrp.operators.registry import Situation

#: A tensor and its derivative, which is None where it does not depend on x.
_Dual = tuple[str, str | None]


def activation_written_out(at: Situation, signal: str, factor: str) -> Elementwise | None:
    """The function that signal * factor is of one tensor, or None where it is a normalisation or has unknown parts."""
    steps = _Steps(at, frozenset(roots_of(at.graph, at.facts, signal)))
    if not (steps.collect(factor) and steps.touched):
        return None
    chain = roots_of(at.graph, at.facts, signal)
    x = next(tensor for tensor in reversed(chain) if tensor in steps.touched)
    steps = _Steps(at, frozenset({x}))
    if not steps.collect(at.y):
        return None

    def slope_at(b: Builder, g: str, other: str) -> str:
        _, slope = _Curve(b, at, steps.nodes, {x: (other, b.scalar(1.0, other))}, other == x).of(at.y)
        return g if slope is None else b.mul(g, slope)

    return Elementwise(x, at.y, lambda b, g: slope_at(b, g, x), slope_at=slope_at)


@dataclass
class _Steps:
    """The nodes between some roots and a tensor, if all of them are element by element and have a derivative here."""

    at: Situation
    roots: frozenset[str]
    nodes: dict[str, Node] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)

    def collect(self, tensor: str) -> bool:
        """Whether all nodes behind the roots are known; they are in `nodes` by output then."""
        if tensor in self.roots:
            self.touched.add(tensor)
            return True
        if tensor in self.nodes or self.at.facts.is_constant(tensor):
            return True
        node, shape = self.at.graph.producer.get(tensor), self.at.graph.shape(tensor)
        if node is None or node.domain or not (node.op in _RULES or node.op in DERIVATIVES):
            return False
        if node.op == "Pow" and not self.at.facts.is_constant(node.inputs[1]):
            return False
        if shape is None or shape != self.at.graph.shape(self.at.y) or len(self.nodes) > 32:
            return False
        self.nodes[tensor] = node
        return all(self.collect(i) for i in node.inputs if i)


@dataclass
class _Curve:
    """Values and derivatives of the nodes between x and y, where x has another value; `same`: it has its own."""

    b: Builder
    at: Situation
    nodes: Mapping[str, Node]
    found: dict[str, _Dual]
    same: bool

    def of(self, tensor: str) -> _Dual:
        node = self.nodes.get(tensor)
        if tensor not in self.found:
            self.found[tensor] = (tensor, None) if node is None else self._through(node, tensor)
        return self.found[tensor]

    def _through(self, node: Node, tensor: str) -> _Dual:
        inputs = [self.of(i) for i in node.inputs]
        y = tensor if self.same else self.b.op(node.op, *(value for value, _ in inputs), **node.attributes)
        if all(slope is None for _, slope in inputs):
            return tensor, None
        if node.op in _RULES:
            return y, _RULES[node.op](self.b, node, inputs, y)
        (x, slope), *_ = inputs
        derivative = DERIVATIVES[node.op](self.b, x, y, self.at_node(node))
        return y, None if slope is None else self.b.mul(slope, derivative)

    def at_node(self, node: Node) -> Situation:
        return Situation(node, self.at.graph, self.at.facts, self.at.active)


_Rule = Callable[[Builder, Node, list[_Dual], str], str | None]


def _same_slope(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    return inputs[0][1]


def _sum(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    return b.sum([slope for _, slope in inputs if slope is not None])


def _difference(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    (_, first), (_, second) = inputs
    if second is None:
        return first
    return b.op("Neg", second) if first is None else b.sub(first, second)


def _product(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    (a, da), (c, dc) = inputs
    parts = [b.mul(slope, other) for slope, other in ((da, c), (dc, a)) if slope is not None]
    return b.sum(parts)


def _quotient(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    (_, da), (d, dd) = inputs
    rest = None if dd is None else b.mul(y, dd)
    if da is None:
        return None if rest is None else b.op("Neg", b.div(rest, d))
    return b.div(da if rest is None else b.sub(da, rest), d)


def _negative(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    slope = inputs[0][1]
    return None if slope is None else b.op("Neg", slope)


def _power(b: Builder, node: Node, inputs: list[_Dual], y: str) -> str | None:
    (x, slope), (n, _) = inputs
    if slope is None:
        return None
    exponent = b.op("Cast", n, to=b.dtype(x))
    less = b.sub(exponent, b.scalar(1.0, x))
    return b.mul(slope, b.mul(exponent, b.bounded(b.op("Pow", x, less))))


_RULES: Mapping[str, _Rule] = {
    "Add": _sum,
    "Sum": _sum,
    "Sub": _difference,
    "Mul": _product,
    "Div": _quotient,
    "Neg": _negative,
    "Pow": _power,
    "Cast": _same_slope,
    "Identity": _same_slope,
}
