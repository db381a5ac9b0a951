"""Does relevance lie where a person has marked the object?

A unit is marked where at least half of its elements are. Samples without a marked unit have NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import units
from onnxlrp.evaluation.similarity import ranks
from onnxlrp.evaluation.variants import own_maps


def _by_map(
    case: Case, settings: Settings, metric: str, measure: Callable[[Array, Array], float], signed: bool = False
) -> Array:
    """A number for the relevance and the marks of each sample's units."""
    marked = needs.marked(case, metric)
    found = []
    for unit, one, mark in zip(units(case), own_maps(case), marked, strict=True):
        relevance = unit.sums(one)
        if settings["absolute"]:
            relevance = np.abs(relevance)
        elif not signed:
            relevance = np.maximum(relevance, 0)
        share = unit.sums(mark.astype(np.float64)) / unit.sums(np.ones(mark.shape))
        found.append(measure(relevance, share >= 0.5) if np.any(share >= 0.5) else np.nan)
    return np.asarray(found, np.float64)


def pointing_game(case: Case, settings: Settings) -> Parts:
    """1 where the most relevant unit is marked, else 0 (Zhang et al. 2018).

    One of several most relevant units suffices. The paper lets the point be 15 pixels beside the object; here it must
    be inside. NaN for a map without relevance.

    Args:
        settings: `absolute` 1 takes the absolute value of a unit's relevance, 0 what is positive of it.
    """

    def hit(relevance: Array, marked: Array) -> float:
        most = relevance.max()
        return float(np.any(marked & (relevance == most))) if most > 0 else np.nan

    return {"hit": _by_map(case, settings, "pointing-game", hit)}


def relevance_mass(case: Case, settings: Settings) -> Parts:
    """The share of the relevance that lies on the marked units (Arras et al. 2022).

    quantus' RelevanceMassAccuracy takes the absolute values of single elements (`absolute`).

    Args:
        settings: `absolute` 1 takes the absolute value of a unit's relevance, 0 what is positive of it.
    """

    def share(relevance: Array, marked: Array) -> float:
        whole = relevance.sum()
        return float(relevance[marked].sum() / whole) if whole > 0 else np.nan

    return {"accuracy": _by_map(case, settings, "relevance-mass", share)}


def relevance_rank(case: Case, settings: Settings) -> Parts:
    """The share of the K most relevant units that are marked, K units being marked (Arras et al. 2022).

    quantus' RelevanceRankAccuracy takes the absolute values of single elements (`absolute`).

    Args:
        settings: `absolute` 1 ranks units by the absolute value of their relevance, 0 by their signed relevance.
    """

    def share(relevance: Array, marked: Array) -> float:
        return _of_most_relevant(relevance, marked, int(marked.sum()))

    return {"accuracy": _by_map(case, settings, "relevance-rank", share, signed=True)}


def top_k_intersection(case: Case, settings: Settings) -> Parts:
    """The share of the k most relevant units that are marked (Theiner et al. 2022).

    `weighted` divides it by the share of all units that are marked: 1 for relevance at random (quantus: concept
    influence).

    Args:
        settings: `share`: k in shares of all units; `k`: their number instead, if it is not 0; `absolute` 1 ranks
            units by the absolute value of their relevance, 0 by their signed relevance.
    """

    def share(relevance: Array, marked: Array) -> float:
        most = int(settings["k"]) or round(settings["share"] * len(relevance))
        return _of_most_relevant(relevance, marked, min(max(most, 1), len(relevance)))

    def weighted(relevance: Array, marked: Array) -> float:
        return share(relevance, marked) / float(marked.mean())

    return {
        name: _by_map(case, settings, "top-k-intersection", measure, signed=True)
        for name, measure in (("share", share), ("weighted", weighted))
    }


def localisation_auc(case: Case, settings: Settings) -> Parts:
    """The area under the ROC curve of relevance as a detector of marked units; NaN where all or none are marked.

    Pairs of equal relevance count half.

    Args:
        settings: `absolute` 1 ranks units by the absolute value of their relevance, 0 by their signed relevance.
    """

    def under(relevance: Array, marked: Array) -> float:
        inside, outside = int(marked.sum()), int((~marked).sum())
        if not outside:
            return np.nan
        return float((ranks(relevance)[marked].sum() - inside * (inside - 1) / 2) / (inside * outside))

    return {"auc": _by_map(case, settings, "localisation-auc", under, signed=True)}


def _of_most_relevant(relevance: Array, marked: Array, count: int) -> float:
    return float(marked[np.argsort(-relevance, kind="stable")[:count]].mean())


_SETTINGS: Settings = {"absolute": 0}
_ARRAS = "Arras et al. 2022, Information Fusion 81"

register(
    Metric(
        "pointing-game",
        "Is the most relevant unit on the object?",
        "Zhang et al. 2018, IJCV 126",
        {"hit": "higher"},
        pointing_game,
        _SETTINGS,
        needs=("marked",),
    )
)
register(
    Metric(
        "relevance-mass",
        "Which share of the relevance is on the object?",
        _ARRAS,
        {"accuracy": "higher"},
        relevance_mass,
        _SETTINGS,
        needs=("marked",),
    )
)
register(
    Metric(
        "relevance-rank",
        "Of as many most relevant units as the object has, which share is on it?",
        _ARRAS,
        {"accuracy": "higher"},
        relevance_rank,
        _SETTINGS,
        needs=("marked",),
    )
)
register(
    Metric(
        "top-k-intersection",
        "Of a number of most relevant units, which share is on the object?",
        "Theiner et al. 2022, WACV",
        {"share": "higher", "weighted": "higher"},
        top_k_intersection,
        {"k": 0, "share": 0.05, **_SETTINGS},
        needs=("marked",),
        cost=2,
    )
)
register(
    Metric(
        "localisation-auc",
        "How well does relevance tell the object's units from the others?",
        "Fawcett 2006, Pattern Recognition Letters 27(8)",
        {"auc": "higher"},
        localisation_auc,
        _SETTINGS,
        needs=("marked",),
    )
)
