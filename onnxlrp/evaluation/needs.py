"""What a metric needs of a case, and what it says where that is missing."""

from __future__ import annotations

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case


def image(case: Case, metric: str) -> None:
    """UsageError unless the values are continuous and have two axes after the channels."""
    continuous(case, metric)
    if case.values.ndim != 4:
        raise UsageError(
            f"the metric {metric} needs images [channels, height, width]; the explained input has the shape "
            f"{list(case.values.shape[1:])}: leave the metric out"
        )


def continuous(case: Case, metric: str) -> None:
    """UsageError where the values are token ids, which have no neighbours."""
    if not np.issubdtype(case.values.dtype, np.floating):
        raise UsageError(
            f"the metric {metric} needs an input of real numbers; the explained input holds "
            f"{case.values.dtype} ids: leave the metric out"
        )


def marked(case: Case, metric: str) -> Array:
    """What is marked in the samples; UsageError where nothing is known of it."""
    if case.marked is None:
        raise UsageError(
            f"the metric {metric} needs boxes or masks of the objects, and the data has none: leave the metric out"
        )
    return case.marked


def layers(case: Case, metric: str) -> int:
    """How many layers the subject has; UsageError where there is none."""
    if case.subject.layers < 1:
        raise UsageError(
            f"the metric {metric} randomises weighted layers, of which the model has none: leave the metric out"
        )
    return case.subject.layers
