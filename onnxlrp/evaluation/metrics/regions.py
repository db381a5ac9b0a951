"""Removing square regions of images, or segments, in the order of their relevance.

A region's relevance is the sum of the map over it. Images whose sides are no multiples of the region's have smaller
regions at the right and lower edge (quantus pads the image on both sides).
"""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import area, curves, squares
from onnxlrp.evaluation.variants import Judge, logits, own_maps, probabilities


def region_perturbation(case: Case, settings: Settings) -> Parts:
    """The area over the perturbation curve, AOPC (Samek et al. 2017).

    morf = the mean over k = 0 to L of f(sample) - f(sample without its k most relevant regions), lerf the same with
    the least relevant first; between = morf - lerf. quantus' RegionPerturbation returns the differences for k = 1 to L
    of one order, of softmax probabilities (setting `probability`).

    Args:
        settings: `size` of a region in pixels; `regions`: L, at most all of them; `noise` 1 fills regions with
            uniform noise within the sample's range (the paper), 0 with the baseline (quantus);
            `probability` 1 for softmax probabilities, 0 for logits.

    Raises:
        UsageError: the explained input is no image.
    """
    needs.image(case, "region-perturbation")
    most, least = (_region_curve(case, settings, sign) for sign in (1, -1))
    drops = {"morf": most[:, :1] - most, "lerf": least[:, :1] - least}
    means = {name: drop.mean(axis=1) for name, drop in drops.items()}
    return {**means, "between": means["morf"] - means["lerf"]}


def _region_curve(case: Case, settings: Settings, sign: int) -> Array:
    of = squares(case, int(settings["size"]))
    relevance = [sign * unit.sums(one) for unit, one in zip(of, own_maps(case), strict=True)]
    most = int(settings["regions"])
    return curves(
        case,
        of,
        relevance,
        _score(case, settings),
        lambda count: np.arange(min(most, count) + 1),
        (lambda row: _noise(case, row)) if settings["noise"] else None,
    )


def _noise(case: Case, row: int) -> Array:
    value: Array = case.values[row]
    return np.asarray(case.generator(row).uniform(value.min(), value.max(), value.shape))


def selectivity(case: Case, settings: Settings) -> Parts:
    """The area under the score while the most relevant regions are removed, one after another (Montavon et al. 2018).

    Over k = 0 to all regions, in shares of them. quantus' Selectivity returns the curve for k = 1 on, of softmax
    probabilities (setting `probability`).

    Args:
        settings: `size` of a region in pixels; `probability` 1 for softmax probabilities, 0 for logits.

    Raises:
        UsageError: the explained input is no image.
    """
    needs.image(case, "selectivity")
    return {"area": area(_all_regions(case, settings, _score(case, settings)))}


def irof(case: Case, settings: Settings) -> Parts:
    """Iterative removal of features: 1 - the area under p(sample without k regions) / p(sample) (Rieger, Hansen 2020).

    p is the softmax probability of the target. Regions are squares, ordered by their mean relevance. The paper (and
    quantus) segments images into superpixels, which takes an image library, and quantus sums from k = 1 on instead of
    taking the mean.

    Args:
        settings: `size` of a region in pixels.

    Raises:
        UsageError: the explained input is no image.
    """
    needs.image(case, "irof")
    curve = _all_regions(case, settings, probabilities(case), mean=True)
    return {"area-over": 1 - area(curve / curve[:, :1])}


def _all_regions(case: Case, settings: Settings, judge: Judge, mean: bool = False) -> Array:
    of = squares(case, int(settings["size"]))
    whole = np.ones(case.values.shape[1:])
    relevance = [
        unit.sums(one) / (unit.sums(whole) if mean else 1) for unit, one in zip(of, own_maps(case), strict=True)
    ]
    return curves(case, of, relevance, judge, lambda count: np.arange(count + 1))


def _score(case: Case, settings: Settings) -> Judge:
    return probabilities(case) if settings["probability"] else logits(case)


register(
    Metric(
        "region-perturbation",
        "How much does the score fall when regions are disturbed, the most or the least relevant first?",
        "Samek et al. 2017, IEEE TNNLS 28(11)",
        {"morf": "higher", "lerf": "lower", "between": "higher"},
        region_perturbation,
        {"size": 8, "regions": 100, "noise": 0, "probability": 0},
        needs=("image",),
        cost=203,
    )
)
register(
    Metric(
        "selectivity",
        "How fast does the score fall when the most relevant regions are removed?",
        "Montavon et al. 2018, Digital Signal Processing 73",
        {"area": "lower"},
        selectivity,
        {"size": 16, "probability": 0},
        needs=("image",),
        cost=200,
    )
)
register(
    Metric(
        "irof",
        "How much of the probability goes when the most relevant regions are removed, in shares of what it was?",
        "Rieger and Hansen 2020, arXiv:2003.08747",
        {"area-over": "higher"},
        irof,
        {"size": 16},
        needs=("image",),
        cost=200,
    )
)
