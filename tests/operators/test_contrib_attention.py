"""onnxruntime's attention operators: what onnxruntime computes and the derivative, against a formula in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.contrib import data, expect_derivative, one_operator
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient

Array = np.ndarray
RNG = np.random.default_rng(9)
BATCH, LENGTH, HEADS, SIZE = 2, 3, 2, 4
WIDTH = HEADS * SIZE
FILL = -10000.0


def numbers(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def by_head(t: Array, heads: int = HEADS) -> Array:
    return t.reshape(*t.shape[:2], heads, -1).swapaxes(1, 2)


def attend(q: Array, k: Array, v: Array, added: Any = 0.0, *, scale: float | None = None, cap: float = 0.0) -> Array:
    """softmax(scale q k' + added) v of [batch, heads, length, size], as [batch, length, heads * size]."""
    times = q.shape[1] // k.shape[1]
    k, v = (t.repeat(times, axis=1) for t in (k, v))
    scores = q @ k.swapaxes(2, 3) * (1 / np.sqrt(q.shape[3]) if scale is None else scale)
    if cap:
        scores = cap * np.tanh(scores / cap)
    scores = scores + added
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    y = (weights / weights.sum(axis=-1, keepdims=True)) @ v
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)


def unless(counts: Array) -> Array:
    """What masks add to the scores."""
    return np.where(counts, 0.0, FILL)


CAUSAL = unless(np.tri(LENGTH, dtype=bool))
KEYS = np.arange(LENGTH)
PRESENT = np.array([[1, 1, 0], [1, 0, 1]], np.int32)
PAIRS = np.array([[[1, 1, 0], [0, 1, 1], [1, 0, 1]], [[1, 0, 0], [1, 1, 1], [0, 0, 1]]], np.int32)


@dataclass(frozen=True)
class Case:
    """A node that reads x, its constants, and the same in numpy."""

    shape: tuple[int, ...]
    inputs: str
    constants: Mapping[str, Array]
    f: Callable[[Array], Array]
    outputs: str = "y"
    attributes: Mapping[str, Any] = field(default_factory=dict)


# -- Attention: the projections are part of it

WEIGHT, BIAS = numbers(5, 3 * WIDTH), numbers(3 * WIDTH)
UNEVEN = numbers(5, 2 * WIDTH + 6)
PAST = numbers(2, BATCH, HEADS, 2, SIZE)
SHIFT = numbers(1, HEADS, LENGTH, LENGTH)


def projected(added: Any = 0.0, weight: Array = WEIGHT, past: bool = False, **how: Any) -> Callable[[Array], Array]:
    def f(x: Array) -> Array:
        z = x @ weight + (BIAS if weight is WEIGHT else 0)
        q, k, v = (by_head(t) for t in np.split(z, [WIDTH, 2 * WIDTH], axis=-1))
        if past:
            k, v = (np.concatenate([before, t], axis=2) for before, t in zip(PAST, (k, v), strict=True))
        return attend(q, k, v, added, **how)

    return f


def packed_attention(inputs: str, f: Callable[[Array], Array], **more: Any) -> Case:
    given = {"w": WEIGHT, "b": BIAS, **more.pop("constants", {})}
    return Case((BATCH, LENGTH, 5), inputs, given, f, attributes={"num_heads": HEADS, **more})


ENDS = np.array([2, 3], np.int32)
ENDS_AND_STARTS = np.array([2, 3, 0, 1], np.int32)
BETWEEN = unless((ENDS[:, None] > KEYS) & (np.array([0, 1])[:, None] <= KEYS))[:, None, None]
WITH_PAST = unless(np.tri(LENGTH, LENGTH + 2, k=2, dtype=bool))
ATTENTION: Mapping[str, Case] = {
    "plain": packed_attention("x w b", projected()),
    "scaled": packed_attention("x w b", projected(scale=0.3), scale=0.3),
    "unidirectional": packed_attention("x w b", projected(CAUSAL), unidirectional=1),
    "ends": packed_attention("x w b m", projected(unless(ENDS[:, None] > KEYS)[:, None, None]), constants={"m": ENDS}),
    "ends-and-starts": packed_attention("x w b m", projected(BETWEEN), constants={"m": ENDS_AND_STARTS}),
    "mask-of-keys": packed_attention(
        "x w b m", projected(unless(PRESENT[:, None, None] == 1)), constants={"m": PRESENT}
    ),
    "mask-of-pairs": packed_attention("x w b m", projected(unless(PAIRS[:, None] == 1)), constants={"m": PAIRS}),
    "bias-of-scores": packed_attention("x w b - - s", projected(SHIFT), constants={"s": SHIFT}),
    "mask-and-bias": packed_attention(
        "x w b m - s", projected(SHIFT + unless(PRESENT[:, None, None] == 1)), constants={"m": PRESENT, "s": SHIFT}
    ),
    "past": Case(
        (BATCH, LENGTH, 5),
        "x w b - p",
        {"w": WEIGHT, "b": BIAS, "p": PAST},
        projected(WITH_PAST, past=True),
        "y present",
        {"num_heads": HEADS, "unidirectional": 1},
    ),
    "values-of-another-size": packed_attention(
        "x u", projected(weight=UNEVEN), constants={"u": UNEVEN}, qkv_hidden_sizes=[WIDTH, WIDTH, 6]
    ),
}

# -- MultiHeadAttention

K, V, Q = numbers(BATCH, 4, WIDTH), numbers(BATCH, 4, WIDTH), numbers(BATCH, LENGTH, WIDTH)
BIASES = np.split(BIAS, 3)
PAST_KEY, PAST_VALUE = PAST


def heads(inputs: str, f: Callable[[Array], Array], *shape: int, **more: Any) -> Case:
    given = {"q": Q, "k": K, "v": V, "b": BIAS, **more.pop("constants", {})}
    return Case(
        shape or (BATCH, LENGTH, WIDTH), inputs, given, f, more.pop("outputs", "y"), {"num_heads": HEADS, **more}
    )


MULTI_HEAD: Mapping[str, Case] = {
    "queries": heads("x k v", lambda x: attend(by_head(x), by_head(K), by_head(V))),
    "keys": heads("q x v", lambda x: attend(by_head(Q), by_head(x), by_head(V)), BATCH, 4, WIDTH),
    "biases": heads(
        "x k v b",
        lambda x: attend(*(by_head(t + s) for t, s in zip((x, K, V), BIASES, strict=True)), scale=0.4),
        scale=0.4,
    ),
    "keys-by-head": heads(
        "q x w", lambda x: attend(by_head(Q), x, by_head(V)), BATCH, HEADS, 4, SIZE, constants={"w": by_head(V)}
    ),
    "ends": heads(
        "x k v - m",
        lambda x: attend(
            by_head(x), by_head(K), by_head(V), unless(np.array([[3], [2]]) > np.arange(4))[:, None, None]
        ),
        constants={"m": np.array([3, 2], np.int32)},
    ),
    "padding": heads(
        "x k v - m",
        lambda x: attend(
            by_head(x), by_head(K), by_head(V), unless(np.array([[1, 1, 1, 0], [1, 0, 1, 0]]) == 1)[:, None, None]
        ),
        constants={"m": np.array([[1, 1, 1, 0], [1, 0, 1, 0]], np.int32)},
    ),
    "unidirectional-with-past": heads(
        "q x x - - - pk pv",
        lambda x: attend(
            by_head(Q),
            np.concatenate([PAST_KEY, by_head(x)], axis=2),
            np.concatenate([PAST_VALUE, by_head(x)], axis=2),
            WITH_PAST,
        ),
        outputs="y present_key present_value",
        constants={"pk": PAST_KEY, "pv": PAST_VALUE},
        unidirectional=1,
    ),
}

#: onnxruntime has kernels for these on other devices than the CPU alone.
PACKED: Mapping[str, Case] = {
    "packed": heads(
        "x", lambda x: attend(*(x[:, :, :, i].swapaxes(1, 2) for i in range(3))), BATCH, LENGTH, HEADS, 3, SIZE
    ),
    "packed-keys": heads(
        "q x", lambda x: attend(by_head(Q), *(x[:, :, :, i].swapaxes(1, 2) for i in range(2))), BATCH, 4, HEADS, 2, SIZE
    ),
}

# -- GroupQueryAttention: four heads of queries share two of keys; keys are as many as queries

GROUPED_HEADS, SHARED = 4, 2
GROUPED_SIZE = 16  # onnxruntime takes multiples of 16 here
GROUPED_WIDTH = (GROUPED_HEADS + 2 * SHARED) * GROUPED_SIZE
ANGLES = np.outer(np.arange(9), 0.7 ** np.arange(8))
TURNS = {"cos": np.cos(ANGLES).astype(np.float32), "sin": np.sin(ANGLES).astype(np.float32)}


def turned(t: Array, positions: Array) -> Array:
    """Rotary embedding of [batch, heads, length, size] at positions [batch, length]."""
    first, second = np.split(t, 2, axis=-1)
    cos, sin = (np.asarray(TURNS[name], float)[positions][:, None] for name in ("cos", "sin"))
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def grouped(
    length: int, before: Array, *, rotary: bool = False, window: int = -1, buffer: Array | None = None, cap: float = 0.0
) -> Callable[[Array], Array]:
    """Causal attention sample by sample, behind `before` keys of a buffer [2, batch, heads, any, size]."""

    def f(x: Array) -> Array:
        q, k, v = np.split(x, [GROUPED_HEADS * GROUPED_SIZE, (GROUPED_HEADS + SHARED) * GROUPED_SIZE], axis=-1)
        q, k, v = by_head(q, GROUPED_HEADS), by_head(k, SHARED), by_head(v, SHARED)
        found = []
        for sample, count in enumerate(before):
            own = [t[sample : sample + 1] for t in (q, k, v)]
            if rotary:
                at = count + np.arange(length)[None]
                own[:2] = [turned(t, at) for t in own[:2]]
            if buffer is not None:
                past = buffer[:, sample : sample + 1, :, :count]
                own[1:] = [np.concatenate([p, t], axis=2) for p, t in zip(past, own[1:], strict=True)]
            ahead = count + np.arange(length)[:, None] - np.arange(count + length)
            counts = (ahead >= 0) & ((ahead < window) | (window < 0))
            found.append(attend(*own, np.where(counts, 0, -np.inf), cap=cap))
        return np.concatenate(found)

    return f


def group(inputs: str, f: Callable[[Array], Array], length: int, before: Array, **more: Any) -> Case:
    constants = {
        "l": (before + length - 1).astype(np.int32),
        "t": np.array(int(before.max()) + length, np.int32),
        **TURNS,
        **more.pop("constants", {}),
    }
    attributes = {"num_heads": GROUPED_HEADS, "kv_num_heads": SHARED, **more}
    return Case((2, length, GROUPED_WIDTH), inputs, constants, f, "y present_key present_value", attributes)


FIRST, LATER = np.array([0, 0]), np.array([3, 3])
BUFFER = numbers(2, 2, SHARED, 3, GROUPED_SIZE)
PAST_BUFFERS = {"pk": BUFFER[0], "pv": BUFFER[1]}
GROUPED: Mapping[str, Case] = {
    "first": group("x - - - - l t", grouped(3, FIRST), 3, FIRST),
    "rotary": group("x - - - - l t cos sin", grouped(3, FIRST, rotary=True), 3, FIRST, do_rotary=1),
    "window": group("x - - - - l t", grouped(3, FIRST, window=1), 3, FIRST, local_window_size=1),
    "capped": group("x - - - - l t", grouped(3, FIRST, cap=0.7), 3, FIRST, softcap=0.7),
    "later": group("x - - pk pv l t", grouped(1, LATER, buffer=BUFFER), 1, LATER, constants=PAST_BUFFERS),
    "later-rotary": group(
        "x - - pk pv l t cos sin",
        grouped(1, LATER, buffer=BUFFER, rotary=True, window=2),
        1,
        LATER,
        constants=PAST_BUFFERS,
        do_rotary=1,
        local_window_size=2,
    ),
    "shorter-than-its-buffer": group(
        "x - - pk pv l t cos sin",
        grouped(1, np.array([1, 3]), buffer=BUFFER, rotary=True),
        1,
        np.array([1, 3]),
        constants=PAST_BUFFERS,
        do_rotary=1,
    ),
}


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (op, name)
        for op, cases in (
            ("Attention", ATTENTION),
            ("MultiHeadAttention", MULTI_HEAD),
            ("GroupQueryAttention", GROUPED),
        )
        for name in cases
    ],
)
def test_derivatives(op: str, name: str) -> None:
    case = {"Attention": ATTENTION, "MultiHeadAttention": MULTI_HEAD, "GroupQueryAttention": GROUPED}[op][name]
    used = {key: value for key, value in case.constants.items() if key in case.inputs.split()}
    made = one_operator(op, case.shape, case.inputs, used, outputs=case.outputs, **case.attributes)
    expect_derivative(made, data(*case.shape), case.f)


@pytest.mark.parametrize("name", PACKED)
def test_packed_operands(name: str) -> None:
    """Without the node itself, which the relevance of a given seed does not read."""
    case = PACKED[name]
    used = {key: value for key, value in case.constants.items() if key in case.inputs.split()}
    made = one_operator("MultiHeadAttention", case.shape, case.inputs, used, **case.attributes)
    emitted = onnxlrp.convert(made, rules="gradient-x-input", target="seed")
    del emitted.graph.node[0], emitted.graph.output[0]
    x = data(*case.shape)
    seed = RNG.normal(size=case.f(x).shape).astype(np.float32)
    gradient = central_gradient(lambda at: float((seed * case.f(at["x"])).sum()), {"x": x.astype(float)}, "x")
    found = run_onnxruntime(emitted, {"x": x, "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, x * gradient) < 1e-5


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "said"),
    [
        ("Attention", "x w b", {"past_present_share_buffer": 1}, "shares buffers"),
        (
            "GroupQueryAttention",
            "x - - - - l t",
            {"kv_num_heads": 2, "smooth_softmax": 1},
            "a softmax or a cache of its own",
        ),
    ],
)
def test_what_is_not_read_says_so(op: str, inputs: str, attributes: Mapping[str, Any], said: str) -> None:
    given = {"w": WEIGHT, "b": BIAS, "l": np.array([2, 2], np.int32), "t": np.array(3, np.int32)}
    made = one_operator(op, (2, 3, 32), inputs, given, num_heads=HEADS, **attributes)
    with pytest.raises(ConversionError, match=said):
        onnxlrp.convert(made, rules="attnlrp", target="seed")
