"""RotaryEmbedding: every form, and that it turns relevance with the values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.operators.examples import Example, expect_linear_map
from tests.operators.several import Several, applied, expect_closed_ledger, expect_gradient
from tests.support.gradients import distinct
from tests.support.models import Net

ANGLES = distinct(5, 2, seed=3)


def rotated(
    shape: tuple[int, ...], angles: np.ndarray = ANGLES, *, positions: bool = True, **attributes: int
) -> Example:
    """By positions in a table of cosines and sines, or by a table for each sample."""

    def build(net: Net, a: str) -> str:
        tables = [net.constant(np.cos(angles)), net.constant(np.sin(angles))]
        at = [net.constant([[4, 0, 2]] * shape[0])] if positions else []
        return net.op("RotaryEmbedding", a, *tables, *at, **attributes)

    return Example(shape, build, len(shape), open_axes=(), opset=23)


CASES: Mapping[str, Example] = {
    "heads": rotated((2, 2, 3, 4)),
    "interleaved": rotated((1, 2, 3, 4), interleaved=1),
    "flat": rotated((2, 3, 8), num_heads=2),
    "flat-interleaved": rotated((1, 3, 8), num_heads=2, interleaved=1),
    "part-of-the-width": rotated((1, 2, 3, 6), rotary_embedding_dim=4),
    "part-of-the-width-interleaved": rotated((1, 3, 12), num_heads=2, rotary_embedding_dim=4, interleaved=1),
    "table-for-each-sample": rotated((2, 2, 3, 4), distinct(2, 3, 2, seed=5), positions=False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_map_is_the_transpose(case: str) -> None:
    expect_linear_map(CASES[case], dynamic=False)


def test_cosines_and_sines_may_depend_on_the_explained_input() -> None:
    data = {"a": distinct(1, 2, 3, 4, seed=1), "c": distinct(1, 3, 2, seed=2), "s": distinct(1, 3, 2, seed=3)}
    case = Several(data, applied("RotaryEmbedding"), 4, opset=23)
    expect_gradient(case, dynamic=True)
    expect_closed_ledger(case)
