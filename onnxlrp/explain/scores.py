"""What a classifier said: class scores and, where they follow from the outputs, probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_CLOSE = 1e-3


@dataclass(frozen=True)
class ClassScores:
    """One sample's classes. `values` and `probabilities` have shape [classes]; float64.

    `values` are what relevance was distributed from (mostly logits). `probabilities` are None for a single
    value that no output shows as a probability. `kind` says how probabilities follow: "softmax", "sigmoid",
    "output" (the values are probabilities already) or "" (there are none).
    """

    values: np.ndarray
    probabilities: np.ndarray | None
    kind: str

    def top(self, count: int) -> tuple[int, ...]:
        """The indices of the `count` largest values, largest first; the lower index first among equals."""
        return tuple(int(index) for index in np.argsort(-self.values, kind="stable")[:count])


def class_scores(explained: np.ndarray, outputs: Iterable[np.ndarray]) -> ClassScores | None:
    """Read one sample (no batch axis) as class scores; None when it has more than one axis longer than 1.

    `outputs` are the model's outputs for the same sample: one that equals the sigmoid of the values marks a
    model with independent classes. Otherwise several values are read as logits of a softmax.
    """
    if sum(size != 1 for size in explained.shape) > 1:
        return None
    values = explained.astype(np.float64).ravel()
    candidates = [output.astype(np.float64).ravel() for output in outputs if output.size == values.size]
    if any(np.allclose(found, _sigmoid(values), atol=_CLOSE) for found in candidates):
        return ClassScores(values, _sigmoid(values), "sigmoid")
    if values.size < 2:
        return ClassScores(values, None, "")
    if values.min() >= 0 and abs(values.sum() - 1) < _CLOSE:
        return ClassScores(values, values, "output")
    return ClassScores(values, _softmax(values), "softmax")


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    result: np.ndarray = powers / powers.sum()
    return result


def _sigmoid(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result
