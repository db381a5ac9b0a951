"""Attention taken apart: scores, masks, softmax, values, in all forms of the operator (opsets 23 to 25).

softmax(scale Q K' + mask) V over heads. Masked scores are set to a number far below all others rather than to minus
infinity, whose products with zero are not numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Dim
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation
from onnxlrp.operators.softmax import only_with_keys

_INT64 = int(TensorProto.INT64)


@dataclass(frozen=True)
class _Heads:
    """Numbers of heads and the size of one, from attributes or shapes."""

    queries: int
    keys: int
    size: int


def _heads(at: Situation) -> _Heads | Refusal:
    node = at.node
    q, k = (at.graph.shape(node.inputs[i]) for i in (0, 1))
    unclear = Refusal("its number of heads or their size is not known", "export with static heads")
    if q is None or k is None:
        return unclear
    given: tuple[Dim, Dim, Dim]
    if len(q) == 3:
        heads = node.attribute("q_num_heads")
        width = q[2]
        given = (heads, node.attribute("kv_num_heads"), width // heads if isinstance(width, int) and heads else None)
    else:
        given = (q[1], k[1], q[3] if isinstance(q[3], int) else k[3])
    queries, keys, size = given
    if queries is not None and queries == keys and not isinstance(queries, int):
        queries = keys = 1  # the same, whatever it is
    if not (isinstance(queries, int) and isinstance(keys, int)):
        return unclear
    if not isinstance(size, int):
        size = 0
        if node.attribute("scale") is None:
            return unclear
    return _Heads(queries, keys, size)


@dataclass(frozen=True)
class _Attention:
    """One node with its operands as [batch, heads, length, size]."""

    at: Situation
    b: Builder
    heads: _Heads
    q: str
    k: str
    v: str

    def length(self, tensor: str, axis: int = 2) -> str:
        """A dimension as a 1-d tensor."""
        end = axis + 1 if axis != -1 else None
        return self.b.op("Shape", tensor, start=axis, end=end)

    def scores(self) -> str:
        """scale Q K'."""
        b, node = self.b, self.at.node
        turned = b.op("Transpose", self.repeated(self.k), perm=[0, 1, 3, 2])
        scale = node.attribute("scale")
        factor = float(scale) if scale is not None else 1.0 / math.sqrt(self.heads.size)
        return b.mul(b.op("MatMul", self.q, turned), _number(b, factor, self.q))

    def repeated(self, t: str) -> str:
        """Keys or values, each as often as there are queries that share it."""
        b, times = self.b, self.heads.queries // self.heads.keys
        if times == 1:
            return t
        copies = b.op("Expand", b.op("Unsqueeze", t, b.integers([2])), b.integers([1, 1, times, 1, 1]))
        size = b.op("Shape", t, start=2)
        return b.op("Reshape", copies, b.op("Concat", b.integers([0, self.heads.queries]), size, axis=0))

    def capped(self, scores: str) -> str:
        """cap tanh(scores / cap), or the scores as they are."""
        b, cap = self.b, float(self.at.node.attribute("softcap") or 0.0)
        return b.scale(b.op("Tanh", b.scale(scores, 1.0 / cap)), cap) if cap > 0 else scores

    def masked(self, scores: str) -> tuple[str, bool]:
        """The scores with everything that says which keys count, and whether a query may be left without a key."""
        b, at = self.b, self.at
        mask, conditions = at.node.input(3), self._positions()
        low = b.lowest(scores)
        if mask:
            mask = self._filled(mask)
            if at.graph.dtype(at.node.input(3)) == TensorProto.BOOL:
                conditions.append(mask)
            else:
                scores = b.add(scores, b.at_least(mask, low))
        if conditions:
            allowed = conditions[0]
            for condition in conditions[1:]:
                allowed = b.op("And", allowed, condition)
            scores = b.where(allowed, scores, low)
        # Causal attention from the first position on leaves each query its own key.
        return scores, bool(mask or at.node.input(6) or self._is_windowed())

    def _is_windowed(self) -> bool:
        node = self.at.node
        return any(node.attribute(f"{side}_window_size", -1) >= 0 for side in ("left", "right"))

    def _positions(self) -> list[str]:
        """Conditions on the positions of query and key: causal, windows, cached keys that are none."""
        b, node = self.b, self.at.node
        causal = bool(node.attribute("is_causal", 0))
        left, right = node.attribute("left_window_size", -1), node.attribute("right_window_size", -1)
        valid = node.input(6)
        found: list[str] = []
        if not (causal or valid or self._is_windowed()):
            return found
        zero, one = b.constant_int(0), b.constant_int(1)
        j = b.op("Range", zero, b.op("Squeeze", self.length(self.k)), one)
        if valid:
            valid = b.op("Reshape", b.op("Cast", valid, to=_INT64), b.integers([-1, 1, 1, 1]))
            found.append(b.op("Less", j, valid))
        if causal or self._is_windowed():
            i = b.op("Range", zero, b.op("Squeeze", self.length(self.q)), one)
            position = b.op("Unsqueeze", i, b.integers([1]))
            if node.input(4):
                position = b.add(position, self.length(node.input(4)))
            elif valid:
                position = b.add(position, b.sub(valid, self.length(self.q)))
            if causal:
                found.append(b.op("LessOrEqual", j, position))
            if left >= 0:
                found.append(b.op("GreaterOrEqual", j, b.sub(position, b.integers([left]))))
            if right >= 0:
                found.append(b.op("LessOrEqual", j, b.add(position, b.integers([right]))))
        return found

    def _filled(self, mask: str) -> str:
        """A mask that is shorter than the keys goes on with what lets nothing through."""
        b, graph = self.b, self.at.graph
        shape, keys = graph.shape(mask), graph.shape(self.at.node.inputs[1])
        known = not self.at.node.input(4) and shape is not None and keys is not None and len(keys) > 2
        if known and shape and keys and shape[-1] is not None and shape[-1] == keys[-2 if len(keys) == 4 else 1]:
            return mask
        rank = len(shape or ()) or 2
        missing = b.sub(self.length(self.k), self.length(mask, -1))
        pads = b.op("Concat", b.integers([0] * (2 * rank - 1)), missing, axis=0)
        if graph.dtype(mask) != TensorProto.BOOL:
            return b.op("Pad", mask, pads, b.lowest(mask))
        as_number = b.op("Cast", mask, to=int(TensorProto.FLOAT))
        return b.op("Cast", b.op("Pad", as_number, pads), to=int(TensorProto.BOOL))

    def probabilities(self, scores: str, may_be_empty: bool) -> str:
        """The softmax over keys, zero for a query without any."""
        b, precision = self.b, self.at.node.attribute("softmax_precision")
        kind = b.dtype(self.q)
        wide = b.op("Cast", scores, to=precision) if precision and precision != kind else scores
        found = b.op("Softmax", wide, axis=-1)
        found = b.op("Cast", found, to=kind) if wide != scores else found
        return only_with_keys(b, found, scores) if may_be_empty else found


def _number(b: Builder, value: float, like: str) -> str:
    """A scalar in `like`'s type; for a narrow type written in float32, so that nothing is lost where it is widened."""
    kind = b.dtype(like)
    if kind not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return b.scalar(value, like)
    return b.op("Cast", b.constant(np.asarray(value, np.float32)), to=kind)


def _by_head(b: Builder, t: str, heads: int, *, flat: bool) -> str:
    """[batch, length, heads * size] as [batch, heads, length, size]; as it is where it is not `flat`."""
    if not flat:
        return t
    return b.op("Transpose", b.op("Reshape", t, b.integers([0, 0, heads, -1])), perm=[0, 2, 1, 3])


@lowers("Attention", treatment="taken apart: products of queries and keys, softmax, and products with the values")
def attention(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """Y, the keys and values with those of before, and the scores in the wanted state."""
    node = at.node
    heads = _heads(at)
    if isinstance(heads, Refusal):
        return heads
    flat = at.graph.rank(node.inputs[0]) == 3
    numbers = (heads.queries, heads.keys, heads.keys)
    q, k, v = (_by_head(b, t, n, flat=flat) for t, n in zip(node.inputs[:3], numbers, strict=True))
    if node.input(4):
        k, v = (b.op("Concat", past, t, axis=2) for past, t in ((node.input(4), k), (node.input(5), v)))
    parts = _Attention(at, b, heads, q, k, v)
    raw = parts.scores()
    capped = parts.capped(raw)
    masked, may_be_empty = parts.masked(capped)
    probabilities = parts.probabilities(masked, may_be_empty)
    y = b.op("MatMul", probabilities, parts.repeated(v))
    if flat:
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.integers([0, 0, -1]))
    states = (raw, capped, masked, probabilities)
    made = (y, k, v, states[node.attribute("qk_matmul_output_mode", 0)])
    return made[: len(node.outputs)]
