"""Does a map predict what the score loses with a random subset of the units?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import Units, units, without
from onnxlrp.evaluation.similarity import pearson
from onnxlrp.evaluation.variants import judged, logits, own_maps, probabilities


def subsets(case: Case, row: int, unit: Units, settings: Settings) -> Array:
    """Random subsets of a sample's units, bool [runs, count].

    Each has the setting's `share` of the units, at least one; or, for a share of 0, a number of them drawn uniformly
    from 1 to all.
    """
    generator = case.generator(row)
    runs, share = int(settings["runs"]), settings["share"]
    most = max(1, unit.count)
    sizes = generator.integers(1, most + 1, runs) if share == 0 else np.full(runs, max(1, round(share * unit.count)))
    order = generator.permuted(np.tile(np.arange(unit.count), (runs, 1)), axis=1)
    return np.asarray(order < sizes[:, None])


def losses(case: Case, gone: Sequence[Array], of: Sequence[Units], settings: Settings) -> tuple[Array, Array]:
    """What the map says that the score loses, and what it loses, [n, runs] each.

    Args:
        gone: for each sample the units that are taken away, bool [runs, count].
        settings: `multiply` and `probability`, as for `infidelity`.
    """
    score = probabilities(case) if settings["probability"] else logits(case)
    maps = own_maps(case)
    if settings["multiply"]:
        needs.continuous(case, "infidelity or correlation of maps to be multiplied")
        maps = maps * (case.values - np.broadcast_to(case.baseline, case.values.shape))
    predicted = [mask @ unit.sums(one) for mask, unit, one in zip(gone, of, maps, strict=True)]
    items = (
        (row, np.concatenate([case.values[row : row + 1], without(case, row, of[row], gone[row])]))
        for row in map(int, case.rows)
    )
    scores = np.stack(list(judged(score, items)))
    return np.stack(predicted), scores[:, :1] - scores[:, 1:]


def infidelity(case: Case, settings: Settings) -> Parts:
    """The mean square of what the map says that the score loses less what it loses (Yeh et al. 2019, definition 2.1).

    Random subsets of the units become the baseline. `scaled` is the least that any factor on the map would
    give, divided by the mean square of the loss: 0 to 1, for maps that have no scale. quantus' Infidelity removes
    squares one after another and keeps them away, and takes maps to be gradients (`multiply`).

    Args:
        settings: `runs`: subsets per sample; `share` of the units in each, 0 for a random number; `multiply` 1
            for maps that are gradients: the map times the change of the input is what it predicts, not the sum of
            relevance; `probability` 1 for softmax probabilities, 0 for logits.
    """
    of = units(case)
    gone = [subsets(case, row, of[row], settings) for row in map(int, case.rows)]
    predicted, lost = losses(case, gone, of, settings)
    power, size = (predicted * lost).mean(axis=1), (predicted**2).mean(axis=1)
    factor = np.divide(power, size, out=np.zeros_like(power), where=size > 0)
    least = ((factor[:, None] * predicted - lost) ** 2).mean(axis=1)
    whole = (lost**2).mean(axis=1)
    scaled = np.divide(least, whole, out=np.full_like(least, np.nan), where=whole > 0)
    return {"infidelity": ((predicted - lost) ** 2).mean(axis=1), "scaled": scaled}


def faithfulness_correlation(case: Case, settings: Settings) -> Parts:
    """Pearson's correlation of what the map says that the score loses and what it loses (Bhatt et al. 2020).

    Random subsets of the units become the baseline. quantus' FaithfulnessCorrelation is the same for single
    elements as units.

    Args:
        settings: `runs`, `share`, `multiply` and `probability` as for `infidelity`.
    """
    of = units(case)
    gone = [subsets(case, row, of[row], settings) for row in map(int, case.rows)]
    return {"correlation": pearson(*losses(case, gone, of, settings))}


_SETTINGS: Settings = {"runs": 50, "share": 0.2, "multiply": 0, "probability": 0}

register(
    Metric(
        "infidelity",
        "How far is what the map predicts for a random subset from what the score loses with it?",
        "Yeh et al. 2019, NeurIPS",
        {"infidelity": "lower", "scaled": "lower"},
        infidelity,
        _SETTINGS,
        cost=52,
    )
)
register(
    Metric(
        "faithfulness-correlation",
        "Does the score lose more with a random subset when the map says so?",
        "Bhatt et al. 2020, IJCAI",
        {"correlation": "higher"},
        faithfulness_correlation,
        _SETTINGS,
        cost=52,
    )
)
