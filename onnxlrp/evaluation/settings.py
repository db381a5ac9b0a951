"""What the settings of metrics may be. A name means the same in every metric of this package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxlrp.errors import UsageError


@dataclass(frozen=True)
class Allowed:
    """Numbers from `least` to `most`, whole ones only where `whole`."""

    least: float
    most: float = math.inf
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.least <= value <= self.most and (not self.whole or value == int(value))

    def __str__(self) -> str:
        if self == SWITCH:
            return "0 or 1"
        kind = "a whole number" if self.whole else "a number"
        bounds = [
            f"{name} {bound:g}"
            for name, bound in (("at least", self.least), ("at most", self.most))
            if math.isfinite(bound)
        ]
        return f"{kind} of {' and '.join(bounds)}" if bounds else kind


SWITCH = Allowed(0, 1, whole=True)
COUNT = Allowed(1, whole=True)
SHARE = Allowed(0, 1)
ANY = Allowed(-math.inf)

ALLOWED: Mapping[str, Allowed] = {
    "absolute": SWITCH,
    "likely": SWITCH,
    "multiply": SWITCH,
    "noise": SWITCH,
    "normalise": SWITCH,
    "probability": SWITCH,
    "relative": SWITCH,
    "bins": COUNT,
    "regions": COUNT,
    "runs": COUNT,
    "size": COUNT,
    "steps": COUNT,
    "k": Allowed(0, whole=True),
    "seed": Allowed(0, whole=True),
    "share": SHARE,
    "threshold": SHARE,
    "blur": Allowed(0),
    "radius": Allowed(0),
}


def check(metric: str, settings: Mapping[str, Any]) -> None:
    """UsageError for a setting of the metric that is not allowed."""
    for name, value in settings.items():
        allowed = ALLOWED.get(name, ANY)
        if value not in allowed:
            raise UsageError(f"the setting {metric}.{name} must be {allowed}, not {value!r}")
