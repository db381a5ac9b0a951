"""Mul, Div and Neg: scaling where one factor is free of the explained input, otherwise a gate or a product."""

from __future__ import annotations

from collections.abc import Callable

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Elementwise, Product, Scaling
from onnxlrp.operators.own import own_function
from onnxlrp.operators.registry import Situation, find, register
from onnxlrp.operators.scan import scan_signal
from onnxlrp.operators.written_out import activation_written_out
from onnxlrp.understand.facts import Facts, Range


def gate_of(facts: Facts, a: str, b: str) -> str | None:
    """Which of two factors is a gate: the bounded one; of two bounded ones the one that alone stays in [0, 1], and if
    that does not tell them apart the one that alone stays in [-1, 1].

    A gate is the output of a saturating function (Sigmoid, HardSigmoid, Erf, Clip, ...), shifted or scaled or not:
    it says how much of the signal passes.
    """
    ra, rb = facts.range(a), facts.range(b)
    tests: tuple[Callable[[Range], bool], ...] = (
        lambda r: r.bounded,
        lambda r: r.low >= 0 and r.high <= 1,
        lambda r: r.low >= -1 and r.high <= 1,
    )
    if not (ra.bounded or rb.bounded):
        return None
    return next((a if test(ra) else b for test in tests if test(ra) != test(rb)), None)


def signal_of(at: Situation, a: str, b: str) -> str | None:
    """The factor that is not a gate, where the other one is; in a state-space scan the input or the state."""
    gate = gate_of(at.facts, a, b) if a != b else None
    if gate is None:
        return scan_signal(at, a, b) if a != b else None
    return b if gate == a else a


def attention_roles(a: str, b: str, signal: str | None) -> tuple[str, str]:
    """What two tensors that are multiplied as matrices are in attention: weights in [0, 1] go with values."""
    if signal is None:
        return ("query", "key")
    return ("weights", "value") if signal == b else ("value", "weights")


def _own_part(at: Situation, a: str, c: str) -> tuple[str, str] | None:
    """Of x times a function of x: x, and what the function is."""
    for x, factor in ((a, c), (c, a)):
        what = own_function(at, x, factor)
        if what is not None:
            return x, what
    return None


def _gated_roles(at: Situation, a: str, c: str) -> tuple[str, str]:
    """Which factor of a gated layer comes out of an activation, the gate, and which is gated."""
    first, second = _is_activated(at, a), _is_activated(at, c)
    if first == second:
        return ("", "")
    return ("gate", "up") if first else ("up", "gate")


def _is_activated(at: Situation, tensor: str) -> bool:
    node = at.graph.producer.get(tensor)
    if node is None:
        return False
    entry = find(node)
    if entry is not None and entry.kind == "activation":
        return True
    return node.op == "Mul" and not node.domain and _own_part(at, *node.inputs) is not None


@register(
    "Mul",
    "product",
    "a constant factor scales; a gate receives nothing; otherwise halves",
    "the other factor",
    data=(0, 1),
)
def mul(at: Situation) -> Product | Scaling:
    a, c = at.node.inputs
    y = at.y
    if not (at.is_active(0) and at.is_active(1)):
        x, factor = (a, c) if at.is_active(0) else (c, a)
        return Scaling(x, y, lambda b, m: b.mul(m, factor))
    own = _own_part(at, a, c)
    signal = signal_of(at, a, c)

    def beside(b: Builder, g: str, factor: str, other: str) -> str:
        return b.sum_to(b.mul(g, other), y, factor)

    def partial(b: Builder, g: str, factor: str) -> str:
        return beside(b, g, factor, c if factor == a else a)

    if own is not None:
        x, what = own
        return Product(
            a,
            c,
            y,
            partial,
            x,
            elementwise=True,
            quotient=True,
            other="function of the signal",
            written_out=activation_written_out(at, x, c if x == a else a),
            note=what,
        )
    note = "neither factor is a gate"
    if signal:
        why = "is bounded, hence a gate" if gate_of(at.facts, a, c) else "belongs to the scan over a state"
        note = f"{c if signal == a else a} {why}"
    return Product(a, c, y, partial, signal, elementwise=True, roles=_gated_roles(at, a, c), beside=beside, note=note)


@register("Div", "product", "all to the numerator; a constant divisor scales", "1/b and -a/b^2", data=(0, 1))
def div(at: Situation) -> Product | Scaling | Elementwise:
    a, d = at.node.inputs
    y = at.y
    if at.is_active(0) and not at.is_active(1):
        return Scaling(a, y, lambda b, m: b.div(m, d))

    def partial(b: Builder, g: str, factor: str) -> str:
        whole = b.bounded(b.div(g, d))
        return b.sum_to(whole if factor == a else b.op("Neg", b.bounded(b.mul(whole, y))), y, factor)

    if not at.is_active(0):
        return Elementwise(d, y, lambda b, g: partial(b, g, d), note="a function of its divisor")
    return Product(
        a, d, y, partial, a, elementwise=True, quotient=True, other="divisor", note="the divisor only scales"
    )


@register("Neg", "movement", "exact: the sign is the relevance's own", "-1")
def neg(at: Situation) -> Scaling:
    return Scaling(at.node.inputs[0], at.y, lambda b, m: b.op("Neg", m), note="sign changed")
