"""What a plan is made of: steps, each with the rule that treats it, in the order of the relevance pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxlrp.graph.view import Node
from onnxlrp.operators.behaviour import Behaviour
from onnxlrp.planning.control import Control
from onnxlrp.rules.dispatch import receivers


@dataclass(frozen=True)
class Detour:
    """The way back from a term of a sum to another one that it was made from.

    Attributes:
        steps: on the way, the nearest first, with their derivatives for rules.
        tensors: that they lead to.
    """

    source: str
    end: str
    steps: tuple[Step, ...]
    tensors: frozenset[str]


@dataclass(frozen=True)
class Step:
    """One step of the relevance pass: what it is, and which rule treats it."""

    nodes: tuple[Node, ...]
    behaviour: Behaviour | Control
    rule: str
    parameters: Mapping[str, Any]
    reason: str
    stopped: tuple[str, ...] = ()
    operator: str = ""
    detours: tuple[Detour, ...] = ()

    @property
    def receivers(self) -> tuple[str, ...]:
        """The tensors that it sends relevance to."""
        if isinstance(self.behaviour, Control):
            return self.behaviour.data
        return receivers(self.rule, self.behaviour, self.parameters)

    @property
    def inner(self) -> tuple[Step, ...]:
        """The steps inside its bodies."""
        bodies = self.behaviour.bodies if isinstance(self.behaviour, Control) else ()
        return tuple(step for body in bodies for step in body.program.steps)

    @property
    def name(self) -> str:
        """The node after which emitted nodes are named."""
        return self.nodes[-1].name


@dataclass(frozen=True)
class Program:
    """Steps from one target back to the explained inputs."""

    steps: tuple[Step, ...]
