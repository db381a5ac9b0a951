"""What a metric is given: a batch of samples, the model that judges, and the method that is judged.

Metrics know neither files nor onnxruntime nor rule tables: they see arrays and the two protocols below. That is what
makes them checkable against other implementations on toy models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Subject(Protocol):
    """The model under explanation, seen through the one input that is explained.

    `rows` tells for each of the k values which sample of the batch it is a variant of, so that the model's other
    inputs (an attention mask, a second image) can be those of that sample.
    """

    def scores(self, values: Array, rows: Array) -> Array:
        """The explained output for k variants, [k, classes], float64; logits, not probabilities."""

    def gradients(self, values: Array, targets: Array, rows: Array) -> Array:
        """The gradient of the target's score by the explained input, in the values' shape, float64.

        Raises:
            UsageError: the explained input has no gradient (token ids).
        """

    def randomised(self, layers: int, seed: int) -> Subject:
        """The same model with the parameters of its last `layers` weighted layers permuted at random."""

    @property
    def layers(self) -> int:
        """How many weighted layers there are to randomise."""


class Method(Protocol):
    """An attribution method, ready for one subject."""

    def maps(self, values: Array, targets: Array, rows: Array) -> Array:
        """One map per value, in the shape of one value each (for token ids: one number per token), float64."""


#: Makes a method for a subject: the same rule table for a randomised model, say.
MakeMethod = Callable[[Subject], Method]


@dataclass(frozen=True)
class Case:
    """A batch of n samples on which a method is judged.

    Attributes:
        values: [n, ...], the explained input.
        baseline: what an element becomes when it is taken away; broadcasts to `values`.
        units: int64 in the shape of one sample, or of all of them: the unit of each element (all channels of a pixel,
            a patch, a token are one unit each), numbered from 0; -1 for elements that are never taken away (padding).
        targets: int64 [n], the class whose score is explained.
        labels: int64 [n], the true class, -1 where unknown; None without labels.
        marked: bool [n, ...] in the shape of the values, what a person has marked as the object; None without.
        seeds: uint64 [n], one per sample, from the run's seed and the sample's place in the data: results depend
            neither on the batch size nor on where a run was interrupted.
        subject, make, method: the model, the method for any model, and the method for this one.
    """

    values: Array
    baseline: Array
    units: Array
    targets: Array
    labels: Array | None
    marked: Array | None
    seeds: Array
    subject: Subject
    make: MakeMethod
    method: Method

    @property
    def rows(self) -> Array:
        """0 to n - 1: each sample as a variant of itself."""
        return np.arange(len(self.values))

    def generator(self, sample: int) -> np.random.Generator:
        """The random numbers of one sample, the same on every call."""
        return np.random.default_rng(int(self.seeds[sample]))

    def units_of(self, sample: int) -> Array:
        """The units of one sample's elements."""
        return self.units if self.units.ndim == self.values.ndim - 1 else self.units[sample]
