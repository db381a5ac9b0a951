"""Many variants of many samples, judged by the model in calls of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from onnxlrp.evaluation.case import Array, Case

#: Values [k, ...] and the sample of each [k] to one result per value [k, ...]: a model, a gradient, a method.
Judge = Callable[[Array, Array], Array]
#: A sample's place in the batch and its variants [k, ...].
Variants = tuple[int, Array]

_BYTES = 8 * 1024 * 1024
_MOST = 256


def judged(judge: Judge, items: Iterable[Variants]) -> Iterator[Array]:
    """One result per item, in their order: what `judge` says of its variants.

    Variants of several items share a call, and one item can take several; a call has at most 8 MiB of values, but
    always one.
    """
    waiting: list[tuple[int, Array]] = []
    sizes: list[int] = []
    answers: list[Array] = []

    def answer() -> None:
        values = np.concatenate([piece for _, piece in waiting])
        rows = np.repeat([row for row, _ in waiting], [len(piece) for _, piece in waiting])
        answers.append(judge(values, rows))
        waiting.clear()

    for row, values in items:
        sizes.append(len(values))
        limit = _per_call(values)
        while len(values):
            room = limit - sum(len(piece) for _, piece in waiting)
            waiting.append((row, values[:room]))
            values = values[room:]
            if sum(len(piece) for _, piece in waiting) == limit:
                answer()
                yield from _complete(sizes, answers)
    if waiting:
        answer()
    yield from _complete(sizes, answers)


def _per_call(values: Array) -> int:
    return min(_MOST, max(1, _BYTES // max(1, values[:1].nbytes)))


def _complete(sizes: list[int], answers: list[Array]) -> Iterator[Array]:
    """Takes from both lists the items that are answered, and yields their answers."""
    if not answers:
        return
    rest = np.concatenate(answers)
    while sizes and len(rest) >= sizes[0]:
        size = sizes.pop(0)
        yield rest[:size]
        rest = rest[size:]
    answers[:] = [rest]


def logits(case: Case) -> Judge:
    """The score of each variant's target, [k]."""
    return lambda values, rows: _of_target(case.subject.scores(values, rows), case.targets[rows])


def probabilities(case: Case) -> Judge:
    """The softmax probability of each variant's target, [k]."""
    return lambda values, rows: _of_target(softmax(case.subject.scores(values, rows)), case.targets[rows])


def logits_and_probabilities(case: Case) -> Judge:
    """Both, [k, 2]."""

    def judge(values: Array, rows: Array) -> Array:
        scores = case.subject.scores(values, rows)
        both = (scores, softmax(scores))
        return np.stack([_of_target(one, case.targets[rows]) for one in both], axis=1)

    return judge


def maps(case: Case) -> Judge:
    """The map of each variant for its sample's target."""
    return lambda values, rows: case.method.maps(values, case.targets[rows], rows)


def own_maps(case: Case) -> Array:
    """The maps of the samples themselves, [n, ...]; asked for as they are, so that a method can remember them."""
    return case.method.maps(case.values, case.targets, case.rows)


def softmax(scores: Array) -> Array:
    """Probabilities over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _of_target(scores: Array, targets: Array) -> Array:
    return scores[np.arange(len(scores)), targets]
