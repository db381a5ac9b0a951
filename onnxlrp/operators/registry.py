"""The table of operators. Each family module adds its own entries; nothing else knows operator names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.behaviour import Behaviour, Refusal
from onnxlrp.understand.facts import Facts


@dataclass(frozen=True)
class Situation:
    """A node in its graph, and which of its inputs carry relevance."""

    node: Node
    graph: Graph
    facts: Facts
    active: frozenset[str]

    @property
    def y(self) -> str:
        return self.node.outputs[0]

    def is_active(self, position: int) -> bool:
        return self.node.input(position) in self.active

    def require_constant(self, *positions: int) -> Refusal | None:
        """A refusal when one of these inputs depends on the explained input."""
        for position in positions:
            if self.is_active(position):
                name = self.node.input(position)
                return Refusal(
                    f"its input {position} ({name}) depends on the explained input",
                    "explain another input or start from an output that does not pass through this node",
                )
        return None


#: Domain of what stands for operators that a rule table declares.
DECLARED = "onnxlrp.declared"

Describe = Callable[[Situation], Behaviour | Refusal]


@dataclass(frozen=True)
class OperatorEntry:
    """One line of `onnxlrp ops`.

    Attributes:
        kind: the kind that rule tables match; "stop" where relevance ends.
        treatment: what happens to relevance, in words.
        derivative: the derivative that `gradient-x-input` uses, in words.
        data: positions of the inputs through which relevance can flow; None for all.
        codes: positions of integer outputs that stand for real numbers; where there are any, relevance comes from them
            alone. Otherwise it comes from float outputs.
    """

    op: str
    domain: str
    kind: str
    treatment: str
    derivative: str
    describe: Describe
    data: tuple[int, ...] | None = None
    codes: tuple[int, ...] = ()

    def said_of(self, node: Node) -> str:
        """What happens to relevance at one node of the operator, in words."""
        return f"relevance ends: {node.attribute('reason')}" if self.domain == DECLARED else self.treatment


_ENTRIES: dict[tuple[str, str], OperatorEntry] = {}


def register(
    ops: str,
    kind: str,
    treatment: str,
    derivative: str,
    *,
    data: tuple[int, ...] | None = (0,),
    domain: str = "",
    codes: tuple[int, ...] = (),
) -> Callable[[Describe], Describe]:
    """Registers a describing function for one or several operators (names separated by blanks)."""

    def add(describe: Describe) -> Describe:
        for op in ops.split():
            if (domain, op) in _ENTRIES:
                raise ValueError(f"operator {op} is registered twice")
            _ENTRIES[domain, op] = OperatorEntry(op, domain, kind, treatment, derivative, describe, data, codes)
        return describe

    return add


def known(domain: str, op: str) -> bool:
    """Whether an operator has an entry."""
    return (domain, op) in _ENTRIES


def remove(domain: str, op: str) -> None:
    """Forgets an operator that was registered, if it was."""
    _ENTRIES.pop((domain, op), None)


def find(node: Node) -> OperatorEntry | None:
    """The entry of a node's operator."""
    return _ENTRIES.get((node.domain, node.op))


def entries() -> tuple[OperatorEntry, ...]:
    """All entries of operators that a model can have, by domain and name."""
    return tuple(_ENTRIES[key] for key in sorted(_ENTRIES) if key[0] != DECLARED)
