"""The plan: which node is treated by which rule, and why. A value that can be printed, tested and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PlanStep:
    """One step of the relevance pass: one or several nodes that are treated together.

    `macs` counts the multiply-adds of the step's forward pass for one sample with unknown sizes taken as 1;
    `relevance_macs` those that its rule adds. Both are None where no shape is known. `inner` are the steps inside the
    bodies of a control flow node; their multiply-adds are not counted. `block` is the part of a transformer that the
    step belongs to, such as `attention 3`, where one was recognised.
    """

    nodes: tuple[str, ...]
    operator: str
    kind: str
    rule: str
    parameters: Mapping[str, Any]
    reason: str
    stopped: tuple[str, ...] = ()
    macs: int | None = None
    relevance_macs: int | None = None
    inner: tuple[PlanStep, ...] = ()
    block: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that a conversion is going to do, from the target back to the explained inputs."""

    rule_table: str
    target: str
    explained_inputs: tuple[str, ...]
    explained_outputs: tuple[str, ...]
    steps: tuple[PlanStep, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    forward_macs: int | None = None
    relevance_macs: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    blocks: Mapping[str, int] = field(default_factory=dict)
    """How many parts of each name were recognised among the steps: attention, LayerNorm, GELU, ..."""

    @property
    def cost(self) -> float | None:
        """Multiply-adds of the converted model as a multiple of the original's, or None where they are unknown."""
        if not self.forward_macs or self.relevance_macs is None:
            return None
        return 1.0 + self.relevance_macs / self.forward_macs

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return {**asdict(self), "cost": self.cost}
