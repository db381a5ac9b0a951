"""Where a case is checked: its inputs, moved a little so that there are no ties, zeros and kinks; and slopes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Any]
Function = Callable[[Feeds], float]

#: Step of the differences, in units of a typical value of the input.
STEP = 1e-6
#: Inputs of more elements are moved at this many of them, so that no kink lies within the step.
_MOVED = 256
_ONE_BY_ONE = 12
_DIRECTIONS = 6


def scale(x: Array) -> float:
    """The typical size of a value: the root mean square of the finite ones, 1 where all are zero."""
    finite = x[np.isfinite(x)]
    size = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    return size or 1.0


def moved(x: Array, rng: np.random.Generator, amount: float) -> Array:
    """x [any shape] in float64 with every finite value changed by up to `amount` of the typical size, none left at zero.

    Infinite values (masks) become large finite ones, for which x * gradient says something.
    """
    dtype, unit = x.dtype, scale(x.astype(np.float64))
    x = x.astype(np.float64)
    # Towards zero rather than away from it: that stays inside the domain of functions such as arccos.
    result = x * (1.0 - amount * rng.uniform(0.0, 1.0, x.shape)) + amount * unit * rng.uniform(-0.3, 0.3, x.shape)
    small = np.abs(result) < 0.02 * unit
    result = np.where(small, np.where(x < 0, -1.0, 1.0) * unit * rng.uniform(0.02, 0.05, x.shape), result)
    result = np.where(np.isfinite(x), result, np.where(x < 0, -1e3, 1e3))
    # What the model's own type can hold, so that every run starts from the same values.
    return result.astype(dtype).astype(np.float64)


def directions(x: Array, rng: np.random.Generator) -> list[Array]:
    """Directions to move x in: each element on its own for a small x, random signs otherwise."""
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
    step = STEP * scale(x)
    here = f(at)
    ahead, behind = (f({**at, name: x + sign * step * direction}) for sign in (1.0, -1.0))
    half = [f({**at, name: x + sign * step / 2 * direction}) for sign in (1.0, -1.0)]
    value, check = (ahead - behind) / (2 * step), (half[0] - half[1]) / step
    error = 8 * np.finfo(np.float64).eps * max(size, abs(here)) / step
    bend = abs(ahead + behind - 2 * here) / step
    limit = 1e-4 * max(abs(value), abs(check)) + 16 * error
    smooth = bool(np.isfinite(value) and bend <= limit and abs(value - check) <= limit)
    return Slope(value, error, smooth)


def is_affine(
    f: Callable[[Feeds], Sequence[Array]], at: Feeds, name: str, rng: np.random.Generator
) -> bool:
    """Whether f is affine in one input alone, the others fixed: three random moves of its own size up and down."""
    x = at[name]
    middle = f(at)
    for _ in range(3):
        step = scale(x) * rng.normal(size=x.shape)
        up, down = f({**at, name: x + step}), f({**at, name: x - step})
        for a, b, c in zip(up, middle, down, strict=True):
            if a.shape != b.shape or c.shape != b.shape:
                return False
            size = float(np.abs(a).sum() + np.abs(b).sum() + np.abs(c).sum())
            if not np.abs(a - 2 * b + c).sum() <= 1e-9 * size:
                return False
    return True
