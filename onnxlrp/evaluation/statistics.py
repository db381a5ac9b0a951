"""What many samples say together: means, medians, bootstrap intervals and paired differences of two methods.

NaN (a sample that cannot be judged) is left out everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlrp.evaluation.case import Array

#: Resamples are drawn in parts of about so many numbers.
_AT_ONCE = 2**20


@dataclass(frozen=True)
class Summary:
    """Numbers of several samples in short; all NaN where there is none.

    Attributes:
        count: how many samples could be judged.
        mean, median: of these.
        low, high: the bounds of the confidence interval of the mean.
    """

    count: int
    mean: float
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One method less another on the same samples.

    Attributes:
        of: the differences in short; the interval is that of their mean.
        share: of the samples in which the first has the larger number, ties as half.
    """

    of: Summary
    share: float


def summary(numbers: Array, seed: int = 0, confidence: float = 0.95, resamples: int = 2000) -> Summary:
    """Mean, median and the percentile bootstrap interval of the mean (Efron and Tibshirani 1993).

    Args:
        numbers: [n].
        seed: of the resampling; the same numbers and seed give the same interval.
        confidence: 0 to 1, the share of the resampled means between the bounds.
        resamples: how many there are.
    """
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return Summary(0, *[float("nan")] * 4)
    means = _resampled_means(known, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Summary(len(known), float(known.mean()), float(np.median(known)), float(low), float(high))


def difference(one: Array, other: Array, seed: int = 0, confidence: float = 0.95, resamples: int = 2000) -> Difference:
    """The paired differences `one` - `other`, [n] each; samples that both methods could be judged on.

    An interval that does not hold 0 says that the methods differ, at the given confidence.
    """
    differences = one - other
    known = differences[~np.isnan(differences)]
    share = float(((known > 0) + (known == 0) / 2).mean()) if known.size else float("nan")
    return Difference(summary(differences, seed, confidence, resamples), share)


def _resampled_means(numbers: Array, generator: np.random.Generator, resamples: int) -> Array:
    """The means of samples drawn with replacement, each as large as the original, [resamples]."""
    per_part = max(1, _AT_ONCE // len(numbers))
    means = []
    for start in range(0, resamples, per_part):
        drawn = generator.integers(len(numbers), size=(min(per_part, resamples - start), len(numbers)))
        means.append(numbers[drawn].mean(axis=1))
    return np.concatenate(means)
