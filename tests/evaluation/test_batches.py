"""Batches keep the order of the data, hold samples of one shape, and give each sample its own random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxlrp.evaluation.batches import Setting, in_batches, prepare, seed_of
from onnxlrp.evaluation.case import Subject
from onnxlrp.evaluation.methods import NamedMethod
from onnxlrp.evaluation.sample import Layout, Sample
from onnxlrp.evaluation.subject import Engine

IRIS = str(Path(__file__).parents[2] / "models" / "iris.onnx")


def samples(*lengths: int) -> list[Sample]:
    return [Sample(str(i), {"x": np.zeros(length)}) for i, length in enumerate(lengths)]


def test_batches_hold_samples_of_one_shape_in_their_order() -> None:
    found = [(b.start, [s.name for s in b.samples]) for b in in_batches(samples(3, 3, 3, 2, 2, 3), 2)]
    assert found == [(0, ["0", "1"]), (2, ["2"]), (3, ["3"]), (4, ["4"]), (5, ["5"])]
    assert [len(b) for b in in_batches(samples(*[3] * 7), 3)] == [3, 3, 1]


def test_the_seed_of_a_sample_depends_on_its_place_and_on_the_seed_of_the_run() -> None:
    assert len({seed_of(seed, place) for seed in (0, 1) for place in range(50)}) == 100


def test_a_digest_changes_with_everything_that_results_depend_on() -> None:
    base = Sample("a", {"x": np.zeros(3)}, 1)
    others = [
        Sample("a", {"x": np.ones(3)}, 1),
        Sample("a", {"x": np.zeros(3, np.float32)}, 1),
        Sample("a", {"x": np.zeros(3)}, 2),
        Sample("a", {"x": np.zeros(3), "mask": np.zeros(1)}, 1),
        Sample("a", {"x": np.zeros(3)}, 1, marked=np.zeros(3, bool)),
    ]
    assert len({s.digest for s in (base, *others)}) == 6
    assert Sample("renamed", {"x": np.zeros(3)}, 1).digest == base.digest


class Calls:
    """A method that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def maps(self, values: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        self.count += 1
        return np.zeros(values.shape)


def test_the_map_of_the_samples_themselves_is_computed_once() -> None:
    engine = Engine(IRIS)
    rows = [Sample(str(i), {"measurements": np.full(4, i, np.float32)}) for i in range(3)]
    calls = Calls()

    def make(subject: Subject) -> Calls:
        return calls

    case = prepare(rows, [0, 1, 2], engine, Setting(Layout()), {}).case(NamedMethod("calls", "", lambda frame: make))
    for _ in range(3):
        case.method.maps(case.values, case.targets, case.rows)
        case.make(case.subject).maps(case.values, case.targets, case.rows)
    assert calls.count == 1
    case.method.maps(case.values + 1, case.targets, case.rows)
    case.method.maps(case.values, (case.targets + 1) % 3, case.rows)
    case.make(case.subject.randomised(0, 0)).maps(case.values, case.targets, case.rows)
    assert calls.count == 4


@pytest.mark.parametrize("target", ["predicted", "label", 2])
def test_the_target_is_the_likeliest_class_the_true_one_or_one_for_all(target: str | int) -> None:
    engine = Engine(IRIS)
    rows = [Sample(str(i), {"measurements": np.array([5, 3, i, 0.2 * i], np.float32)}, i % 3) for i in range(4)]
    ready = prepare(rows, range(4), engine, Setting(Layout(), target), {})
    predicted = ready.subject.scores(ready.values, np.arange(4)).argmax(axis=1)
    expected = {"predicted": predicted, "label": [0, 1, 2, 0], 2: [2, 2, 2, 2]}[target]
    assert ready.targets.tolist() == list(expected)
