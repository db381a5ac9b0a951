"""LSTM, GRU and RNN in numpy, step by step from their definition: those of `onnx.reference` know no directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0.0),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x >= 0, x, alpha * x),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0.0, 1.0),
    "Affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Elu": lambda x, alpha=1.0: np.where(x >= 0, x, alpha * np.expm1(x)),
    "ScaledTanh": lambda x, alpha=1.0, beta=1.0: alpha * np.tanh(beta * x),
    "ThresholdedRelu": lambda x, alpha=1.0: np.where(x > alpha, x, 0.0),
}
_NUMBERS: Mapping[str, int] = {
    "LeakyRelu": 1,
    "Elu": 1,
    "ThresholdedRelu": 1,
    "HardSigmoid": 2,
    "Affine": 2,
    "ScaledTanh": 2,
}


def functions(
    attributes: Mapping[str, Any], defaults: tuple[str, ...], directions: int
) -> list[Callable[[Array], Array]]:
    """The activation functions with their numbers filled in."""
    names = attributes.get("activations") or list(defaults) * directions
    alphas, betas = list(attributes.get("activation_alpha") or ()), list(attributes.get("activation_beta") or ())
    found = []
    for name in names:
        numbers = [source.pop(0) for source in (alphas, betas)[: _NUMBERS.get(name, 0)] if source]
        found.append(lambda x, f=FUNCTIONS[name], n=tuple(numbers): f(x, *n))
    return found


def _clipped(x: Array, clip: float | None) -> Array:
    return x if not clip else np.clip(x, -clip, clip)


def _lstm(
    x: Array, states: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Any], a: Mapping[str, Any]
) -> list[Array]:
    h, c = states
    n, clip = h.shape[1], a.get("clip")
    wb, rb = np.split(b, 2)
    i, o, forget, g = np.split(x @ w.T + h @ r.T + wb + rb, 4, axis=1)
    pi, po, pf = np.split(p, 3)
    i = f[0](_clipped(i + pi * c, clip))
    forget = 1.0 - i if a.get("input_forget") else f[0](_clipped(forget + pf * c, clip))
    c = forget * c + i * f[1](_clipped(g, clip))
    assert n == c.shape[1]
    return [f[0](_clipped(o + po * c, clip)) * f[2](c), c]


def _gru(
    x: Array, states: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Any], a: Mapping[str, Any]
) -> list[Array]:
    (h,), clip = states, a.get("clip")
    wb, rb = np.split(b, 2)
    (wz, wr, wn), (rz, rr, rn) = np.split(w, 3), np.split(r, 3)
    (bz, br, bn), (cz, cr, cn) = np.split(wb, 3), np.split(rb, 3)
    z = f[0](_clipped(x @ wz.T + h @ rz.T + bz + cz, clip))
    reset = f[0](_clipped(x @ wr.T + h @ rr.T + br + cr, clip))
    inner = reset * (h @ rn.T + cn) if a.get("linear_before_reset") else (reset * h) @ rn.T + cn
    n = f[1](_clipped(x @ wn.T + bn + inner, clip))
    return [(1.0 - z) * n + z * h]


def _rnn(
    x: Array, states: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Any], a: Mapping[str, Any]
) -> list[Array]:
    wb, rb = np.split(b, 2)
    return [f[0](_clipped(x @ w.T + states[0] @ r.T + wb + rb, a.get("clip")))]


def _one_direction(
    cell: Any,
    x: Array,
    lengths: Array,
    states: list[Array],
    weights: tuple[Array, ...],
    f: list[Any],
    a: Mapping[str, Any],
    back: bool,
) -> tuple[Array, list[Array]]:
    time, batch = x.shape[:2]
    y = np.zeros((time, batch, states[0].shape[1]), x.dtype)
    finals = [s.copy() for s in states]
    for sample in range(batch):
        length = int(lengths[sample])
        now = [s[sample : sample + 1] for s in states]
        for t in reversed(range(length)) if back else range(length):
            now = cell(x[t, sample : sample + 1], now, *weights, f, a)
            y[t, sample] = now[0][0]
        for final, value in zip(finals, now, strict=True):
            final[sample] = value[0]
    return y, finals


def recurrent(
    cell: Any, defaults: tuple[str, ...], states: int, inputs: list[Array | None], a: Mapping[str, Any]
) -> tuple[Array, ...]:
    """The outputs of the operator (Y, Y_h and for an LSTM Y_c)."""
    inputs = [*inputs, *[None] * (8 - len(inputs))]
    x, w, r, b, lengths, *given = inputs
    assert x is not None and w is not None and r is not None
    first = bool(a.get("layout"))
    x = x.transpose(1, 0, 2) if first else x
    directions, hidden = w.shape[0], r.shape[2]
    time, batch = x.shape[:2]
    lengths = np.full(batch, time) if lengths is None else lengths
    f = functions(a, defaults, directions)
    ys, finals = [], []
    for d in range(directions):
        start = []
        for s in given[:states]:
            whole = np.zeros((directions, batch, hidden), x.dtype) if s is None else s
            start.append((whole.transpose(1, 0, 2) if first and s is not None else whole)[d])
        bias = np.zeros(2 * w.shape[1], x.dtype) if b is None else b[d]
        peep = np.zeros(3 * hidden, x.dtype) if given[2] is None else given[2][d]
        back = a.get("direction") == "reverse" or d == 1
        chosen = f[d * len(defaults) : (d + 1) * len(defaults)]
        y, final = _one_direction(cell, x, lengths, start, (w[d], r[d], bias, peep), chosen, a, back)
        ys.append(y)
        finals.append(final)
    y = np.stack(ys, axis=1)
    last = [np.stack([final[k] for final in finals]) for k in range(states)]
    if first:
        return (y.transpose(2, 0, 1, 3), *(s.transpose(1, 0, 2) for s in last))
    return (y, *last)


class LSTM(OpRun):
    def _run(self, *inputs: Any, **a: Any) -> tuple[Array, ...]:
        return recurrent(_lstm, ("Sigmoid", "Tanh", "Tanh"), 2, list(inputs), a)


class GRU(OpRun):
    def _run(self, *inputs: Any, **a: Any) -> tuple[Array, ...]:
        return recurrent(_gru, ("Sigmoid", "Tanh"), 1, list(inputs), a)


class RNN(OpRun):
    def _run(self, *inputs: Any, **a: Any) -> tuple[Array, ...]:
        return recurrent(_rnn, ("Tanh",), 1, list(inputs), a)


RECURRENT: tuple[type[OpRun], ...] = (LSTM, GRU, RNN)
