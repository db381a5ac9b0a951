"""Models and methods of a few lines of numpy, whose right answers are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case, Method, Subject


@dataclass(frozen=True)
class Linear:
    """scores = x w + b over the flattened values; one weighted layer."""

    weights: Array
    bias: Array

    def scores(self, values: Array, rows: Array) -> Array:
        return values.reshape(len(values), -1) @ self.weights + self.bias

    def gradients(self, values: Array, targets: Array, rows: Array) -> Array:
        return self.weights[:, targets].T.reshape(values.shape)

    def randomised(self, layers: int, seed: int) -> Linear:
        mixed = np.random.default_rng(seed).permutation(self.weights.reshape(-1)).reshape(self.weights.shape)
        return replace(self, weights=mixed) if layers else self

    @property
    def layers(self) -> int:
        return 1


@dataclass(frozen=True)
class TwoLayer:
    """scores = relu(x w + b) v + c; two weighted layers."""

    first: Linear
    second: Linear

    def scores(self, values: Array, rows: Array) -> Array:
        return self.second.scores(np.maximum(self.first.scores(values, rows), 0), rows)

    def gradients(self, values: Array, targets: Array, rows: Array) -> Array:
        hidden = self.first.scores(values, rows) > 0
        back = (self.second.weights[:, targets].T * hidden) @ self.first.weights.T
        return np.asarray(back.reshape(values.shape))

    def randomised(self, layers: int, seed: int) -> TwoLayer:
        second = self.second.randomised(min(layers, 1), seed)
        return TwoLayer(self.first.randomised(max(layers - 1, 0), seed + 1), second)

    @property
    def layers(self) -> int:
        return 2


@dataclass(frozen=True)
class Tokens:
    """The sum of a score per token id; no gradient."""

    table: Array

    def scores(self, values: Array, rows: Array) -> Array:
        return np.asarray(self.table[values].sum(axis=1))

    def gradients(self, values: Array, targets: Array, rows: Array) -> Array:
        raise UsageError("token ids have no gradient")

    def randomised(self, layers: int, seed: int) -> Tokens:
        return Tokens(np.random.default_rng(seed).permutation(self.table)) if layers else self

    @property
    def layers(self) -> int:
        return 1


@dataclass(frozen=True)
class Attributes:
    """A method that is a function of values, targets and rows."""

    function: Callable[[Array, Array, Array], Array]

    def maps(self, values: Array, targets: Array, rows: Array) -> Array:
        return self.function(values, targets, rows)


def gradient_x_input(subject: Subject) -> Method:
    """Exact relevance where the subject is linear."""
    return Attributes(lambda values, targets, rows: values * subject.gradients(values, targets, rows))


def constant(maps: Array) -> Callable[[Subject], Method]:
    """The map of each sample, whatever its values are."""
    return lambda subject: Attributes(lambda values, targets, rows: maps[rows])


def linear(features: int, classes: int = 3, seed: int = 0) -> Linear:
    generator = np.random.default_rng(seed)
    return Linear(generator.normal(size=(features, classes)), generator.normal(size=classes))


def two_layer(features: int, classes: int = 3, seed: int = 0) -> TwoLayer:
    return TwoLayer(linear(features, 7, seed), linear(7, classes, seed + 1))


def images(count: int, channels: int = 2, size: int = 4, seed: int = 9) -> Array:
    return np.random.default_rng(seed).normal(size=(count, channels, size, size))


def pixels(channels: int, size: int) -> Array:
    """The units of an image: all channels of a pixel are one."""
    return np.broadcast_to(np.arange(size * size).reshape(1, size, size), (channels, size, size))


def make_case(
    values: Array, subject: Subject, make: Callable[[Subject], Method] = gradient_x_input, **others: Any
) -> Case:
    """A case with one unit per element, the baseline 0 and the first class as target; `others` replace these."""
    units = np.arange(values[0].size).reshape(values.shape[1:])
    fields: dict[str, Any] = {
        "baseline": np.zeros(1, values.dtype),
        "units": units,
        "targets": np.zeros(len(values), np.int64),
        "labels": None,
        "marked": None,
        "seeds": np.arange(100, 100 + len(values), dtype=np.uint64),
    }
    return Case(values=values, subject=subject, make=make, method=make(subject), **{**fields, **others})


def part_of(case: Case, rows: slice) -> Case:
    """The samples in `rows` as a batch of their own; methods and subjects must not look at `rows`."""
    chosen = {
        name: None if getattr(case, name) is None else getattr(case, name)[rows]
        for name in ("values", "targets", "labels", "marked", "seeds")
    }
    units = case.units if case.units.ndim == case.values.ndim - 1 else case.units[rows]
    return replace(case, units=units, **chosen)
