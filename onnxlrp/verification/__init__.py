"""`verify`: the promises, measured on one model and one input."""

from onnxlrp.verification.report import Check, Report, WorstNode
from onnxlrp.verification.verify import verify

__all__ = ["Check", "Report", "WorstNode", "verify"]
