"""Selective state-space scans, as exporters write them out.

Step by step (Mamba) h_t = exp(A d_t) h_(t-1) + (d_t B_t) u_t, y_t = C_t h_t. In blocks (Mamba-2) the same is written
with matrices: inside a block y = (C B^T * L) (d u), where L is exp of sums of A d, and the states of whole blocks are
handed on in the same way.

The step size d_t (a Softplus), B_t and C_t depend on the input as well, and say how the state takes it up, keeps it and
gives it back; what is said is in u and h. So in each of these products u or h is the signal (Jafari et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable

from onnxlrp.graph.view import Node
from onnxlrp.operators.registry import Situation

_MOVES = frozenset(
    (
        *("Gather", "GatherND", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Flatten"),
        *("Transpose", "Expand", "Identity", "Cast", "Clip", "Pad"),
    )
)
#: What stands between a step size and the exponent that it becomes a part of.
_IN_EXPONENTS = _MOVES | {"Mul", "Add", "Sub", "Neg", "CumSum", "Where", "Trilu", "Concat"}
_PRODUCTS = frozenset({"Mul", "MatMul", "Einsum"})
_MOST_MOVES, _MOST_NODES = 12, 60


def scan_signal(at: Situation, a: str, c: str) -> str | None:
    """Which of two factors is the signal, where the other one belongs to a scan; None where neither does."""
    taken = _kernel_and_taken(at, a, c)
    if taken is not None:
        return taken
    steering = _one(at, a, c, _steers)
    if steering is not None:
        return c if steering == a else a
    return _one(at, a, c, _is_state)


def _one(at: Situation, a: str, c: str, test: Callable[[Situation, str], bool]) -> str | None:
    """The one of two tensors that a test holds for; None where it holds for both or neither."""
    holds = test(at, a), test(at, c)
    return None if holds[0] == holds[1] else a if holds[0] else c


def _kernel_and_taken(at: Situation, a: str, c: str) -> str | None:
    """Of a kernel and what a step size made of the input: the latter."""
    for kernel, taken in ((a, c), (c, a)):
        if _is_taken(at, taken) and _is_kernel(at, kernel):
            return taken
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


def _is_taken(at: Situation, tensor: str) -> bool:
    """Whether a tensor is a step size times something: the input that is taken up, or B."""
    node = _origin(at, tensor)
    return node is not None and node.op == "Mul" and any(_is_step(at, x) for x in node.inputs)


def _is_decay(at: Situation, tensor: str) -> bool:
    """Whether a tensor is what is left of a state after some steps: exp of a sum of step sizes times A."""
    node = _origin(at, tensor)
    if node is None or node.op != "Exp":
        return False
    pending, seen = [node.inputs[0]], set[str]()
    while pending and len(seen) < _MOST_NODES:
        name = pending.pop()
        if name in seen or at.facts.is_constant(name):
            continue
        seen.add(name)
        if _is_step(at, name):
            return True
        maker = at.graph.producer.get(name)
        if maker is not None and not maker.domain and maker.op in _IN_EXPONENTS:
            pending.extend(i for i in maker.inputs if i)
    return False


def _steers(at: Situation, tensor: str) -> bool:
    """Whether a tensor is a step size, or a step size times B, or a decay."""
    if at.facts.is_constant(tensor):
        return False
    return _is_step(at, tensor) or _is_taken(at, tensor) or _is_decay(at, tensor)


def _is_kernel(at: Situation, tensor: str) -> bool:
    """Whether a tensor says what a later position has of what an earlier one took up: a decay times B or C B^T."""
    node = _origin(at, tensor)
    if node is None or node.op != "Mul":
        return False
    a, c = node.inputs
    decay = _one(at, a, c, _is_decay)
    return decay is not None and not _is_state(at, c if decay == a else a)


def _is_state(at: Situation, tensor: str) -> bool:
    """Whether a tensor is what a state takes up, or a sum with something that a scan weighted."""
    node = _origin(at, tensor)
    if node is None:
        return False
    makers = [_origin(at, x) for x in node.inputs] if node.op in ("Add", "Sum") else [node]
    return any(m is not None and m.op in _PRODUCTS and any(_steers(at, x) for x in m.inputs) for m in makers)
