"""Does a map change when it explains another model, or another class?"""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.removal import Units, units
from onnxlrp.evaluation.similarity import spearman, structural_similarity
from onnxlrp.evaluation.variants import Judge, judged, own_maps


def parameter_randomisation(case: Case, settings: Settings) -> Parts:
    """The model parameter randomisation test (Adebayo et al. 2018): is the map of the model like that of a model whose
    last layers have permuted parameters?

    Layers are randomised from the output back, in `steps` depths from one layer to all of them. `correlation` is
    Spearman's of the units' relevance, `ssim` the structural similarity of the maps (images only, the sum over
    their channels), means over the depths; `-all` those with all layers randomised; `correlation-curve` over the
    depths, from no layer on. Maps that are constant have no correlation and are left out. quantus' MPRT draws new
    parameters, counts normalisations as layers, compares absolute values of single elements (`absolute`) and goes
    through every layer.

    Args:
        settings: `steps`: how many depths, 1 for all layers at once; `absolute` 1 compares absolute relevance; `seed`
            of the permutations, the same for all samples.

    Raises:
        UsageError: the model has no weighted layers.
    """
    depths = _depths(case, "parameter-randomisation", int(settings["steps"]))
    own, of = own_maps(case), units(case)
    correlations, similarities = [], []
    for depth in depths:
        others = _maps_of_randomised(case, depth, int(settings["seed"]))
        one, two = (_signed(maps, settings) for maps in (own, others))
        correlations.append(_correlation(of, one, two))
        similarities.append(_similarity(one, two))
    by_rank, by_structure = np.stack(correlations, axis=1), np.stack(similarities, axis=1)
    start = np.where(np.isnan(by_rank[:, :1]), np.nan, 1)
    return {
        "correlation": _mean(by_rank),
        "correlation-all": by_rank[:, -1],
        "ssim": _mean(by_structure),
        "ssim-all": by_structure[:, -1],
        "correlation-curve": np.concatenate([start, by_rank], axis=1),
    }


def efficient_randomisation(case: Case, settings: Settings) -> Parts:
    """The efficient test (eMPRT, Hedström et al. 2023): how much more complex is the map of a model with all parameters
    permuted than that of the model, in shares of the latter?

    The complexity of a map is the entropy, in nats, of the histogram of its units' relevance in `bins` equal bins.

    Args:
        settings: `bins` of the histogram; `seed` of the permutations, the same for all samples.

    Raises:
        UsageError: the model has no weighted layers.
    """
    layers = needs.layers(case, "efficient-randomisation")
    others = _maps_of_randomised(case, layers, int(settings["seed"]))
    of, bins = units(case), int(settings["bins"])
    before, after = (
        np.asarray([_entropy(unit.sums(one), bins) for unit, one in zip(of, every, strict=True)])
        for every in (own_maps(case), others)
    )
    return {"rise": np.divide(after - before, before, out=np.full_like(before, np.nan), where=before > 0)}


def random_logit(case: Case, settings: Settings) -> Parts:
    """The random logit test (Sixt et al. 2020): is the map of the target like that of another class, drawn at random?

    `correlation` is Spearman's of the units' relevance, `ssim` the structural similarity of the maps (images only,
    the sum over their channels). quantus' RandomLogit takes the SSIM of flattened maps.

    Args:
        settings: `absolute` 1 compares absolute relevance.
    """
    whole = ((row, case.values[row : row + 1]) for row in case.rows)
    classes = [answer.shape[1] for answer in judged(case.subject.scores, whole)]
    other = np.asarray([other_class(case, row, classes[row]) for row in map(int, case.rows)])
    of_other: Judge = lambda values, rows: case.method.maps(values, other[rows], rows)  # noqa: E731
    one, two = (_signed(every, settings) for every in (own_maps(case), _answers(case, of_other)))
    return {"correlation": _correlation(units(case), one, two), "ssim": _similarity(one, two)}


def other_class(case: Case, row: int, classes: int) -> int:
    """A class at random that is not the target; the target where it is the only one."""
    if classes < 2:
        return int(case.targets[row])
    drawn = int(case.generator(row).integers(classes - 1))
    return drawn + int(drawn >= case.targets[row])


def _depths(case: Case, metric: str, steps: int) -> list[int]:
    """How many layers are randomised, from one to all."""
    layers = needs.layers(case, metric)
    spread = np.linspace(1, layers, steps) if steps > 1 else np.asarray([layers])
    return [int(depth) for depth in np.unique(np.rint(spread))]


def _maps_of_randomised(case: Case, layers: int, seed: int) -> Array:
    method = case.make(case.subject.randomised(layers, seed))
    return _answers(case, lambda values, rows: method.maps(values, case.targets[rows], rows))


def _answers(case: Case, judge: Judge) -> Array:
    return np.concatenate(list(judged(judge, ((row, case.values[row : row + 1]) for row in case.rows))))


def _signed(every: Array, settings: Settings) -> Array:
    return np.abs(every) if settings["absolute"] else every


def _correlation(of: list[Units], one: Array, two: Array) -> Array:
    return np.asarray([float(spearman(u.sums(a), u.sums(b))) for u, a, b in zip(of, one, two, strict=True)])


def _similarity(one: Array, two: Array) -> Array:
    if one.ndim != 4:
        return np.full(len(one), np.nan)
    return structural_similarity(one.sum(axis=1), two.sum(axis=1))


def _mean(numbers: Array) -> Array:
    """Over the last axis, without NaN; NaN where there is nothing else."""
    known = ~np.isnan(numbers)
    total = np.where(known, numbers, 0).sum(axis=-1)
    mean = np.divide(total, known.sum(axis=-1), out=np.full(len(numbers), np.nan), where=known.any(axis=-1))
    return np.asarray(mean)


def _entropy(relevance: Array, bins: int) -> float:
    counts = np.histogram(relevance, bins)[0]
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


register(
    Metric(
        "parameter-randomisation",
        "Does the map change when the model's parameters are permuted, layer by layer from the output back?",
        "Adebayo et al. 2018, NeurIPS",
        {"correlation": "lower", "correlation-all": "lower", "ssim": "lower", "ssim-all": "lower"},
        parameter_randomisation,
        {"steps": 4, "absolute": 0, "seed": 0},
        needs=("layers",),
        cost=5,
    )
)
register(
    Metric(
        "efficient-randomisation",
        "How much more complex is the map when all parameters of the model are permuted?",
        "Hedström et al. 2023, arXiv:2401.06465",
        {"rise": "higher"},
        efficient_randomisation,
        {"bins": 100, "seed": 0},
        needs=("layers",),
        cost=2,
    )
)
register(
    Metric(
        "random-logit",
        "Does the map of the target differ from that of another class?",
        "Sixt et al. 2020, ICML",
        {"correlation": "lower", "ssim": "lower"},
        random_logit,
        {"absolute": 0},
        cost=3,
    )
)
