"""Samples in batches, and a batch as the case that metrics are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case, MakeMethod, Method, Subject
from onnxlrp.evaluation.methods import Frame, NamedMethod
from onnxlrp.evaluation.sample import Layout, Sample
from onnxlrp.evaluation.subject import Engine, OnnxSubject
from onnxlrp.evaluation.units import baselines, units

#: The target of each sample: its likeliest class, its true class, or one class for all.
Target = str | int


@dataclass(frozen=True)
class Setting:
    """What all batches of a run share.

    Attributes:
        layout: of the samples as they are read.
        target: "predicted", "label" or a class.
        fill: what elements become when they are taken away; see `units.baselines`.
        unit: the side of the squares that pictures are taken apart into, in pixels.
        seed: of all random numbers.
    """

    layout: Layout
    target: Target = "predicted"
    fill: str = "zero"
    unit: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Samples of one shape that go through the model together; `start` is the place of the first in the data."""

    start: int
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, places: Sequence[int]) -> list[Sample]:
        """Some of the samples."""
        return [self.samples[place] for place in places]


def in_batches(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Samples in their order, as many together as have one shape and `size` allows.

    Batches begin at multiples of `size` where all samples have one shape, so that groups of samples stay whole.
    """
    waiting: list[Sample] = []
    start = 0
    for place, sample in enumerate(samples):
        if waiting and (place % size == 0 or _shapes(sample) != _shapes(waiting[0])):
            yield Batch(start, waiting)
            waiting, start = [], place
        waiting.append(sample)
    if waiting:
        yield Batch(start, waiting)


def _shapes(sample: Sample) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.inputs.items()}


def seed_of(seed: int, place: int) -> int:
    """The seed of one sample, by its place in the data."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Prepared:
    """Samples as arrays, in front of the model; methods come to it one by one."""

    values: Array
    frame: Frame
    targets: Array
    labels: Array | None
    marked: Array | None
    subject: OnnxSubject

    def case(self, method: NamedMethod) -> Case:
        """The case of one method. Its map of the unchanged samples is computed once."""
        make = method.bind(self.frame)
        once = _Once(make(self.subject), self.values, self.targets)
        return Case(
            values=self.values,
            baseline=self.frame.baseline,
            units=self.frame.units,
            targets=self.targets,
            labels=self.labels,
            marked=self.marked,
            seeds=self.frame.seeds,
            subject=self.subject,
            make=_remembering(make, self.subject, once),
            method=once,
        )


class _Once:
    """A method that remembers its maps of the samples themselves, which almost every metric asks for."""

    def __init__(self, method: Method, values: Array, targets: Array) -> None:
        self._method, self._values, self._targets = method, values, targets
        self._maps: Array | None = None

    def maps(self, values: Array, targets: Array, rows: Array) -> Array:
        itself = values is self._values and np.array_equal(rows, np.arange(len(values)))
        if not itself or not np.array_equal(targets, self._targets):
            return self._method.maps(values, targets, rows)
        if self._maps is None:
            self._maps = self._method.maps(values, targets, rows)
        return self._maps.copy()


def _remembering(make: MakeMethod, subject: Subject, once: Method) -> MakeMethod:
    return lambda other: once if other is subject else make(other)


def prepare(
    samples: Sequence[Sample], places: Sequence[int], engine: Engine, setting: Setting, shared: Mapping[str, Array]
) -> Prepared:
    """Samples of one shape as arrays.

    Args:
        places: the place of each sample in the data, which its random numbers come from.
        shared: the model's inputs without a batch axis.

    Raises:
        UsageError: a target that a sample does not have.
    """
    name = engine.input_name
    stacked = np.stack([sample.inputs[name] for sample in samples])
    values = np.ascontiguousarray(setting.layout.to_channels_first(stacked))
    layout = setting.layout.channels_first
    others = {key: np.stack([s.inputs[key] for s in samples]) for key in samples[0].inputs if key != name}
    subject = OnnxSubject(engine, others, shared, setting.layout)
    labels = np.array([sample.label for sample in samples], np.int64)
    masks = [s.marked for s in samples]
    marked = np.stack([np.zeros(stacked.shape[1:], bool) if m is None else m for m in masks])
    frame = Frame(
        baselines(setting.fill, values, layout),
        _units(samples, setting, layout, values.shape[1:]),
        np.array([seed_of(setting.seed, place) for place in places], np.uint64),
        layout,
    )
    return Prepared(
        values,
        frame,
        _targets(samples, values, labels, subject, setting.target),
        labels if (labels >= 0).any() else None,
        None if all(m is None for m in masks) else setting.layout.to_channels_first(marked),
        subject,
    )


def _units(samples: Sequence[Sample], setting: Setting, layout: Layout, shape: tuple[int, ...]) -> Array:
    own = [sample.units for sample in samples]
    if any(u is None for u in own):
        return units(layout, shape, setting.unit)
    return np.stack([u for u in own if u is not None])


def _targets(samples: Sequence[Sample], values: Array, labels: Array, subject: OnnxSubject, target: Target) -> Array:
    if isinstance(target, int):
        return np.full(len(values), target, np.int64)
    if target == "label":
        missing = next((s.name for s, label in zip(samples, labels, strict=True) if label < 0), None)
        if missing is not None:
            raise UsageError(f"{missing} has no label, so that --target label has nothing to explain there")
        return labels
    found: Array = subject.scores(values, np.arange(len(values))).argmax(axis=1).astype(np.int64)
    return found


def check_target(target: Target, scores: Array) -> None:
    """Refuses a class that the model does not have.

    Raises:
        UsageError: naming the number of classes.
    """
    if isinstance(target, int) and not 0 <= target < scores.shape[1]:
        raise UsageError(
            f"--target {target}: the explained output has {scores.shape[1]} classes, 0 to {scores.shape[1] - 1}"
        )
