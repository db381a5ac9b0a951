"""What the model said about one sample, and what was explained of it, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.job import Job, Target
from onnxlrp.explain.labels import labels_for
from onnxlrp.explain.scores import ClassScores, class_scores

DOT = "  \u00b7  "


@dataclass(frozen=True)
class Answer:
    """The model's outputs for one sample, and the tensor that relevance started from (None: not returned).

    No array has a batch axis. `target` says in words what was asked for, `detail` more of it, such as a value.
    """

    outputs: Mapping[str, np.ndarray]
    explained: np.ndarray | None
    target: str
    detail: str = ""


@dataclass(frozen=True)
class TopClass:
    """One of the most likely classes.

    `score` is a probability, or the raw output where the result's `score_kind` is "".
    """

    index: int
    label: str | None
    score: float


@dataclass(frozen=True)
class Subject:
    """One explained thing in words."""

    heading: str
    detail: str = ""


@dataclass(frozen=True)
class Reading:
    """An answer read: the most likely classes, what their scores are, and what each map explains."""

    top: tuple[TopClass, ...]
    score_kind: str
    subjects: tuple[Subject, ...]


def read_answer(answer: Answer, job: Job) -> Reading:
    """Raises UsageError when labels or the target do not fit the output."""
    values = answer.explained if answer.explained is not None else _spoken(answer.outputs.values())
    scores = class_scores(values, answer.outputs.values())
    labels = None if job.labels is None or scores is None else labels_for(scores.values.size, job.labels)
    subjects = _subjects(answer, values, scores, labels, job)
    if job.through:
        subjects = [replace(subject, heading=f"{subject.heading} through {job.through}") for subject in subjects]
    return Reading(_top(scores, labels, job.top), scores.kind if scores else "", tuple(subjects))


def _spoken(outputs: Iterable[np.ndarray]) -> np.ndarray:
    """What speaks for a model that does not return what relevance started from: its first output made of floats."""
    arrays = list(outputs)
    return next((array for array in arrays if array.dtype.kind == "f"), arrays[0] if arrays else np.zeros(1))


def _subjects(
    answer: Answer, values: np.ndarray, scores: ClassScores | None, labels: Sequence[str] | None, job: Job
) -> list[Subject]:
    """What each map explains."""
    if job.aim:
        return [Subject(job.aim, answer.detail)]
    found = _targets(answer, values, scores, labels, job)
    if job.rather_than is None or found[0].heading == answer.target:
        return found
    other = _targets(answer, values, scores, labels, replace(job, target=job.rather_than))[0]
    return [Subject(f"{one.heading} rather than {other.heading}", f"{one.detail}; {other.detail}") for one in found]


def _targets(
    answer: Answer, values: np.ndarray, scores: ClassScores | None, labels: Sequence[str] | None, job: Job
) -> list[Subject]:
    count = job.maps or 1
    largest = job.maps is not None or (job.target == "argmax" and " along " not in answer.target)
    if scores is not None and (largest or job.target == "argmax"):
        return [_class_subject(index, scores, labels) for index in scores.top(count)]
    if scores is not None and (index := _class_index(job.target)) is not None:
        if not 0 <= index < scores.values.size:
            raise UsageError(f"class {index} does not exist: the explained output has {scores.values.size} classes")
        return [_class_subject(index, scores, labels)]
    if largest and values.ndim:
        order = np.argsort(-values, axis=None, kind="stable")[:count]
        return [_element(np.unravel_index(place, values.shape), values) for place in order]
    if isinstance(job.target, tuple) and len(job.target) == values.ndim:
        return [_element(job.target, values)]
    return [Subject(answer.target)] * count


def _element(index: Sequence[int | np.intp], values: np.ndarray) -> Subject:
    return Subject(f"output element {[int(i) for i in index]}", f"value {values[tuple(index)]:.4g}")


def _class_index(target: Target) -> int | None:
    if isinstance(target, int):
        return target
    return target[0] if isinstance(target, tuple) and len(target) == 1 else None


def _class_subject(index: int, scores: ClassScores, labels: Sequence[str] | None) -> Subject:
    value = scores.values[index]
    if labels is None and scores.values.size == 1 and scores.probabilities is None:
        return Subject("the output", f"value {value:.4g}")  # a regression has no classes
    parts = [f"class {index}"] if labels else []
    if scores.probabilities is not None:
        parts.append(f"probability {percent(float(scores.probabilities[index]))}")
    if scores.kind != "output":
        parts.append(f"{'logit' if scores.kind else 'output'} {value:.4g}")
    return Subject(labels[index] if labels else f"class {index}", DOT.join(parts))


def percent(share: float) -> str:
    """A share for reading: `12.3 %`, `4.5e-05 %`."""
    return f"{100 * share:.1f} %" if share >= 0.001 or not math.isfinite(share) else f"{100 * share:.1e} %"


def _top(scores: ClassScores | None, labels: Sequence[str] | None, count: int) -> tuple[TopClass, ...]:
    if scores is None:
        return ()
    shown = scores.values if scores.probabilities is None else scores.probabilities
    return tuple(TopClass(index, labels[index] if labels else None, float(shown[index])) for index in scores.top(count))
