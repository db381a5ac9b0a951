"""Sampling at given points: shares of the points read, and the derivative with respect to where they are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.operators.examples import Example, expect_linear_map
from tests.operators.several import Several, expect_closed_ledger, expect_gradient
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray
MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")


def points(*shape: int, seed: int = 0) -> Array:
    """Points inside and outside, none so close to an element or a border that a difference quotient meets a kink."""
    r = np.random.default_rng(seed)
    cells = r.integers(-9, 9, shape)
    return (cells + 0.5 + r.uniform(-0.2, 0.2, shape)) / 4.7


def _sampled(net: Net, a: str, grid: str, **attributes: Any) -> str:
    return net.op("GridSample", a, grid, **attributes)


def known_points(shape: tuple[int, ...], grid: Array, *, opset: int = 21, **attributes: Any) -> Example:
    return Example(
        shape,
        lambda net, a: _sampled(net, a, net.constant(grid), **attributes),
        len(shape),
        open_axes=tuple(range(1, len(shape))),
        opset=opset,
    )


#: onnxruntime's cubic mode has no third dimension, so that the second alone is asked for here.
FLAT: Mapping[str, Example] = {
    f"{mode}-{padding}-{corners}": known_points(
        (2, 2, 3, 4), points(2, 2, 3, 2), mode=mode, padding_mode=padding, align_corners=corners
    )
    for mode, padding, corners in product(MODES, PADDINGS, (0, 1))
}
DEEP: Mapping[str, Example] = {
    f"{mode}-{padding}": known_points(
        (1, 2, 2, 3, 2), points(1, 2, 1, 2, 3, seed=1), mode=mode, padding_mode=padding, align_corners=corners
    )
    for mode, padding, corners in product(MODES[:2], PADDINGS, (1,))
}
OLD: Mapping[str, Example] = {
    mode: known_points((1, 1, 3, 3), points(1, 2, 2, 2), opset=18, mode=mode) for mode in ("bilinear", "bicubic")
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", [*FLAT, *(f"3d-{c}" for c in DEEP), *(f"opset-18-{c}" for c in OLD)])
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    both = {**FLAT, **{f"3d-{c}": e for c, e in DEEP.items()}, **{f"opset-18-{c}": e for c, e in OLD.items()}}
    expect_linear_map(both[case], dynamic=dynamic)


GRIDS: Mapping[str, Example] = {
    **{
        f"2d-{corners}": Example(
            (2, 2, 3),
            lambda net, a, c=corners: net.op("AffineGrid", a, net.constant([2, 1, 3, 4]), align_corners=c),
            4,
            open_axes=(),
        )
        for corners in (0, 1)
    },
    "3d": Example((1, 3, 4), lambda net, a: net.op("AffineGrid", a, net.constant([1, 2, 2, 3, 2])), 5, open_axes=()),
    "size-at-run-time": Example(
        (1, 2, 3), lambda net, a: net.op("AffineGrid", a, "size"), 4, {"size": np.array([1, 2, 3, 2])}, open_axes=()
    ),
    "single-row": Example(
        (1, 2, 3), lambda net, a: net.op("AffineGrid", a, net.constant([1, 1, 1, 3]), align_corners=1), 4, open_axes=()
    ),
}


@pytest.mark.parametrize("case", GRIDS)
def test_the_map_from_an_affine_map_to_its_grid_is_the_transpose(case: str) -> None:
    expect_linear_map(GRIDS[case], dynamic=False)


def test_a_spatial_transformer() -> None:
    """The affine map and the picture depend on one input."""

    def build(net: Net, a: str) -> str:
        weight = net.constant(distinct(18, 6, seed=5) / 3)
        theta = net.op("Reshape", net.op("MatMul", net.op("Flatten", a), weight), net.constant([-1, 2, 3]))
        grid = net.op("AffineGrid", theta, net.constant([2, 2, 2, 3]))
        return net.op("GridSample", a, grid)

    case = Several({"a": distinct(2, 2, 3, 3, seed=4)}, build, 4)
    expect_gradient(case, tolerance=1e-6)
    expect_closed_ledger(case)


def steered(mode: str, padding: str, corners: int, *, deep: bool = False) -> Several:
    shape = (1, 2, 3, 4, 2) if deep else (2, 2, 3, 4)
    grid = points(1, 2, 1, 2, 3, seed=3) / 2 if deep else points(2, 2, 2, 2, seed=3)
    return Several(
        {"a": distinct(*shape, seed=1), "g": grid},
        lambda net, a, g: _sampled(net, a, g, mode=mode, padding_mode=padding, align_corners=corners),
        len(shape),
        runs=not (deep and mode == "cubic"),
    )


STEERED: Mapping[str, Several] = {
    **{f"{m}-{p}-{c}": steered(m, p, c) for m, p, c in product(MODES, PADDINGS, (0, 1))},
    **{f"3d-{m}": steered(m, "zeros", 0, deep=True) for m in MODES},
    "points-alone": Several(
        {"g": points(2, 2, 2, 2, seed=3)},
        lambda net, g: _sampled(net, net.constant(distinct(2, 2, 3, 4)), g),
        4,
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", STEERED)
def test_the_derivative_with_respect_to_the_points(case: str, dynamic: bool) -> None:
    expect_gradient(STEERED[case], dynamic=dynamic)


@pytest.mark.parametrize("case", STEERED)
def test_the_ledger_closes(case: str) -> None:
    expect_closed_ledger(STEERED[case])


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus"])
def test_the_points_receive_nothing_by_the_rules_of_relevance(rules: str) -> None:
    case = STEERED["linear-zeros-0"]
    explained = explain_seeded(case.model(), rules, case.feeds(), inputs=("a", "g"))
    np.testing.assert_array_equal(explained.relevance["g"], np.zeros_like(case.data["g"]))
    assert np.abs(explained.relevance["a"]).sum() > 0
