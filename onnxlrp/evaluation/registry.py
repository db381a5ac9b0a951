"""The table of metrics. Each file of `metrics/` adds its own; nothing else knows them by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.settings import check

#: Parameters of a metric by name; every one has a default.
Settings = Mapping[str, float]
#: One number per sample for each part of the metric, float64 [n]; NaN where a sample cannot be judged. A part of shape
#: [n, steps] is a curve over equal steps from nothing taken away (0) to everything (1): the report draws its mean, and
#: no table has it; it has no entry in `better`.
Parts = Mapping[str, Array]
Measure = Callable[[Case, Settings], Parts]


@dataclass(frozen=True)
class Metric:
    """One line of `onnxlrp evaluate --list`.

    Attributes:
        name: as in `--metrics`.
        summary: what it measures, in one sentence.
        source: the paper.
        better: whether a better explanation has a higher or a lower number, by part.
        measure: the function.
        settings: its parameters with their defaults.
        needs: what a case must have to be judged: "marked", "labels", "gradients", "continuous" (values that are
            numbers, not token ids), "image" (continuous values [n, channels, height, width]), "layers" (a subject
            whose parameters can be randomised). A metric that is called without raises UsageError.
        group: how many consecutive samples are judged together (4 for the mosaics of GAE); batches hold whole groups
            and an incomplete last group is left out.
        cost: roughly how many runs of the model one sample takes, for the progress that `evaluate` shows.
    """

    name: str
    summary: str
    source: str
    better: Mapping[str, Literal["higher", "lower"]]
    measure: Measure
    settings: Settings = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    group: int = 1
    cost: int = 1


_METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Adds a metric; its function then refuses settings that are not allowed (UsageError).

    Raises:
        ValueError: the name is taken.
    """
    if metric.name in _METRICS:
        raise ValueError(f"there is a metric {metric.name} already")
    measure = metric.measure

    @functools.wraps(measure)
    def checked(case: Case, settings: Settings) -> Parts:
        check(metric.name, settings)
        return measure(case, settings)

    _METRICS[metric.name] = dataclasses.replace(metric, measure=checked)
    return _METRICS[metric.name]


def metrics() -> Mapping[str, Metric]:
    """All metrics by name, in alphabetical order."""
    # The metrics register themselves on import.
    from onnxlrp.evaluation import metrics as _  # noqa: F401

    return dict(sorted(_METRICS.items()))
