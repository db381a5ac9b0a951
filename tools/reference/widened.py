"""Operators of `onnx.reference` that compute in float32 whatever the data: the same code in float64."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_causal_conv_with_state, op_linear_attention


class _Wide:
    """numpy, but for float32, which is float64."""

    float32 = np.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _widened(op: type[OpRun], module: Any) -> type[OpRun]:
    run = op._run
    copy = FunctionType(run.__code__, {**vars(module), "np": _Wide()}, run.__name__, run.__defaults__, run.__closure__)
    copy.__kwdefaults__ = run.__kwdefaults__
    return type(op.__name__, (op,), {"_run": copy})


WIDENED: tuple[type[OpRun], ...] = (
    _widened(op_linear_attention.LinearAttention, op_linear_attention),
    _widened(op_causal_conv_with_state.CausalConvWithState, op_causal_conv_with_state),
)
