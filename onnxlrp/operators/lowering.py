"""Composite operators taken apart: which operators have a form in simpler ones, and what it is.

A lowering makes the nodes that compute a node's outputs from its inputs. They are read in its place when relevance is
planned, so that each of them gets its own rule; the model keeps its node. An operator may have an ordinary entry and
be lowered only where that entry does not reach, say where a parameter depends on the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.registry import Situation, register

#: (situation, builder) -> a tensor for each output of the node, in order, "" for one that is not made; None where the
#: node stays whole. The inputs that are not constant are the active ones.
Lower = Callable[[Situation, Builder], Sequence[str] | Refusal | None]

COMPOSITE = "composite"
_LOWERINGS: dict[tuple[str, str], Lower] = {}
_WHATEVER: list[Lower] = []


def lowers(ops: str, *, domain: str = "", treatment: str = "") -> Callable[[Lower], Lower]:
    """Registers how one or several operators (names separated by blanks) are taken apart.

    Args:
        treatment: for operators that have no other entry: what happens to relevance, in words.
    """

    def add(lower: Lower) -> Lower:
        for op in ops.split():
            before = _LOWERINGS.get((domain, op))
            _LOWERINGS[domain, op] = lower if before is None else _either(before, lower)
        if treatment:
            register(ops, COMPOSITE, treatment, "that of its parts", data=None, domain=domain)(_refused_by(lower))
        return lower

    return add


def remove(domain: str, op: str) -> None:
    """Forgets how an operator is taken apart, if it is."""
    _LOWERINGS.pop((domain, op), None)


def lowers_whatever(lower: Lower) -> Lower:
    """Registers a way of taking nodes apart that goes by their tensors, whatever the operator; it is asked first."""
    _WHATEVER.append(lower)
    return lower


def _either(first: Lower, second: Lower) -> Lower:
    """The first of two forms that applies: an operator may be taken apart for several reasons."""

    def lower(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
        found = first(at, b)
        return second(at, b) if found is None else found

    return lower


def _refused_by(lower: Lower) -> Callable[[Situation], Refusal]:
    """What is said of a node that is still whole when rules are given."""

    def describe(at: Situation) -> Refusal:
        found = lower(at, Builder(at.graph))
        return found if isinstance(found, Refusal) else Refusal("it cannot be taken apart as it stands")

    return describe


def lower(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """The node taken apart, or None where it stays whole."""
    own = _LOWERINGS.get((at.node.domain, at.node.op))
    found: Sequence[str] | Refusal | None
    for way in (*_WHATEVER, *((own,) if own else ())):
        found = way(at, b)
        if found is not None:
            return found
    return None
