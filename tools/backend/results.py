"""What came out of a case, as values that can be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["right", "wrong", "refused", "nothing"]


@dataclass(frozen=True)
class Result:
    """The result of one case.

    Attributes:
        status: "right"; "wrong"; "refused", the conversion says why; "nothing", no relevance can flow because the
            outputs do not change with the float inputs (checked by differences).
        reason: why it is not right.
        runtime: what ran the emitted model besides the float64 reference, and why it was not onnxruntime.
        left_out: float inputs that the output depends on and that the conversion does not explain, and the reverse:
            outputs that could not be explained with the others.
        checks: how often each kind of check was made.
        worst: per check the largest relative error.
    """

    name: str
    operator: str
    kind: str
    expanded: bool
    status: Status
    reason: str = ""
    runtime: str = ""
    left_out: tuple[str, ...] = ()
    checks: Mapping[str, int] = field(default_factory=dict)
    worst: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_json(stored: Mapping[str, Any]) -> Result:
        return Result(**{**stored, "left_out": tuple(stored["left_out"])})
