"""Running an emitted model: in float64 by `onnx.reference`, in its own precision by onnxruntime.

The float64 run checks the formulas, rounding out of the way; the onnxruntime run checks the product. The code is
shared with tools/coverage.py.
"""

from __future__ import annotations

from reference.evaluate import (
    cosine,
    reference,
    relative_l2,
    run_onnxruntime,
    run_reference,
    to_float64,
    to_type,
)

__all__ = ["cosine", "reference", "relative_l2", "run_onnxruntime", "run_reference", "to_float64", "to_type"]
