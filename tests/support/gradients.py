"""Derivatives without a derivative: finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Array = np.ndarray

_STEP = 1e-3
#: Offsets and weights of the four-point rule, exact for polynomials up to degree four.
_STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


def distinct(*shape: int, seed: int = 0) -> Array:
    """Values between -2 and 2, in random order, any two at least 4/size apart and none close to zero.

    Finite differences need this: the maximum of two values closer than the step has no derivative to find.
    """
    size = int(np.prod(shape))
    values = np.linspace(-2.0, 2.0, size + 1)[1:] - 2.0 / (size + 1)
    values[np.abs(values) < 0.02] = 0.02
    values += 0.003 * seed  # no value of one tensor is found in another
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def central_gradient(f: Callable[[Mapping[str, Array]], float], at: Mapping[str, Array], of: str) -> Array:
    """The gradient of f with respect to the input `of`, error about 1e-11 for smooth f."""
    x = at[of]
    gradient = np.zeros(x.shape)
    for i in range(x.size):
        for offset, weight in _STENCIL:
            moved = x.copy()
            moved.flat[i] += offset * _STEP
            gradient.flat[i] += weight / _STEP * f({**at, of: moved})
    return gradient


def jacobian(f: Callable[[Mapping[str, Array]], Array], at: Mapping[str, Array], of: Sequence[str]) -> Array:
    """dy/dx [size of y, total size of the inputs `of` in that order] at a point."""
    columns = []
    for name in of:
        x = at[name]
        for i in range(x.size):
            column = 0.0
            for offset, weight in _STENCIL:
                moved = x.copy()
                moved.flat[i] += offset * _STEP
                column = column + weight / _STEP * f({**at, name: moved}).ravel()
            columns.append(column)
    return np.stack(columns, axis=1)
