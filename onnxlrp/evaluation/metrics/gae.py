"""Global Attribution Evaluation: faithfulness, robustness and contrastiveness of an attribution in one number.

Source: Vukadin, Afrić, Šilić and Delač, "Advancing attribution-based neural network explainability through relative
absolute magnitude layer-wise relevance propagation and multi-component evaluation", ACM TIST 15(3), article 47
(arXiv 2412.09311), in the form of the authors' released code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation import needs
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.registry import Metric, Parts, Settings, register
from onnxlrp.evaluation.variants import Variants, judged, softmax

NAME = "gae"
GROUP = 4
STEPS = 10
_EPSILON = 1e-9
#: The fractions of the elements that are masked between one state and the next.
_FRACTIONS = np.linspace(0.1, 1.0, STEPS)


@dataclass(frozen=True)
class _Mosaic:
    """Four samples in one picture, and the one of them that is explained.

    start: the place of the first of the four in the batch.
    picture: the mosaic, in the shape of one sample.
    positive: which of the four is explained.
    target: its predicted class.
    references: the classes by which the four cells are scored, [4].
    """

    start: int
    picture: Array
    positive: int
    target: int
    references: Array

    @property
    def row(self) -> int:
        return self.start + self.positive


@dataclass(frozen=True)
class _Masked:
    """The states of a positive sample while elements are masked, and what the model says of each.

    states [STEPS, ...]; scores [STEPS]; impact [...]: the sum of the normalised gradient x input.
    """

    states: Array
    scores: Array
    impact: Array


def gae(case: Case, settings: Settings) -> Parts:
    """GAE and its parts, one number per mosaic of four consecutive samples.

    The number stands at the mosaic's positive sample; the other three have NaN, so that means and intervals are
    over mosaics. The gradient by which elements are masked is the model's own, whatever method is judged. Masked
    elements become the baseline (the authors: 0 in normalised values). The four cells are scored by their
    labels where all four are known, else by the model's predictions; where the positive sample's label has the
    probability 0, the mosaic cannot be judged. Unlike the released code, which mixes up
    the images of different mosaics in batches of more than four, a mosaic's cells are always its own.

    Args:
        case: images, whole groups of four; the targets are not used, as the metric explains the predicted classes.
        settings: `likely` 1 takes the positive sample that is most likely given the mosaic; 0 draws it with these
            probabilities.

    Returns:
        faithfulness and robustness in -1..1; local-consistency = max(0, faithfulness + robustness) / 2;
        contrastiveness, not negative (above 1 where another cell's label is likelier than the positive one's);
        gae = local-consistency x contrastiveness.

    Raises:
        UsageError: the explained input is no image, has no gradient, or samples are not in groups of four.
    """
    needs.image(case, NAME)
    if len(case.values) % GROUP:
        raise UsageError(f"the metric {NAME} needs samples in groups of {GROUP}, not {len(case.values)}")
    mosaics = _mosaics(case, likely=bool(settings["likely"]))
    fading, lasting = (_masked(case, mosaics, first) for first in (True, False))
    local = _local(case, mosaics, fading, lasting)
    local["contrastiveness"] = _contrastiveness(case, mosaics)
    local["gae"] = local["local-consistency"] * local["contrastiveness"]
    rows = [mosaic.row for mosaic in mosaics]
    parts = {name: np.full(len(case.values), np.nan) for name in local}
    for name, numbers in local.items():
        parts[name][rows] = numbers
    return parts


def _mosaics(case: Case, likely: bool) -> list[_Mosaic]:
    whole = ((row, case.values[row : row + 1]) for row in case.rows)
    predicted = np.concatenate(list(judged(case.subject.scores, whole))).argmax(axis=1)
    starts = range(0, len(case.values), GROUP)
    pictures = [_picture(case.values[start : start + GROUP]) for start in starts]
    scores = judged(case.subject.scores, ((start, one[None]) for start, one in zip(starts, pictures, strict=True)))
    result = []
    for start, picture, score in zip(starts, pictures, scores, strict=True):
        four = slice(start, start + GROUP)
        chances = softmax(score[0])[predicted[four]]
        drawn = case.generator(start).choice(GROUP, p=chances / chances.sum())
        positive = int(np.argmax(chances)) if likely else int(drawn)
        labels = case.labels[four] if case.labels is not None else np.full(GROUP, -1)
        references = labels if np.all(labels >= 0) else predicted[four]
        result.append(_Mosaic(start, picture, positive, int(predicted[start + positive]), references))
    return result


def _picture(four: Array) -> Array:
    """The four images at half their size, in rows; sizes are halved by leaving out every second row and column."""
    rows, columns = four.shape[-2:]
    top, left = rows // 2, columns // 2
    picture: Array = np.empty_like(four[0])
    for image, (y, height), (x, width) in zip(
        four,
        ((0, top), (0, top), (top, rows - top), (top, rows - top)),
        ((0, left), (left, columns - left)) * 2,
        strict=True,
    ):
        chosen = np.ix_(range(len(image)), np.arange(height) * rows // height, np.arange(width) * columns // width)
        picture[:, y : y + height, x : x + width] = image[chosen]
    return picture


def _masked(case: Case, mosaics: list[_Mosaic], most_relevant_first: bool) -> list[_Masked]:
    """The positive samples, masked step by step where gradient x input is largest or smallest."""
    rows = np.asarray([mosaic.row for mosaic in mosaics])
    targets = _Targets(case, mosaics)
    baseline = np.broadcast_to(case.baseline, case.values.shape)[rows]
    current = case.values[rows]
    states, scores, impact = [], [], np.zeros(current.shape)
    for fraction in _FRACTIONS:
        items = [(row, values[None]) for row, values in zip(rows, current, strict=True)]
        states.append(current)
        scores.append(np.concatenate(list(judged(targets.scores, items))))
        gradients = np.concatenate(list(judged(targets.gradients, items)))
        relevance = _unit_sum(np.abs(current * gradients))
        impact += relevance
        count = int(fraction * current[0].size)
        order = np.argsort(_flat(-relevance if most_relevant_first else relevance), axis=1, kind="stable")
        current = current.copy()
        np.put_along_axis(_flat(current), order[:, :count], np.take_along_axis(_flat(baseline), order, 1)[:, :count], 1)
    return [
        _Masked(np.stack([state[k] for state in states]), np.stack([score[k] for score in scores]), impact[k])
        for k in range(len(mosaics))
    ]


class _Targets:
    """The judges of a batch whose targets are the predicted classes of the positive samples."""

    def __init__(self, case: Case, mosaics: list[_Mosaic]) -> None:
        self.case = case
        self.targets = np.zeros(len(case.values), np.int64)
        self.targets[[mosaic.row for mosaic in mosaics]] = [mosaic.target for mosaic in mosaics]

    def scores(self, values: Array, rows: Array) -> Array:
        return np.asarray(self.case.subject.scores(values, rows)[np.arange(len(values)), self.targets[rows]])

    def gradients(self, values: Array, rows: Array) -> Array:
        return self.case.subject.gradients(values, self.targets[rows], rows)

    def relevance(self, values: Array, rows: Array) -> Array:
        """The positive part of the maps, the largest of each 1."""
        maps = np.maximum(self.case.method.maps(values, self.targets[rows], rows), 0)
        return np.asarray(maps / (_over(maps, np.max) + _EPSILON))


def _local(case: Case, mosaics: list[_Mosaic], fading: list[_Masked], lasting: list[_Masked]) -> dict[str, Array]:
    """Faithfulness to the impact of elements, and whether maps change as much as the scores do."""

    def states() -> list[Variants]:
        return [
            (mosaic.row, np.concatenate([least.states, most.states[1:]]))
            for mosaic, most, least in zip(mosaics, fading, lasting, strict=True)
        ]

    numbers = []
    everything = judged(_Targets(case, mosaics).relevance, states())
    for most, least, maps in zip(fading, lasting, everything, strict=True):
        own, of_least, of_most = maps[0], maps[1:STEPS], maps[STEPS:]
        impact = np.sign(_unit_sum(least.impact[None]) - _unit_sum(most.impact[None]))[0]
        faithfulness = np.sum(impact * own) / (own.sum() + _EPSILON)
        by_map = np.asarray([_distance(own, m) - _distance(own, k) for m, k in zip(of_most, of_least, strict=True)])
        by_score = (least.scores - most.scores)[1:] / (least.scores[0] + _EPSILON)
        robustness = 1 - 2 * _distance(by_map, by_score)
        numbers.append((faithfulness, robustness, max(0.0, faithfulness + robustness) / 2))
    names = ("faithfulness", "robustness", "local-consistency")
    return dict(zip(names, np.asarray(numbers, np.float64).reshape(-1, 3).T, strict=True))


def _contrastiveness(case: Case, mosaics: list[_Mosaic]) -> Array:
    """Whether the map of the mosaic lies in the cells that speak for the positive class."""
    items = [(mosaic.row, mosaic.picture[None]) for mosaic in mosaics]
    maps = judged(_Targets(case, mosaics).relevance, items)
    alone = judged(case.subject.scores, [(mosaic.row, case.values[mosaic.row][None]) for mosaic in mosaics])
    result = []
    for mosaic, relevance, scores in zip(mosaics, maps, alone, strict=True):
        chances = softmax(scores[0])[mosaic.references]
        if chances[mosaic.positive] == 0:
            result.append(np.nan)
            continue
        cells = 2 * chances / chances[mosaic.positive] - 1
        worth = _cells(cells, *mosaic.picture.shape[-2:])
        result.append(max(0.0, np.sum(worth * relevance[0]) / (relevance[0].sum() + _EPSILON)))
    return np.asarray(result)


def _cells(four: Array, rows: int, columns: int) -> Array:
    """A number for each cell, [rows, columns]; 1 in the square of two by two pixels in the middle."""
    top, left = rows // 2, columns // 2
    result = np.empty((rows, columns))
    result[:top, :left], result[:top, left:], result[top:, :left], result[top:, left:] = four
    result[top - 1 : top + 1, left - 1 : left + 1] = 1
    return result


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _over(values: Array, reduce: Callable[..., Array]) -> Array:
    """A number per sample, to be divided by."""
    return np.asarray(reduce(np.abs(values), axis=tuple(range(1, values.ndim)), keepdims=True))


def _unit_sum(values: Array) -> Array:
    return values / (_over(values, np.sum) + _EPSILON)


def _distance(u: Array, v: Array) -> float:
    return float(np.abs(u - v).sum() / (np.abs(u).sum() + np.abs(v).sum() + _EPSILON))


register(
    Metric(
        NAME,
        "Does the map follow what changes the score, stay as stable as it, and tell its object from three others?",
        "Vukadin et al. 2024, ACM TIST 15(3), article 47",
        dict.fromkeys(("faithfulness", "robustness", "local-consistency", "contrastiveness", "gae"), "higher"),
        gae,
        {"likely": 0},
        needs=("image", "gradients"),
        group=GROUP,
        cost=15,
    )
)
