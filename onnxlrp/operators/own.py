"""Products of a tensor with a function of itself, as exporters write them in primitive nodes.

x * g(x) with an element-wise g is an activation (SiLU, GELU, Mish, HardSwish): one function of x, through which
relevance passes. x * n(x), where n goes through a sum over x and a reciprocal, is a normalisation (RMSNorm, LayerNorm):
its statistics only scale x. Both ways g and n receive nothing of their own.
"""

from __future__ import annotations

from onnxlrp.graph.view import Node
from onnxlrp.operators.registry import Situation, find

_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Cast", "Identity", "Sum", "Max", "Min"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool"})
_SHAPES = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Expand"})
_MOST_NODES = 32


def own_function(at: Situation, signal: str, factor: str) -> str | None:
    """What `factor` is of `signal`, in words for the plan: an activation, a norm, or None for anything else."""
    roots = _roots(at, signal)
    pending, seen = [factor], set[str]()
    reduced = inverse = touched = False
    while pending:
        tensor = pending.pop()
        if tensor in roots:
            touched = True
            continue
        if tensor in seen or at.facts.is_constant(tensor):
            continue
        seen.add(tensor)
        node = at.graph.producer.get(tensor)
        if node is None or node.domain or len(seen) > _MOST_NODES:
            return None
        if node.op in _REDUCTIONS:
            reduced = True
            pending.append(node.inputs[0])
        elif node.op in _SHAPES:
            pending.append(node.inputs[0])
        elif node.op in _ARITHMETIC or _is_elementwise(node):
            inverse = inverse or _inverts(at, node)
            pending += [i for i in node.inputs if i]
        else:
            return None
    if not touched or signal == factor:
        return None
    if not reduced:
        return "an activation written out: x times a function of x"
    return "a normalisation written out: the norm only scales" if inverse else None


def _roots(at: Situation, signal: str) -> frozenset[str]:
    """The signal and what it is a constant multiple or a cast of."""
    found = [signal]
    while True:
        node = at.graph.producer.get(found[-1])
        if node is None or node.domain or node.op not in ("Mul", "Div", "Cast", "Identity"):
            return frozenset(found)
        data = [i for i in node.inputs if i and not at.facts.is_constant(i)]
        if len(data) != 1 or (data[0] != node.inputs[0] and node.op == "Div"):
            return frozenset(found)
        found.append(data[0])


def _is_elementwise(node: Node) -> bool:
    entry = find(node)
    return entry is not None and entry.kind == "activation"


def _inverts(at: Situation, node: Node) -> bool:
    if node.op == "Reciprocal":
        return True
    if node.op == "Div":
        return not at.facts.is_constant(node.inputs[1])
    exponent = at.facts.scalar(node.inputs[1]) if node.op == "Pow" else None
    return exponent is not None and exponent < 0
