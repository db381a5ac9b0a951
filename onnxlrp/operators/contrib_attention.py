"""onnxruntime's own attention operators, read as its projections, its masks, and Attention of the standard.

Inputs are named as in onnxruntime's documentation of its contrib operators (domain com.microsoft). [batch, length,
heads * size] becomes [batch, heads, length, size] on the way in and back on the way out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation
from onnxlrp.understand.codes import MICROSOFT

_TREATMENT = "taken apart: projections, masks, and Attention of the standard"
_ADVICE = "turn off that fusion in onnxruntime's optimiser"
_INT64, _BOOL = int(TensorProto.INT64), int(TensorProto.BOOL)


@dataclass(frozen=True)
class _Operands:
    """Queries, keys and values as [batch, heads, length, size], and the size of a head of queries."""

    q: str
    k: str
    v: str
    size: int


# -- shapes ------------------------------------------------------------------------------------------------------


def _by_head(b: Builder, t: str, heads: int) -> str:
    return b.op("Transpose", b.op("Reshape", t, b.integers([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _flat(b: Builder, t: str) -> str:
    return b.op("Reshape", b.op("Transpose", t, perm=[0, 2, 1, 3]), b.integers([0, 0, -1]))


def _packed(b: Builder, t: str, index: int) -> str:
    """One of the tensors that are packed in axis 3 of [batch, length, heads, count, size]."""
    return b.op("Transpose", b.op("Gather", t, b.constant_int(index), axis=3), perm=[0, 2, 1, 3])


def _split(b: Builder, t: str, sizes: Sequence[int]) -> tuple[str, ...]:
    return b.ops("Split", t, b.integers(sizes), outputs=len(sizes), axis=-1)


def _length(b: Builder, t: str, axis: int) -> str:
    """A dimension as a 0-d tensor."""
    return b.op("Gather", b.op("Shape", t), b.constant_int(axis))


def _counted(b: Builder, number: str) -> str:
    """0, 1, ... number - 1."""
    return b.op("Range", b.constant_int(0), number, b.constant_int(1))


def _last(at: Situation, tensor: str) -> int | None:
    """The size of the last axis, where it is known."""
    size = (at.graph.shape(tensor) or (None,))[-1]
    return size if isinstance(size, int) else None


# -- the computation itself --------------------------------------------------------------------------------------


def _attend(
    at: Situation, b: Builder, given: _Operands, mask: str, past: tuple[str, str] = ("", ""), causal: bool = False
) -> tuple[str, str, str]:
    """(output [batch, length, heads * size], the keys and values with those of before)."""
    y, k, v = b.ops(
        "Attention",
        *(given.q, given.k, given.v, mask, *past),
        outputs=3,
        # 0 stands for the usual scale.
        scale=float(at.node.attribute("scale", 0.0)) or 1.0 / math.sqrt(given.size),
        softcap=at.node.attribute("softcap", 0.0),
        is_causal=int(causal),
    )
    return _flat(b, y), k, v


def _added(at: Situation, b: Builder, mask: str, bias: str, keys: str, like: str) -> str | Refusal:
    """What is added to the scores, [batch, heads, query, key] or what broadcasts to it; "" for nothing.

    Args:
        mask: 1 for a key that counts, [batch, key] or [batch, query, key]; or where keys end, [batch], and begin,
            [2 batch].
        bias: is added as it is.
        keys: how many keys there are, 0-d.
    """
    if not mask:
        return bias
    rank = at.graph.rank(mask)
    if rank == 1:
        batch = b.op("Gather", b.op("Shape", like), b.integers([0]))
        starts = b.op("Concat", b.cast(mask, _INT64), b.op("Expand", b.constant_int(0), batch), axis=0)
        end, start = (b.op("Slice", starts, *_ends(b, batch, part), b.integers([0])) for part in (0, 1))
        key = _counted(b, keys)
        rows = b.integers([-1, 1, 1, 1])
        counts = b.op(
            "And",
            b.op("Less", key, b.op("Reshape", end, rows)),
            b.op("GreaterOrEqual", key, b.op("Reshape", start, rows)),
        )
    elif rank in (2, 3):
        counts = b.op("Unsqueeze", b.op("Cast", mask, to=_BOOL), b.integers([1, 2] if rank == 2 else [1]))
    else:
        return Refusal("its mask has a form that is not known", _ADVICE)
    filled = b.scalar(at.node.attribute("mask_filter_value", -10000.0), like)
    added = b.where(counts, b.scalar(0.0, like), filled)
    return b.add(added, bias) if bias else added


def _ends(b: Builder, batch: str, part: int) -> tuple[str, str]:
    """From where to where the first or second part of `batch` numbers lies."""
    double = b.add(batch, batch)
    return (b.integers([0]), batch) if part == 0 else (batch, double)


# -- operators ---------------------------------------------------------------------------------------------------


@lowers("Attention", domain=MICROSOFT, treatment=_TREATMENT)
def attention(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    if node.attribute("past_present_share_buffer", 0) or node.attribute("do_rotary", 0):
        return Refusal("it shares buffers with its past, or turns its operands", _ADVICE)
    x, weight, past = node.inputs[0], node.inputs[1], node.input(4)
    heads, sizes = node.attribute("num_heads"), node.attribute("qkv_hidden_sizes")
    width = _last(at, weight)
    if not sizes:
        if width is None:
            return Refusal("the shape of its weight is not known", "export with static shapes")
        sizes = [width // 3] * 3
    projected = b.op("MatMul", x, weight)
    if node.input(2):
        projected = b.add(projected, node.input(2))
    q, k, v = (_by_head(b, t, heads) for t in _split(b, projected, sizes))
    before = ("", "")
    keys = _length(b, x, 1)
    if past:
        before = (b.op("Gather", past, b.constant_int(0)), b.op("Gather", past, b.constant_int(1)))
        keys = b.add(keys, _length(b, past, 3))
    mask = _added(at, b, node.input(3), node.input(5), keys, x)
    if isinstance(mask, Refusal):
        return mask
    given = _Operands(q, k, v, sizes[0] // heads)
    y, k, v = _attend(at, b, given, mask, before, bool(node.attribute("unidirectional", 0)))
    present = b.op("Concat", *(b.op("Unsqueeze", t, b.integers([0])) for t in (k, v)), axis=0)
    return (y, present)[: len(node.outputs)]


@lowers("MultiHeadAttention", domain=MICROSOFT, treatment=_TREATMENT)
def multi_head_attention(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    if node.input(8) or node.input(9):
        return Refusal("it shares buffers with its past", _ADVICE)
    given = _operands(at, b)
    if isinstance(given, Refusal):
        return given
    before = (node.input(6), node.input(7))
    keys = _length(b, given.k, 2)
    if before[0]:
        keys = b.add(keys, _length(b, before[0], 2))
    mask = _added(at, b, node.input(4), node.input(5), keys, node.inputs[0])
    if isinstance(mask, Refusal):
        return mask
    made = _attend(at, b, given, mask, before, bool(node.attribute("unidirectional", 0)))
    return made[: len(node.outputs)]


def _operands(at: Situation, b: Builder) -> _Operands | Refusal:
    """Queries, keys and values of MultiHeadAttention, which may be packed, with their biases."""
    node, heads = at.node, at.node.attribute("num_heads")
    query, key, value, bias = (node.input(i) for i in range(4))
    ranks = [at.graph.rank(t) if t else 0 for t in (query, key)]
    width = _last(at, query)
    if None in ranks or width is None:
        return Refusal("the shape of its queries or keys is not known", "export with static heads")
    if ranks[0] == 5:
        q, k, v = (_packed(b, query, i) for i in range(3))
        return _Operands(q, k, v, width)
    biases = ["", "", ""]
    if bias:
        whole = _last(at, bias)
        if whole is None:
            return Refusal("the shape of its bias is not known", "export with static shapes")
        biases = list(_split(b, bias, [width, width, whole - 2 * width]))
    shifted = [b.add(t, s) if s and t else t for t, s in zip((query, key, value), biases, strict=True)]
    q = _by_head(b, shifted[0], heads)
    if ranks[1] == 5:
        k, v = (_packed(b, key, i) for i in (0, 1))
    elif ranks[1] == 4:
        k, v = key, value
    else:
        k, v = (_by_head(b, t, heads) for t in shifted[1:])
    return _Operands(q, k, v, width // heads)


#: Inputs of GroupQueryAttention that change what is computed and are not read.
_NOT_READ = {11: "a sink in its softmax", 12: "a quantised cache", 14: "norms of its queries", 16: "padded queries"}


@lowers("GroupQueryAttention", domain=MICROSOFT, treatment=_TREATMENT)
def group_query_attention(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """Which keys count is said by their number, `seqlens_k` + 1 for each sample, wherever they lie in a buffer: those
    of before come first, then the new ones. The present keys and values are the model's own.
    """
    node = at.node
    odd = next((what for i, what in _NOT_READ.items() if node.input(i)), None)
    if node.attribute("smooth_softmax", 0) or node.attribute("sliding_window_cache", 0):
        odd = "a softmax or a cache of its own kind"
    if odd:
        return Refusal(f"it has {odd}", _ADVICE)
    given = _grouped_operands(at, b)
    if isinstance(given, Refusal):
        return given
    new = _length(b, given.q, 2)
    total = b.add(b.cast(node.inputs[5], _INT64), b.constant_int(1))
    longest = b.op("Reshape", b.cast(node.inputs[6], _INT64), b.integers([]))
    # At the first step nothing came before, although a sample may be shorter than the longest.
    before = b.op("Where", b.op("Equal", longest, new), b.constant_int(0), b.sub(total, new))
    if node.attribute("do_rotary", 0):
        given = _turned(at, b, given, before)
    rows = b.integers([-1, 1, 1, 1])
    total, before = b.op("Reshape", total, rows), b.op("Reshape", before, rows)
    counts = _which_count(at, b, given, total, before)
    k, v = given.k, given.v
    if node.input(3):
        k, v = (b.op("Concat", past, t, axis=2) for past, t in ((node.input(3), k), (node.input(4), v)))
    mask = counts
    if node.input(10):
        low = b.lowest(node.inputs[0])
        mask = b.where(counts, node.input(10), low)
    y, _, _ = _attend(at, b, _Operands(given.q, k, v, given.size), mask)
    return (y, "", "", "")[: len(node.outputs)]


def _grouped_operands(at: Situation, b: Builder) -> _Operands | Refusal:
    """Queries, keys and values, which may be packed in one tensor."""
    node = at.node
    queries, keys = node.attribute("num_heads"), node.attribute("kv_num_heads")
    query, key, value = (node.input(i) for i in range(3))
    width = _last(at, query)
    if width is None:
        return Refusal("the shape of its queries is not known", "export with static heads")
    if not key:
        size = width // (queries + 2 * keys)
        query, key, value = _split(b, query, [queries * size, keys * size, keys * size])
        width = queries * size
    return _Operands(_by_head(b, query, queries), _by_head(b, key, keys), _by_head(b, value, keys), width // queries)


def _turned(at: Situation, b: Builder, given: _Operands, before: str) -> _Operands:
    """Queries and keys in rotary embedding, by their positions behind what came before."""
    node = at.node
    cos, sin, positions = (node.input(i) for i in (7, 8, 9))
    if not positions:
        steps = _counted(b, _length(b, given.q, 2))
        positions = b.add(b.op("Reshape", before, b.integers([-1, 1])), steps)
    half = _last(at, cos)
    part = 2 * half if half is not None and 2 * half < given.size else 0
    how = {"interleaved": node.attribute("rotary_interleaved", 0), "rotary_embedding_dim": part}
    q, k = (b.op("RotaryEmbedding", t, cos, sin, positions, **how) for t in (given.q, given.k))
    return _Operands(q, k, given.v, given.size)


def _which_count(at: Situation, b: Builder, given: _Operands, total: str, before: str) -> str:
    """Which keys count for which queries, [batch, 1, query, key], past keys first."""
    node = at.node
    causal, window = bool(node.attribute("causal", 1)), node.attribute("local_window_size", -1)
    new = _counted(b, _length(b, given.q, 2))
    position = b.add(before, b.op("Unsqueeze", new, b.integers([1])))
    # Of the axes [batch, 1, query, key] each place has those along which it differs.
    places = [(b.add(before, new), b.op("Less", b.add(before, new), total))]
    if node.input(3):
        past = b.op("Unsqueeze", _counted(b, _length(b, node.input(3), 2)), b.integers([0, 1, 2]))
        places.insert(0, (past, b.op("Less", past, before)))
    found = []
    for place, counts in places:
        # Compared with every query, so that all parts have the same shape.
        ahead = b.sub(position, place)
        limit = b.constant_int(0) if causal else b.op("Neg", total)
        counts = b.op("And", counts, b.op("GreaterOrEqual", ahead, limit))
        if window >= 0:
            counts = b.op("And", counts, b.op("Less", ahead, b.constant_int(window)))
        found.append(counts)
    return found[0] if len(found) == 1 else b.op("Concat", *found, axis=-1)
