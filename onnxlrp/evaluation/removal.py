"""Taking units of a sample away: which, in what order, and what the model says afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.variants import Judge, judged


@dataclass(frozen=True)
class Units:
    """The units of one sample.

    Attributes:
        index: in the shape of the sample: the unit of each element, 0 to count - 1; `count` for an element that is
            never taken away.
        count: how many units there are.
    """

    index: Array
    count: int

    def sums(self, relevance: Array) -> Array:
        """The sum over each unit's elements, [count]."""
        return np.bincount(self.index.reshape(-1), relevance.reshape(-1), self.count + 1)[: self.count]

    def spread(self, numbers: Array, rest: float = 0) -> Array:
        """Each unit's number at all its elements: [..., count] to [..., the sample's shape]."""
        beside = np.full((*numbers.shape[:-1], 1), rest, numbers.dtype)
        return np.asarray(np.concatenate([numbers, beside], axis=-1)[..., self.index])


def units(case: Case) -> list[Units]:
    """The units of each sample, numbered without gaps."""
    if case.units.ndim == case.values.ndim - 1:
        return [_numbered(case.units)] * len(case.values)
    return [_numbered(case.units_of(row)) for row in case.rows]


def squares(case: Case, size: int) -> list[Units]:
    """Squares of size x size pixels with all their channels as the units of images; those at the right and lower edge
    may be smaller. Elements that the case never takes away stay."""
    height, width = case.values.shape[-2:]
    across = -(-width // size)
    grid = np.arange(height)[:, None] // size * across + np.arange(width) // size
    return [_numbered(np.where(case.units_of(row) < 0, -1, grid)) for row in case.rows]


def _numbered(raw: Array) -> Units:
    present, index = np.unique(raw, return_inverse=True)
    index = index.reshape(raw.shape)
    if not present.size or present[0] >= 0:
        return Units(index, len(present))
    count = len(present) - 1
    return Units(np.where(raw < 0, count, index - 1), count)


def without(case: Case, row: int, unit: Units, gone: Array, replacement: Array | None = None) -> Array:
    """A sample without some of its units.

    Args:
        gone: bool [k, count], what each of k variants lacks.
        replacement: what elements become, in the sample's shape; the case's baseline when None.

    Returns:
        [k, ...], of the values' type.
    """
    if replacement is None:
        replacement = np.broadcast_to(case.baseline, case.values.shape)[row]
    return np.where(unit.spread(gone), replacement, case.values[row]).astype(case.values.dtype)


def place(relevance: Array) -> Array:
    """The place of each unit in the order from most to least relevant; ties by the units' numbers."""
    order = np.argsort(-relevance, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def equal_steps(steps: int) -> Callable[[int], Array]:
    """From none to all units in equal steps, [steps + 1]; where there are fewer units than steps, some are empty."""
    return lambda count: np.rint(np.linspace(0, 1, steps + 1) * count).astype(np.int64)


def curves(
    case: Case,
    of: Sequence[Units],
    relevance: Sequence[Array],
    judge: Judge,
    counts: Callable[[int], Array],
    replacement: Callable[[int], Array] | None = None,
) -> Array:
    """What the model says while the most relevant units are taken away, one after another.

    Args:
        of, relevance: of each sample.
        judge: one number, or several, for a variant.
        counts: how many of so many units are gone at each point.
        replacement: what the elements of a sample become, by its row.

    Returns:
        [n, points] or [n, points, numbers]. For the least relevant first, give the relevance with its sign changed.
    """
    items = (
        (
            row,
            without(
                case,
                row,
                of[row],
                place(relevance[row]) < counts(of[row].count)[:, None],
                None if replacement is None else replacement(row),
            ),
        )
        for row in map(int, case.rows)
    )
    return np.stack(list(judged(judge, items)))


def area(curve: Array) -> Array:
    """The area under curves [n, points, ...] over equal steps from 0 to 1: the trapezoidal rule."""
    return np.asarray(np.trapezoid(curve, dx=1 / (curve.shape[1] - 1), axis=1))
