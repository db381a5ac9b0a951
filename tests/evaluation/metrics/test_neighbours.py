"""Alike maps and alike predictions, against a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.metrics.neighbours import neighbour_sufficiency
from tests.evaluation import subjects


def test_against_a_loop() -> None:
    values = np.random.default_rng(0).normal(size=(32, 5))
    case = subjects.make_case(values, subjects.two_layer(5))
    found = neighbour_sufficiency(case, {"threshold": 0.4})["agreement"]
    maps = np.abs(case.method.maps(values, case.targets, case.rows))
    maps /= maps.max(axis=1, keepdims=True)
    predicted = case.subject.scores(values, case.rows).argmax(axis=1)
    for start in (0, 16):
        group = range(start, start + 16)
        spread = maps[start : start + 16].std(axis=0, ddof=1)
        distance = {(i, j): np.sqrt((((maps[i] - maps[j]) / spread) ** 2).sum()) for i in group for j in group}
        limit = 0.4 * max(distance.values())
        for i in group:
            near = [j for j in group if j != i and distance[i, j] <= limit]
            share = np.mean([predicted[i] == predicted[j] for j in near]) if near else np.nan
            np.testing.assert_allclose(found[i], share)
    assert len(set(found)) > 2


def test_what_it_cannot_compare() -> None:
    with pytest.raises(UsageError, match="groups of 16, not 15"):
        neighbour_sufficiency(subjects.make_case(np.ones((15, 5)), subjects.linear(5)), {"threshold": 0.6})
    units = np.broadcast_to(np.arange(5), (16, 5)).copy()
    units[3, 4] = -1
    with pytest.raises(UsageError, match="the same number of units"):
        neighbour_sufficiency(subjects.make_case(np.ones((16, 5)), subjects.linear(5), units=units), {"threshold": 0.6})
