"""Selective state-space scans, as exporters write them out: h_t = exp(A d_t) h_(t-1) + (d_t B_t) u_t, y_t = C_t h_t.

The step size d_t (a Softplus), B_t and C_t depend on the input as well, and say how the state takes it up, keeps it and
gives it back; what is said is in u and h. So in each of these products u or h is the signal (Jafari et al. 2024).
"""

from __future__ import annotations

from onnxlrp.graph.view import Node
from onnxlrp.operators.registry import Situation

_MOVES = frozenset(
    (
        *("Gather", "GatherND", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Flatten"),
        *("Transpose", "Expand", "Identity", "Cast", "Clip"),
    )
)
_MOST_MOVES = 12


def scan_signal(at: Situation, a: str, c: str) -> str | None:
    """Which of two factors is the signal, where the other one belongs to a scan; None where neither does."""
    steering = _steers(at, a), _steers(at, c)
    if steering[0] != steering[1]:
        return c if steering[0] else a
    states = _is_state(at, a), _is_state(at, c)
    if states[0] != states[1]:
        return a if states[0] else c
    return None


def _origin(at: Situation, tensor: str) -> Node | None:
    """The node that made a tensor, behind whatever only moved it."""
    for _ in range(_MOST_MOVES):
        node = at.graph.producer.get(tensor)
        if node is None or node.domain or node.op not in _MOVES:
            return None if node is None or node.domain else node
        tensor = node.inputs[0]
    return None


def _is_step(at: Situation, tensor: str) -> bool:
    """Whether a tensor is a step size: a Softplus, which some exporters write with a Where for what is large."""
    node = _origin(at, tensor)
    if node is None or at.facts.is_constant(tensor):
        return False
    made = [_origin(at, x) for x in node.inputs[1:]] if node.op == "Where" else [node]
    return any(n is not None and n.op == "Softplus" for n in made)


def _steers(at: Situation, tensor: str) -> bool:
    """Whether a tensor is a step size, or a step size times B, or exp(A times a step size)."""
    node = _origin(at, tensor)
    if node is None or at.facts.is_constant(tensor):
        return False
    exponent = _origin(at, node.inputs[0]) if node.op == "Exp" else None
    product = node if exponent is None else exponent
    return _is_step(at, tensor) or (product.op == "Mul" and any(_is_step(at, x) for x in product.inputs))


def _is_state(at: Situation, tensor: str) -> bool:
    """Whether a tensor is what a state takes up, or a sum with something that a scan weighted."""
    node = _origin(at, tensor)
    if node is None:
        return False
    makers = [_origin(at, x) for x in node.inputs] if node.op in ("Add", "Sum") else [node]
    return any(m is not None and m.op == "Mul" and any(_steers(at, x) for x in m.inputs) for m in makers)
