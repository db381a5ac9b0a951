"""Do samples with alike maps get the same prediction?"""

from __future__ import annotations

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import units
from onnxlrp.evaluation.variants import judged, own_maps

NAME = "neighbour-sufficiency"
GROUP = 16


def neighbour_sufficiency(case: Case, settings: Settings) -> Parts:
    """The share of the samples with an alike map that have the same predicted class (Dasgupta et al. 2022).

    Maps are compared within each 16 consecutive samples, by the absolute relevance of their units, the largest of each
    sample 1; the distance is the Euclidean one with each unit in units of its standard deviation. Maps are alike whose
    distance is at most `threshold` times the largest of the group. NaN for a sample without a neighbour, where
    quantus' Sufficiency, which is the same for elements as units and a batch as group, says 0.

    Args:
        settings: `threshold`, 0 to 1.

    Raises:
        UsageError: samples are not in groups of 16, or have different numbers of units.
    """
    if len(case.values) % GROUP:
        raise UsageError(f"the metric {NAME} needs samples in groups of {GROUP}, not {len(case.values)}")
    sizes = [np.abs(unit.sums(one)) for unit, one in zip(units(case), own_maps(case), strict=True)]
    if len({len(size) for size in sizes}) > 1:
        raise UsageError(f"the metric {NAME} compares maps of the same number of units: leave the metric out")
    relevance = np.stack([size / (size.max(initial=0) or 1) for size in sizes])
    whole = ((row, case.values[row : row + 1]) for row in case.rows)
    predicted = np.concatenate(list(judged(case.subject.scores, whole))).argmax(axis=1)
    shares = [
        _agreement(relevance[start : start + GROUP], predicted[start : start + GROUP], settings["threshold"])
        for start in range(0, len(relevance), GROUP)
    ]
    return {"agreement": np.concatenate(shares)}


def _agreement(relevance: Array, predicted: Array, threshold: float) -> Array:
    spread = relevance.std(axis=0, ddof=1)
    scaled = relevance[:, spread > 0] / spread[spread > 0]
    distance = np.stack([np.linalg.norm(scaled - one, axis=1) for one in scaled])
    alike = (distance <= threshold * distance.max()) & ~np.eye(len(distance), dtype=bool)
    same = alike & (predicted == predicted[:, None])
    counts = alike.sum(axis=1)
    return np.asarray(np.divide(same.sum(axis=1), counts, out=np.full(len(alike), np.nan), where=counts > 0))


register(
    Metric(
        NAME,
        "Do samples whose maps are alike have the same prediction?",
        "Dasgupta et al. 2022, ICML",
        {"agreement": "higher"},
        neighbour_sufficiency,
        {"threshold": 0.6},
        group=GROUP,
        cost=2,
    )
)
