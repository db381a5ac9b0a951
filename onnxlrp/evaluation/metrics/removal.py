"""What the score becomes while units are taken away in the order of their relevance.

A unit's relevance is the sum of the map over its elements, with its sign. Units of equal relevance go in the order of
their numbers.
"""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import Units, area, curves, equal_steps, units, without
from onnxlrp.evaluation.smoothing import blurred
from onnxlrp.evaluation.variants import Judge, judged, logits, logits_and_probabilities, own_maps, probabilities

#: The shares of the units that are removed or kept for sufficiency and comprehensiveness (DeYoung et al. 2020).
_BINS = np.asarray([0.01, 0.05, 0.1, 0.2, 0.5])


def _relevance(case: Case) -> tuple[list[Units], list[Array]]:
    of = units(case)
    return of, [unit.sums(one) for unit, one in zip(of, own_maps(case), strict=True)]


def _negated(relevance: list[Array]) -> list[Array]:
    return [-one for one in relevance]


def _score(case: Case, settings: Settings) -> Judge:
    return probabilities(case) if settings["probability"] else logits(case)


def pixel_flipping(case: Case, settings: Settings) -> Parts:
    """Pixel flipping (Bach et al. 2015) with the most and the least relevant units first (Samek et al. 2017).

    Units become the baseline. `morf` and `lerf` are the areas under the target's score from nothing to
    everything removed; `between` = lerf - morf. The curves come with them. quantus' PixelFlipping starts its
    curve after the first step, takes softmax probabilities (setting `probability`) and single elements as units.

    Args:
        settings: `steps` in which all units are removed; `probability` 1 for softmax probabilities, 0 for logits.
    """
    of, relevance = _relevance(case)
    judge, counts = _score(case, settings), equal_steps(int(settings["steps"]))
    most = curves(case, of, relevance, judge, counts)
    least = curves(case, of, _negated(relevance), judge, counts)
    areas = {"morf": area(most), "lerf": area(least), "between": area(least) - area(most)}
    return {**areas, "morf-curve": most, "lerf-curve": least}


def deletion(case: Case, settings: Settings) -> Parts:
    """The area under the score while the most relevant units are deleted (Petsiuk et al. 2018).

    Units become the baseline. The paper's is the area under the softmax probability; that under the logit
    does not saturate.

    Args:
        settings: `steps` in which all units are deleted.
    """
    of, relevance = _relevance(case)
    curve = curves(case, of, relevance, logits_and_probabilities(case), equal_steps(int(settings["steps"])))
    return _by_score(curve)


def insertion(case: Case, settings: Settings) -> Parts:
    """The area under the score while the most relevant units are inserted into an empty sample (Petsiuk et al. 2018).

    The empty sample is the baseline or, as in the paper, a blurred image. With the baseline it is the
    area for the least relevant first of `pixel-flipping`. The curves run from everything inserted to nothing.

    Args:
        settings: `steps` in which all units are inserted; `blur`: the standard deviation in pixels of the Gaussian
            that blurs the image, 0 for the baseline (the paper: 5).

    Raises:
        UsageError: `blur` for an input that is no image.
    """
    width = settings["blur"]
    if width > 0:
        needs.image(case, "insertion with blur")
    of, relevance = _relevance(case)
    curve = curves(
        case,
        of,
        _negated(relevance),
        logits_and_probabilities(case),
        equal_steps(int(settings["steps"])),
        (lambda row: blurred(case.values[row], width)) if width > 0 else None,
    )
    return _by_score(curve)


def _by_score(curve: Array) -> Parts:
    """Areas and curves of logits and probabilities, [n, points, 2]."""
    areas = area(curve)
    return {
        "logit": areas[:, 0],
        "probability": areas[:, 1],
        "logit-curve": curve[..., 0],
        "probability-curve": curve[..., 1],
    }


def sufficiency(case: Case, settings: Settings) -> Parts:
    """Sufficiency and comprehensiveness (DeYoung et al. 2020, ERASER), means over 1, 5, 10, 20 and 50 % of the units.

    sufficiency = p(sample) - p(its most relevant units alone), comprehensiveness = p(sample) - p(without them), p
    the softmax probability of the target; at least one unit is taken. quantus' Sufficiency is another quantity:
    `neighbour-sufficiency`.
    """
    of, relevance = _relevance(case)

    def counts(count: int) -> Array:
        return np.concatenate([[0], np.ceil(_BINS * count)]).astype(np.int64)

    gone = curves(case, of, relevance, probabilities(case), counts)
    # Without all but the most relevant: the least relevant are taken away first.
    alone = curves(case, of, _negated(relevance), probabilities(case), lambda count: count - counts(count))
    whole = gone[:, :1]
    return {"sufficiency": (whole - alone[:, 1:]).mean(axis=1), "comprehensiveness": (whole - gone[:, 1:]).mean(axis=1)}


def monotonicity(case: Case, settings: Settings) -> Parts:
    """Does each addition raise the score, the least relevant units first (Luss et al. 2019, Arya et al. 2019)?

    Starts from the baseline. `share` is the share of steps in which the target's score does not fall, `monotone` 1
    where it never does. quantus 0.6.0 removes units from a sample that is empty already, so its Monotonicity is
    true of every map.

    Args:
        settings: `steps` in which all units are added; `probability` 1 for softmax probabilities, 0 for logits.
    """
    of, relevance = _relevance(case)
    counts = equal_steps(int(settings["steps"]))
    items = []
    for row, (unit, own) in enumerate(zip(of, relevance, strict=True)):
        order = np.empty(unit.count, np.int64)
        order[np.argsort(own, kind="stable")] = np.arange(unit.count)
        items.append((row, without(case, row, unit, order >= np.unique(counts(unit.count))[:, None])))
    rises = [np.diff(scores) >= 0 for scores in judged(_score(case, settings), items)]
    share = np.asarray([step.mean() if step.size else np.nan for step in rises])
    return {"share": share, "monotone": np.where(np.isnan(share), np.nan, share == 1)}


register(
    Metric(
        "pixel-flipping",
        "How fast does the score fall when the most relevant units go first, how slowly when the least relevant do?",
        "Bach et al. 2015, PLoS ONE 10(7); Samek et al. 2017, IEEE TNNLS 28(11)",
        {"morf": "lower", "lerf": "higher", "between": "higher"},
        pixel_flipping,
        {"steps": 20, "probability": 0},
        cost=43,
    )
)
register(
    Metric(
        "deletion",
        "How fast does the score fall when the most relevant units are deleted?",
        "Petsiuk et al. 2018, RISE, BMVC",
        {"logit": "lower", "probability": "lower"},
        deletion,
        {"steps": 20},
        cost=22,
    )
)
register(
    Metric(
        "insertion",
        "How fast does the score rise when the most relevant units are put into an empty sample?",
        "Petsiuk et al. 2018, RISE, BMVC",
        {"logit": "higher", "probability": "higher"},
        insertion,
        {"steps": 20, "blur": 0},
        cost=22,
    )
)
register(
    Metric(
        "sufficiency",
        "Do the most relevant units alone give the prediction, and does it need them?",
        "DeYoung et al. 2020, ERASER, ACL",
        {"sufficiency": "lower", "comprehensiveness": "higher"},
        sufficiency,
        cost=13,
    )
)
register(
    Metric(
        "monotonicity",
        "Does the score rise with each unit that is added, the least relevant first?",
        "Luss et al. 2019, arXiv:1905.12698; Arya et al. 2019, arXiv:1909.03012",
        {"share": "higher", "monotone": "higher"},
        monotonicity,
        {"steps": 20, "probability": 0},
        cost=22,
    )
)
