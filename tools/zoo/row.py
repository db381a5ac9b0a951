"""What came out of one export of one network, as a value that can be stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from zoo.network import Network

#: Where a row can end. What is not done within the limits of this machine is neither right nor wrong.
STAGES = ("build", "export", "run", "convert", "verify", "limits")
#: What the libraries say when there is no memory left.
_NO_MEMORY = ("MemoryError", "bad_alloc", "allocate memory", "out of memory")


@dataclass(frozen=True)
class Row:
    """What was measured on one export of one network. Differences are relative; None: not measured.

    Attributes:
        seconds: what the conversion took.
        widest: node, operator and rule with the widest gap of the ledger.
        stage: what failed: one of `STAGES` ("run": onnxruntime cannot run the exported model itself); empty where
            nothing did.
        apart: distance of the maps of both exporters, all samples together, on the second of them.
        apart_median: the same for the median of the samples.
        shaken: how far the map of one export moves where each number of the image is rounded the other way; measured
            where the exports are further apart than rounding mostly takes them.
        parameters: how many numbers the network has learned (with random weights: would have).
    """

    name: str
    exporter: str
    nodes: int = 0
    seconds: float = 0.0
    forward: float | None = None
    ledger: float | None = None
    widest: str = ""
    batch: float | None = None
    reason: str = ""
    stage: str = ""
    group: str = ""
    family: str = ""
    part: str = ""
    size: int = 0
    rules: str = ""
    apart: float | None = None
    parameters: int = 0
    apart_median: float | None = None
    shaken: float | None = None

    @classmethod
    def start(cls, network: Network, exporter: str, rules: str) -> Row:
        """What is known before anything is measured."""
        n = network
        return cls(n.name, exporter, group=n.group, family=n.family, part=n.part, size=n.size, rules=rules)

    def failed(self, stage: str, reason: str) -> Row:
        """The row that ended at a stage; where memory ran out, that is a limit of the machine."""
        if any(sign in reason for sign in _NO_MEMORY):
            return replace(self, stage="limits", reason=f"out of memory at {stage}: {reason}")
        return replace(self, stage=stage, reason=reason)

    @property
    def passed(self) -> bool:
        return not self.reason

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
