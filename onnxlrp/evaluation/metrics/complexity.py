"""How many units does a map need? All take the absolute relevance of units; a map of zeros has NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import units
from onnxlrp.evaluation.variants import own_maps


def _by_map(case: Case, measure: Callable[[Array], float]) -> Array:
    """A number for the absolute relevance of each sample's units, whose largest is 1."""
    found = []
    for unit, one in zip(units(case), own_maps(case), strict=True):
        size = np.abs(unit.sums(one))
        most = size.max(initial=0)
        found.append(measure(size / most) if most > 0 else np.nan)
    return np.asarray(found, np.float64)


def complexity(case: Case, settings: Settings) -> Parts:
    """The entropy of the shares that units have in the relevance, in nats (Bhatt et al. 2020).

    `relative` divides by the logarithm of the number of units: 1 for relevance that is spread evenly. quantus'
    Complexity takes single elements as units.
    """

    def entropy(size: Array) -> float:
        share = size[size > 0] / size.sum()
        return float(-(share * np.log(share)).sum())

    found = _by_map(case, entropy)
    most = np.asarray([np.log(unit.count) if unit.count > 1 else np.nan for unit in units(case)])
    return {"entropy": found, "relative": found / most}


def sparseness(case: Case, settings: Settings) -> Parts:
    """The Gini index of relevance (Chalasani et al. 2020): 0 where units are equal, nearly 1 where one has it all.

    quantus' Sparseness takes single elements as units and adds 1e-7 to each.
    """

    def gini(size: Array) -> float:
        ordered = np.sort(size)
        weights = 2 * np.arange(1, len(ordered) + 1) - len(ordered) - 1
        return float(weights @ ordered / (len(ordered) * ordered.sum()))

    return {"gini": _by_map(case, gini)}


def effective_complexity(case: Case, settings: Settings) -> Parts:
    """How many units have more than a given share of the largest relevance (after Nguyen and Martinez 2020).

    The paper looks for the smallest such number of features that determine the score; as in quantus, the threshold is
    given.

    Args:
        settings: `threshold`, in shares of the largest absolute relevance.
    """
    return {"units": _by_map(case, lambda size: float((size > settings["threshold"]).sum()))}


register(
    Metric(
        "complexity",
        "Over how many units is relevance spread?",
        "Bhatt et al. 2020, IJCAI",
        {"entropy": "lower", "relative": "lower"},
        complexity,
    )
)
register(
    Metric(
        "sparseness",
        "How unevenly is relevance shared between units?",
        "Chalasani et al. 2020, ICML",
        {"gini": "higher"},
        sparseness,
    )
)
register(
    Metric(
        "effective-complexity",
        "How many units have relevance to speak of?",
        "Nguyen and Martinez 2020, arXiv:2007.07584",
        {"units": "lower"},
        effective_complexity,
        {"threshold": 1e-5},
    )
)
