"""What came out of one export of one network, as a value that can be stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """What was measured on one export of one network. Differences are relative; None: not measured.

    Attributes:
        stage: what failed: "build", "export", "convert" or "verify"; empty where nothing did.
        apart: distance of the maps of both exporters, on the second of them.
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

    @property
    def passed(self) -> bool:
        return not self.reason

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
