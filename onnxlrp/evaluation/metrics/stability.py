"""How much does a map change when the sample hardly does?

Samples are disturbed by uniform noise on all their elements but those that the case never takes away. Maps are those of
the case's target, before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.variants import Variants, judged, maps

#: Agarwal et al. divide by relevance and inputs; what is 0 counts as this. So does a change of nothing.
_LEAST = 1e-6


@dataclass(frozen=True)
class _Disturbed:
    """A sample and its map in the first row, its disturbed variants and their maps in the others; flat, [1 + runs, ...]
    each."""

    values: Array
    maps: Array


def noise(case: Case, row: int, settings: Settings) -> Array:
    """What is added to a sample, [runs, ...]: uniform from -radius to radius, in units of the standard deviation of the
    sample's elements unless `relative` is 0."""
    values = case.values[row]
    span = settings["radius"] * (values.std() if settings["relative"] else 1)
    added = case.generator(row).uniform(-span, span, (int(settings["runs"]), *values.shape))
    return np.where(case.units_of(row) < 0, 0, added)


def _variants(case: Case, settings: Settings) -> Iterator[Variants]:
    for row in map(int, case.rows):
        added = noise(case, row, settings)
        whole = case.values[row : row + 1]
        yield row, np.concatenate([whole, whole + added]).astype(case.values.dtype)


def _disturbed(case: Case, settings: Settings, metric: str) -> Iterator[_Disturbed]:
    needs.continuous(case, metric)
    answers = judged(maps(case), _variants(case, settings))
    for (_, values), answer in zip(_variants(case, settings), answers, strict=True):
        yield _Disturbed(values.reshape(len(values), -1).astype(np.float64), answer.reshape(len(answer), -1))


def sensitivity(case: Case, settings: Settings) -> Parts:
    """The largest and the mean change of the map by the size of the map, in Euclidean norms (Yeh et al. 2019,
    definition 3.1; Bhatt et al. 2020).

    NaN for a map of zeros. quantus' MaxSensitivity and AvgSensitivity take noise of fixed size (`relative` 0).

    Args:
        settings: `runs`: disturbed variants per sample; `radius` of the noise; `relative` 1 for a radius in units
            of the standard deviation of the sample's elements.

    Raises:
        UsageError: the explained input holds token ids.
    """
    shares = []
    for one in _disturbed(case, settings, "sensitivity"):
        size = np.linalg.norm(one.maps[0])
        change = np.linalg.norm(one.maps[1:] - one.maps[0], axis=1)
        shares.append(change / size if size > 0 else np.full(len(change), np.nan))
    return {"maximum": np.max(shares, axis=1), "average": np.mean(shares, axis=1)}


def local_lipschitz(case: Case, settings: Settings) -> Parts:
    """The largest change of the map by the change of the sample, Euclidean norms (Alvarez-Melis and Jaakkola 2018).

    Maps are divided by their largest absolute value first, as they have other scales from method to method. quantus'
    LocalLipschitzEstimate takes normal noise of fixed size.

    Args:
        settings: `runs`, `radius` and `relative` as for `sensitivity`; `normalise` 0 leaves maps as they are.

    Raises:
        UsageError: the explained input holds token ids.
    """
    constants = []
    for one in _disturbed(case, settings, "local-lipschitz"):
        every = _by_largest(one.maps) if settings["normalise"] else one.maps
        change = np.linalg.norm(every[1:] - every[0], axis=1)
        moved = np.linalg.norm(one.values[1:] - one.values[0], axis=1)
        constants.append(np.max(np.divide(change, moved, out=np.full_like(change, np.nan), where=moved > 0)))
    return {"constant": np.asarray(constants)}


def relative_stability(case: Case, settings: Settings) -> Parts:
    """Relative input and output stability: the largest relative change of the map by that of the sample, or by the
    change of the scores (Agarwal et al. 2022).

    |(a - a') / a| / |(x - x') / x| and |(a - a') / a| / |f(x) - f(x')|, Euclidean norms, quotients element by element.
    A divisor of 0 counts as 1e-6. Variants with another prediction are left out; where all are, the sample has
    NaN (quantus: where one is).

    Args:
        settings: `runs`, `radius` and `relative` as for `sensitivity`.

    Raises:
        UsageError: the explained input holds token ids.
    """
    needs.continuous(case, "relative-stability")
    scores = judged(case.subject.scores, _variants(case, settings))
    found = []
    for one, score in zip(_disturbed(case, settings, "relative-stability"), scores, strict=True):
        same = score[1:].argmax(axis=1) == score[0].argmax()
        by_map = _relative(one.maps)
        by_input = by_map / _not_zero(_relative(one.values))
        by_output = by_map / _not_zero(np.linalg.norm(score[1:] - score[0], axis=1))
        found.append([np.max(part[same], initial=-np.inf) if same.any() else np.nan for part in (by_input, by_output)])
    return dict(zip(("input", "output"), np.asarray(found, np.float64).reshape(-1, 2).T, strict=True))


def _relative(rows: Array) -> Array:
    """How far each row but the first is from the first, element by element in shares of it."""
    return np.asarray(np.linalg.norm((rows[1:] - rows[0]) / _not_zero(rows[0]), axis=1))


def _by_largest(rows: Array) -> Array:
    """Each row in shares of its largest absolute value."""
    most = np.abs(rows).max(axis=1, keepdims=True)
    return np.asarray(np.divide(rows, most, out=np.zeros_like(rows), where=most > 0))


def _not_zero(numbers: Array) -> Array:
    return np.where(numbers == 0, _LEAST, numbers)


_SETTINGS: Settings = {"runs": 10, "radius": 0.1, "relative": 1}

register(
    Metric(
        "sensitivity",
        "How much of the map changes, at most and on average, when the sample is disturbed a little?",
        "Yeh et al. 2019, NeurIPS; Bhatt et al. 2020, IJCAI",
        {"maximum": "lower", "average": "lower"},
        sensitivity,
        _SETTINGS,
        needs=("continuous",),
        cost=11,
    )
)
register(
    Metric(
        "local-lipschitz",
        "How much does the map change at most, by how much the sample does?",
        "Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049",
        {"constant": "lower"},
        local_lipschitz,
        {**_SETTINGS, "normalise": 1},
        needs=("continuous",),
        cost=11,
    )
)
register(
    Metric(
        "relative-stability",
        "How much does the map change at most, by how much the sample or the scores do, relative to what they were?",
        "Agarwal et al. 2022, arXiv:2203.06877",
        {"input": "lower", "output": "lower"},
        relative_stability,
        _SETTINGS,
        needs=("continuous",),
        cost=22,
    )
)
