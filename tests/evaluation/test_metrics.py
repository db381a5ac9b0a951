"""What holds for every metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation import registry
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.registry import Metric, metrics, register
from tests.evaluation import subjects

SAMPLES, SIZE = 32, 8
EVERY = pytest.mark.parametrize("metric", metrics().values(), ids=lambda metric: metric.name)


def _images(**others: Any) -> Case:
    values = subjects.images(SAMPLES, channels=2, size=SIZE)
    marked = np.zeros(values.shape, bool)
    marked[:, :, 2:6, 1:5] = True
    fields: Mapping[str, Any] = {
        "units": subjects.pixels(2, SIZE),
        "labels": np.arange(SAMPLES) % 3,
        "targets": np.arange(SAMPLES) % 3,
        "marked": marked,
        **others,
    }
    return subjects.make_case(values, subjects.two_layer(2 * SIZE**2), **fields)


def _texts(**others: Any) -> Case:
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 9, (SAMPLES, 6))
    table = generator.normal(size=(9, 3))

    def make(subject: Any) -> subjects.Attributes:
        return subjects.Attributes(lambda values, targets, rows: subject.table[values, targets[:, None]])

    return subjects.make_case(ids, subjects.Tokens(table), make, **others)


@EVERY
def test_numbers_do_not_depend_on_the_batch(metric: Metric) -> None:
    case = _images()
    whole = metric.measure(case, metric.settings)
    first = metric.measure(subjects.part_of(case, slice(0, 16)), metric.settings)
    second = metric.measure(subjects.part_of(case, slice(16, SAMPLES)), metric.settings)
    for name, numbers in whole.items():
        parts = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(numbers, parts, rtol=1e-7, atol=1e-12, err_msg=name)


@EVERY
def test_parts_are_numbers_by_sample_and_curves(metric: Metric) -> None:
    parts = metric.measure(_images(), metric.settings)
    assert set(metric.better) <= set(parts)
    for name, numbers in parts.items():
        assert numbers.dtype == np.float64
        assert len(numbers) == SAMPLES
        assert numbers.ndim == (1 if name in metric.better else 2), name
        judged = numbers[~np.isnan(numbers)]
        assert judged.size, f"{name} judges nothing"
        assert np.all(np.isfinite(judged))


@EVERY
def test_what_is_needed_is_asked_for(metric: Metric) -> None:
    if "marked" in metric.needs:
        with pytest.raises(UsageError, match=r"boxes or masks.*leave the metric out"):
            metric.measure(_images(marked=None), metric.settings)
    if {"image", "continuous"} & set(metric.needs):
        with pytest.raises(UsageError, match=r"needs an input of real numbers.*leave the metric out"):
            metric.measure(_texts(), metric.settings)


@pytest.mark.parametrize(
    "metric",
    [one for one in metrics().values() if not {"image", "continuous"} & set(one.needs)],
    ids=lambda metric: metric.name,
)
def test_tokens_are_units(metric: Metric) -> None:
    marked = np.zeros((SAMPLES, 6), bool)
    marked[:, 2:4] = True
    units = np.broadcast_to(np.arange(6), (SAMPLES, 6)).copy()
    units[:, 5] = -1  # padding
    parts = metric.measure(_texts(marked=marked, units=units), metric.settings)
    for name in metric.better:
        assert parts[name].shape == (SAMPLES,)
        assert np.any(~np.isnan(parts[name])) or name.startswith("ssim"), f"{name} judges nothing"


@pytest.mark.filterwarnings("error")
@EVERY
def test_a_map_of_zeros_gives_no_warning(metric: Metric) -> None:
    case = _images()
    nothing = subjects.Attributes(lambda values, targets, rows: np.zeros(values.shape))
    zero = subjects.make_case(
        case.values,
        case.subject,
        lambda subject: nothing,
        units=case.units,
        labels=case.labels,
        targets=case.targets,
        marked=case.marked,
    )
    parts = metric.measure(zero, metric.settings)
    assert set(metric.better) <= set(parts)


@EVERY
def test_the_table_says_what_a_user_needs(metric: Metric) -> None:
    assert metric.summary.endswith("?")
    assert metric.source
    assert metric.cost >= 1
    assert set(metric.needs) <= {"marked", "labels", "gradients", "continuous", "image", "layers"}


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="there is a metric gae already"):
        register(metrics()["gae"])


def test_settings_of_a_metric_of_one_s_own_may_be_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METRICS", {})
    own = register(_own())
    for value in (-3.5, 1e9):
        assert own.measure(_images(), {"colour": value})["hue"] == [value]
    with pytest.raises(UsageError, match=r"the setting own\.colour must be a number, not 'red'"):
        own.measure(_images(), {"colour": "red"})  # type: ignore[dict-item]


def _own() -> Metric:
    def hue(case: Case, settings: Mapping[str, float]) -> Mapping[str, Any]:
        return {"hue": [settings["colour"]]}

    return Metric("own", "Which?", "nobody", {"hue": "higher"}, hue, {"colour": 1})


@pytest.mark.parametrize(
    ("name", "setting", "value", "reason"),
    [
        ("deletion", "steps", 0, "a whole number of at least 1, not 0"),
        ("deletion", "steps", 2.5, "a whole number of at least 1, not 2.5"),
        ("deletion", "steps", "many", "a whole number of at least 1, not 'many'"),
        ("infidelity", "share", 1.5, "a number of at least 0 and at most 1, not 1.5"),
        ("sensitivity", "radius", -1, "a number of at least 0, not -1"),
        ("sensitivity", "radius", float("nan"), "a number of at least 0, not nan"),
        ("gae", "likely", 2, "0 or 1, not 2"),
    ],
)
def test_settings_that_make_no_sense(name: str, setting: str, value: Any, reason: str) -> None:
    metric = metrics()[name]
    with pytest.raises(UsageError, match=f"the setting {name}.{setting} must be {reason}"):
        metric.measure(_images(), {**metric.settings, setting: value})
