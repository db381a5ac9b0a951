"""Where a case is checked: its inputs, moved a little so that there are no ties, zeros and kinks; and slopes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Any]
Function = Callable[[Feeds], float]

#: Step of the differences, in units of the median of the input's absolute values.
STEP = 1e-6
#: Inputs of more elements are moved at this many of them, so that no kink lies within the step.
_MOVED = 256
_ONE_BY_ONE = 12
_ABSURD = 1e30
_DIRECTIONS = 6


@dataclass(frozen=True)
class Way:
    """How inputs are moved.

    Attributes:
        amount: how far, in units of the typical value.
        positive: signs are dropped, for functions such as logarithms.
        tied: equal values stay equal, for outputs whose shape depends on that; they are then also moved together when
            slopes are taken.
        masked: output values that are not finite get no relevance, as masked scores have none.
    """

    amount: float
    positive: bool = False
    tied: bool = False
    masked: bool = False


#: Tried in turn where the function has a kink or a pole, or is not defined.
WAYS = (
    *(Way(0.2), Way(0.1), Way(0.05), Way(0.02), Way(0.01)),
    *(Way(0.02, positive=True), Way(0.02, tied=True), Way(0.02, masked=True)),
)


def scale(x: Array) -> float:
    """The typical size of a value: the root mean square of the finite ones, 1 where all are zero."""
    finite = x[np.isfinite(x)]
    size = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    return size or 1.0


def moved(x: Array, rng: np.random.Generator, way: Way) -> Array:
    """x [any shape] in float64 with every finite value moved, and none left at zero.

    Infinite values (masks) become large finite ones, for which x * gradient says something. Inputs that their makers
    left uninitialised become standard normal. The values fit the type of x, so that every run starts from the same.
    """
    if way.tied:
        values, where = np.unique(x, return_inverse=True)
        return moved(values, rng, Way(way.amount, way.positive))[where].reshape(x.shape)
    dtype, amount = x.dtype, way.amount
    x = x.astype(np.float64)
    if np.abs(x[np.isfinite(x)]).max(initial=0.0) > _ABSURD:
        x = rng.normal(size=x.shape)
    unit = scale(x)
    # All towards zero (inside the domain of functions such as arccos) or all away from it.
    result = x * (1.0 + rng.choice([-1.0, 1.0]) * amount * rng.uniform(0.0, 1.0, x.shape))
    result += amount * unit * rng.uniform(-0.3, 0.3, x.shape)
    small = np.abs(result) < 0.02 * unit
    result = np.where(small, np.where(x < 0, -1.0, 1.0) * unit * rng.uniform(0.02, 0.05, x.shape), result)
    result = np.where(np.isfinite(x), result, np.where(x < 0, -1e3, 1e3))
    result = np.abs(result) if way.positive else result
    return result.astype(dtype).astype(np.float64)


def directions(x: Array, rng: np.random.Generator, tied: bool = False) -> list[Array]:
    """Directions to move x in: each element on its own for a small x, random signs otherwise."""
    if tied:
        values, where = np.unique(x, return_inverse=True)
        return [d[where].reshape(x.shape) for d in directions(values, rng)]
    if x.size <= _ONE_BY_ONE:
        return [e.reshape(x.shape) for e in np.eye(x.size)]
    found = []
    for _ in range(_DIRECTIONS):
        signs = rng.choice([-1.0, 1.0], x.size)
        if x.size > _MOVED:
            signs[rng.permutation(x.size)[_MOVED:]] = 0.0
        found.append(signs.reshape(x.shape))
    return found


@dataclass(frozen=True)
class Slope:
    """A directional derivative by central differences.

    Attributes:
        error: how far it may be off, from rounding.
        smooth: the function has no kink within the step.
    """

    value: float
    error: float
    smooth: bool


def slope(f: Function, at: Feeds, name: str, direction: Array, size: float) -> Slope:
    """The slope of f at a point, along a direction of the input `name`.

    Args:
        size: sum of the absolute terms of f, for the rounding error.
    """
    x = at[name]
    # Small beside most values, however large some are.
    step = STEP * (float(np.median(np.abs(x))) if x.size else 0.0) or STEP
    here = f(at)
    ahead, behind = (f({**at, name: x + sign * step * direction}) for sign in (1.0, -1.0))
    half = [f({**at, name: x + sign * step / 2 * direction}) for sign in (1.0, -1.0)]
    value, check = (ahead - behind) / (2 * step), (half[0] - half[1]) / step
    error = 8 * np.finfo(np.float64).eps * max(size, abs(here)) / step
    bend = abs(ahead + behind - 2 * here) / step
    limit = 1e-4 * max(abs(value), abs(check)) + 16 * error
    smooth = bool(np.isfinite(value) and bend <= limit and abs(value - check) <= limit)
    return Slope(value, error, smooth)


def is_affine(f: Callable[[Feeds], Sequence[Array]], at: Feeds, name: str, rng: np.random.Generator) -> bool:
    """Whether f is affine in one input alone, the others fixed: random moves of its own size up and down."""
    x = at[name]
    middle = f(at)
    for _ in range(6):
        step = 2 * scale(x) * rng.normal(size=x.shape)
        up, down = f({**at, name: x + step}), f({**at, name: x - step})
        for a, b, c in zip(up, middle, down, strict=True):
            if a.shape != b.shape or c.shape != b.shape or not np.isfinite([*a.flat, *b.flat, *c.flat]).all():
                return False
            size = float(np.abs(a).sum() + np.abs(b).sum() + np.abs(c).sum())
            if not np.abs(a - 2 * b + c).sum() <= 1e-9 * size:
                return False
    return True
