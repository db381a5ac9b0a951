"""The textbook rules, slow and obvious: numpy in float64 on the dense matrix of a linear operator.

A linear operator with its bias is y = W x + b with x and y flattened, W of shape [outputs, inputs] found by
applying it to unit vectors. Padding needs no thought here: a padded position is simply no column of W.

Formulas: Bach et al. 2015 (z, epsilon, alpha-beta), Montavon et al. 2017 (z-plus, z-box, w-square), Montavon
et al. 2019 and Andeol et al. 2022 (gamma), Lapuschkin et al. 2019 (flat), Zhang et al. 2016 (excitation). The
numerics (stabiliser, share of the bias) are those of zennit 0.5.1: tests/oracle compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Dense:
    """y = W x + b on flattened tensors, and the shapes of x and y."""

    weight: Array
    bias: Array
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        return (self.weight @ x.ravel() + self.bias).reshape(self.y_shape)


def dense(forward: Callable[[Array], Array], shape: tuple[int, ...]) -> Dense:
    """The matrix and bias of an affine function, from its values at zero and at the unit vectors."""
    zero = forward(np.zeros(shape))
    columns = []
    for i in range(int(np.prod(shape))):
        unit = np.zeros(shape)
        unit.flat[i] = 1.0
        columns.append((forward(unit) - zero).ravel())
    return Dense(np.stack(columns, axis=1), zero.ravel().astype(np.float64), shape, zero.shape)


def sign_or_one(z: Array) -> Array:
    """The sign of z, where zero counts as positive."""
    return np.where(z >= 0, 1.0, -1.0)


def stabilise(z: Array, epsilon: float, kind: str = "sign") -> Array:
    """z moved away from zero; `norm` scales epsilon by the root mean square over all axes but the first."""
    if kind == "clip":
        return sign_or_one(z) * np.maximum(np.abs(z), epsilon)
    if kind == "plain":
        return z + epsilon
    if kind == "norm":
        axes = tuple(range(1, z.ndim))
        return z + epsilon * np.sqrt((z**2).mean(axis=axes, keepdims=True)) * sign_or_one(z)
    return z + epsilon * sign_or_one(z)


def positive(v: Array) -> Array:
    return np.maximum(v, 0.0)


def negative(v: Array) -> Array:
    return np.minimum(v, 0.0)


class Rule:
    """One operator, its input and its output's relevance, with stabiliser and bias as configured."""

    def __init__(self, op: Dense, x: Array, relevance: Array, parameters: Mapping[str, Any]) -> None:
        self.op, self.x, self.r = op, x.ravel(), relevance.ravel()
        self.w = op.weight
        self.b = op.bias if parameters.get("bias", "absorb") == "absorb" else np.zeros_like(op.bias)
        self.epsilon = parameters.get("epsilon", 1e-6)
        self.stabiliser = parameters.get("stabiliser", "sign")
        self.parameters = parameters

    def over(self, z: Array) -> Array:
        """Relevance divided by the stabilised z."""
        return self.r / stabilise(z.reshape(self.op.y_shape), self.epsilon, self.stabiliser).ravel()

    def z(self) -> Array:
        z = self.w @ self.x + self.b
        s = np.divide(self.r, z, out=np.zeros_like(z), where=z != 0)
        return self.x * (self.w.T @ s)

    def eps(self) -> Array:
        return self.x * (self.w.T @ self.over(self.w @ self.x + self.b))

    def one_sign(self, same: Callable[[Array], Array], other: Callable[[Array], Array]) -> Array:
        """Relevance in proportion to the contributions of one sign: w x with `same` on w where x > 0."""
        xp, xn = positive(self.x), negative(self.x)
        s = self.over(same(self.w) @ xp + other(self.w) @ xn + same(self.b))
        return xp * (same(self.w).T @ s) + xn * (other(self.w).T @ s)

    def z_plus(self) -> Array:
        return self.one_sign(positive, negative)

    def alpha_beta(self) -> Array:
        alpha, beta = self.parameters["alpha"], self.parameters["beta"]
        return alpha * self.one_sign(positive, negative) - beta * self.one_sign(negative, positive)

    def gamma(self) -> Array:
        gamma = self.parameters["gamma"]
        xp, xn = positive(self.x), negative(self.x)
        up, down = self.w + gamma * positive(self.w), self.w + gamma * negative(self.w)
        b_up, b_down = self.b + gamma * positive(self.b), self.b + gamma * negative(self.b)
        z = self.w @ self.x + self.b
        s_up = (z > 0) * self.over(up @ xp + down @ xn + b_up)
        s_down = (z < 0) * self.over(down @ xp + up @ xn + b_down)
        return xp * (up.T @ s_up + down.T @ s_down) + xn * (down.T @ s_up + up.T @ s_down)

    def z_box(self) -> Array:
        low = np.broadcast_to(self.parameters["low"], self.op.x_shape).ravel()
        high = np.broadcast_to(self.parameters["high"], self.op.x_shape).ravel()
        wp, wn = positive(self.w), negative(self.w)
        s = self.over(self.w @ self.x - wp @ low - wn @ high)
        return self.x * (self.w.T @ s) - low * (wp.T @ s) - high * (wn.T @ s)

    def w_square(self) -> Array:
        return (self.w**2).T @ self.over((self.w**2).sum(axis=1) + self.b**2)

    def flat(self) -> Array:
        ones = (self.w != 0).astype(np.float64)
        return ones.T @ self.over(ones.sum(axis=1))

    def excitation(self) -> Array:
        xp, wp = positive(self.x), positive(self.w)
        return xp * (wp.T @ self.over(wp @ xp))

    def gradient(self) -> Array:
        """The multiplier R / y through the transpose; y includes the whole bias."""
        y = self.op.weight @ self.x + self.op.bias
        return self.x * (self.w.T @ (self.r / y))


_RULES: Mapping[str, Callable[[Rule], Array]] = {
    "z": Rule.z,
    "epsilon": Rule.eps,
    "norm": Rule.eps,
    "z-plus": Rule.z_plus,
    "alpha-beta": Rule.alpha_beta,
    "gamma": Rule.gamma,
    "z-box": Rule.z_box,
    "w-square": Rule.w_square,
    "flat": Rule.flat,
    "excitation": Rule.excitation,
    "gradient": Rule.gradient,
}


def propagate(op: Dense, rule: str, parameters: Mapping[str, Any], x: Array, relevance: Array) -> Array:
    """Relevance of x [x_shape] from that of the output [y_shape]; bounds of z-box broadcast against x."""
    return _RULES[rule](Rule(op, x, relevance, parameters)).reshape(op.x_shape)
