"""Is the sum of a map what it explains?"""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.variants import judged, logits, own_maps


def completeness(case: Case, settings: Settings) -> Parts:
    """How far the sum of the map is from the target's score, and from its difference to that of the baseline.

    `score`: |sum - f(x)|, the conservation of LRP (Bach et al. 2015). `difference`: |sum - (f(x) - f(b))|,
    the completeness of Sundararajan et al. (2017, proposition 1), b the sample with every element at the case's
    baseline. quantus' Completeness is whether the latter is exactly 0, of maps that it divides by their maximum
    first.

    Args:
        settings: `relative` 1 divides by the absolute value of what the sum should be; NaN where that is 0.
    """
    sums = own_maps(case).reshape(len(case.values), -1).sum(axis=1)
    baseline = np.broadcast_to(case.baseline, case.values.shape).astype(case.values.dtype)
    items = (
        (row, np.stack([case.values[row], np.where(case.units_of(row) < 0, case.values[row], baseline[row])]))
        for row in map(int, case.rows)
    )
    scores = np.stack(list(judged(logits(case), items)))
    relative = bool(settings["relative"])
    return {
        "score": _error(sums, scores[:, 0], relative),
        "difference": _error(sums, scores[:, 0] - scores[:, 1], relative),
    }


def _error(found: Array, wanted: Array, relative: bool) -> Array:
    error = np.abs(found - wanted)
    if not relative:
        return np.asarray(error)
    return np.asarray(np.divide(error, np.abs(wanted), out=np.full_like(error, np.nan), where=wanted != 0))


register(
    Metric(
        "completeness",
        "How far is the sum of the map from the score, and from its difference to the baseline's?",
        "Bach et al. 2015, PLoS ONE 10(7); Sundararajan et al. 2017, ICML",
        {"score": "lower", "difference": "lower"},
        completeness,
        {"relative": 1},
        cost=3,
    )
)
