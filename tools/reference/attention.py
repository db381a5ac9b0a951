"""Attention with and without a softmax, and the convolution in front of it, for `onnx.reference` in float64.

What comes with onnx computes parts of them in float32 whatever the data, which finite differences do not bear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_attention

Array = np.ndarray


def _heads(x: Array, heads: int) -> Array:
    """[batch, length, heads * size] as [length, batch, heads, size]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 0, 2, 3)


class LinearAttention(OpRun):
    """S = exp(g) S + k (beta (v - exp(g) S' k))', o = scale S' q, step by step."""

    def _run(
        self,
        query: Array,
        key: Array,
        value: Array,
        past_state: Array | None = None,
        decay: Array | None = None,
        beta: Array | None = None,
        **a: Any,
    ) -> tuple[Array, Array]:
        n = a["kv_num_heads"]
        q, k, v = _heads(query, a["q_num_heads"]), _heads(key, n), _heads(value, n)
        shared = a["q_num_heads"] // n
        size = k.shape[-1]
        scale = a["scale"] or 1 / np.sqrt(size)
        state = np.zeros((query.shape[0], n, size, v.shape[-1]), query.dtype) if past_state is None else past_state
        outputs = []
        for t in range(query.shape[1]):
            written = v[t]
            if decay is not None:
                state = state * np.exp(_heads(decay, n)[t])[..., None]
            if beta is not None:
                rate = beta[:, t, :, None]
                written = rate * (written - np.einsum("bhij,bhi->bhj", state, k[t]))
            state = state + k[t][..., None] * written[..., None, :]
            outputs.append(scale * np.einsum("bhij,bhi->bhj", np.repeat(state, shared, axis=1), q[t]))
        output = np.stack(outputs, axis=1).reshape(*query.shape[:2], -1)
        return output.astype(query.dtype), state.astype((query if past_state is None else past_state).dtype)


class CausalConvWithState(OpRun):
    """One kernel per channel over what was before, and the end of the data for the next call."""

    def _run(
        self, x: Array, weight: Array, bias: Array | None = None, past_state: Array | None = None, **a: Any
    ) -> tuple[Array, Array]:
        size = weight.shape[2]
        before = np.zeros((*x.shape[:2], size - 1), x.dtype) if past_state is None else past_state
        whole = np.concatenate([before, x], axis=2)
        y = sum(weight[:, 0, i, None] * whole[:, :, i : i + x.shape[2]] for i in range(size))
        y = y if bias is None else y + bias[:, None]
        if a["activation"] in ("silu", "swish"):
            y = y / (1 + np.exp(-y))
        return np.asarray(y, x.dtype), whole[:, :, whole.shape[2] - size + 1 :]


class Attention(op_attention.Attention_24):  # type: ignore[misc]
    """The softmax in the precision of the data."""

    def _run(self, *operands: Array | None, **a: Any) -> Any:
        return super()._run(*operands, **{**a, "softmax_precision": None})


ATTENTION: tuple[type[OpRun], ...] = (LinearAttention, CausalConvWithState, Attention)
