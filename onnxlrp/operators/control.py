"""If, Loop and Scan: their place in the table of operators. How relevance runs through them is planned in
`planning/control.py` and emitted in `emit/control.py`.
"""

from __future__ import annotations

from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.registry import Describe, Situation, register


def _planned_elsewhere(at: Situation) -> Refusal:
    return Refusal("its body is not read")


def _control(op: str, treatment: str) -> None:
    describe: Describe = _planned_elsewhere
    register(op, "control", treatment, "that of its body", data=None)(describe)


_control("If", "through the branch that ran; each step inside by its own rule")
_control("Loop", "backwards through the iterations; each step inside by its own rule")
_control("Scan", "backwards through the iterations; each step inside by its own rule")
