"""onnxlrp: layer-wise relevance propagation inside ONNX models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxlrp.errors import (
    ConversionError,
    ModelReadError,
    OnnxLrpError,
    UsageError,
    VerificationError,
)
from onnxlrp.version import VERSION

if TYPE_CHECKING:
    from onnxlrp.api import ConvertResult, convert, convert_file, plan
    from onnxlrp.operators.extension import register_operator
    from onnxlrp.rules.own import ActivationStep, LinearStep, ProductStep, register_rule
    from onnxlrp.rules.spec import Parameter
    from onnxlrp.run.explainer import Explainer, Explanation
    from onnxlrp.verification import verify

__all__ = [
    "ActivationStep",
    "ConversionError",
    "ConvertResult",
    "Explainer",
    "Explanation",
    "LinearStep",
    "ModelReadError",
    "OnnxLrpError",
    "Parameter",
    "ProductStep",
    "UsageError",
    "VerificationError",
    "__version__",
    "convert",
    "convert_file",
    "plan",
    "register_operator",
    "register_rule",
    "verify",
]

__version__ = VERSION

# Loaded on first use: `onnxlrp rules` needs no onnx, and converting needs no onnxruntime.
_HOMES = {
    "convert": "onnxlrp.api",
    "convert_file": "onnxlrp.api",
    "plan": "onnxlrp.api",
    "ConvertResult": "onnxlrp.api",
    "Explainer": "onnxlrp.run.explainer",
    "Explanation": "onnxlrp.run.explainer",
    "verify": "onnxlrp.verification",
    "register_rule": "onnxlrp.rules.own",
    "register_operator": "onnxlrp.operators.extension",
    "LinearStep": "onnxlrp.rules.own",
    "ActivationStep": "onnxlrp.rules.own",
    "ProductStep": "onnxlrp.rules.own",
    "Parameter": "onnxlrp.rules.spec",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxlrp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
