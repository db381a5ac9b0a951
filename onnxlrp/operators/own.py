"""Products of a tensor with a function of itself, as exporters write them in primitive nodes.

x * g(x) with an element-wise g is an activation (SiLU, GELU, Mish, HardSwish): one function of x, through which
relevance passes. x * n(x), where n goes through a sum over x and a reciprocal, is a normalisation (RMSNorm, LayerNorm):
its statistics only scale x, and its average as well. Both ways g and n receive nothing of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.registry import Situation, find
from onnxlrp.understand.facts import Facts

_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Cast", "Identity", "Sum", "Max", "Min"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool"})
AVERAGES = frozenset({"ReduceMean", "GlobalAveragePool"})
_SHAPES = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Expand"})
_MOST_NODES = 32


@dataclass(frozen=True)
class OwnFactor:
    """A factor of a product that is a function of the other factor.

    Attributes:
        nodes: that compute it.
        reduced: whether it goes through a sum over the signal.
        inverse: whether it goes through a reciprocal.
    """

    nodes: tuple[Node, ...]
    reduced: bool
    inverse: bool


def own_function(at: Situation, signal: str, factor: str) -> str | None:
    """What `factor` is of `signal`, in words for the plan: an activation, a norm, or None for anything else."""
    found = own_factor(at.graph, at.facts, signal, factor)
    if found is not None and not found.reduced:
        return "an activation written out: x times a function of x"
    if found is None:
        # Keras and TensorFlow write (x - mean) n as x n - mean n.
        averaged = average_of(at.graph, signal)
        found = own_factor(at.graph, at.facts, averaged, factor) if averaged else None
    is_norm = found is not None and found.reduced and found.inverse
    return "a normalisation written out: the norm only scales" if is_norm else None


def average_of(graph: Graph, tensor: str) -> str | None:
    """What a tensor is the average of along some axes; None where it is no average."""
    node = graph.producer.get(tensor)
    while node is not None and node.op in _SHAPES and not node.domain:
        node = graph.producer.get(node.inputs[0])
    return node.inputs[0] if node is not None and node.op in AVERAGES and not node.domain else None


def own_factor(graph: Graph, facts: Facts, signal: str, factor: str) -> OwnFactor | None:
    """How `factor` is computed from `signal` and constants alone; None where it is not."""
    roots = roots_of(graph, facts, signal)
    pending, seen, nodes = [factor], set[str](), list[Node]()
    reduced = inverse = touched = False
    while pending:
        tensor = pending.pop()
        if tensor in roots:
            touched = True
            continue
        if tensor in seen or facts.is_constant(tensor):
            continue
        seen.add(tensor)
        node = graph.producer.get(tensor)
        if node is None or node.domain or len(seen) > _MOST_NODES:
            return None
        nodes.append(node)
        if node.op in _REDUCTIONS:
            reduced = True
            pending.append(node.inputs[0])
        elif node.op in _SHAPES:
            pending.append(node.inputs[0])
        elif node.op in _ARITHMETIC or _is_elementwise(node):
            inverse = inverse or _inverts(facts, node)
            pending += [i for i in node.inputs if i]
        else:
            return None
    return OwnFactor(tuple(nodes), reduced, inverse) if touched and signal != factor else None


def roots_of(graph: Graph, facts: Facts, signal: str) -> tuple[str, ...]:
    """The signal and what it is a constant multiple or a cast of, the nearest first."""
    found = [signal]
    while True:
        node = graph.producer.get(found[-1])
        if node is None or node.domain or node.op not in ("Mul", "Div", "Cast", "Identity"):
            return tuple(found)
        data = [i for i in node.inputs if i and not facts.is_constant(i)]
        if len(data) != 1 or (data[0] != node.inputs[0] and node.op == "Div"):
            return tuple(found)
        found.append(data[0])


def _is_elementwise(node: Node) -> bool:
    entry = find(node)
    return entry is not None and entry.kind == "activation"


def _inverts(facts: Facts, node: Node) -> bool:
    if node.op == "Reciprocal":
        return True
    if node.op == "Div":
        return not facts.is_constant(node.inputs[1])
    exponent = facts.scalar(node.inputs[1]) if node.op == "Pow" else None
    return exponent is not None and exponent < 0
