"""RoiAlign: averages and winners of sampled regions, and the derivative with respect to the regions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import GRADIENT, Example, expect_derivative, expect_linear_map
from tests.operators.several import Several, applied, expect_closed_ledger, expect_gradient
from tests.support.evaluate import run_onnxruntime
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray
SHAPE = (2, 2, 5, 6)
#: One inside, one that sticks out, one thinner than an element.
REGIONS = np.array(
    [[0.6137, 0.9291, 4.3417, 3.7713], [-2.3119, 1.2371, 3.1683, 8.4519], [2.2179, 3.1557, 2.7391, 3.5573]]
)
BATCH = np.array([1, 0, 1])
MODES = {"half-pixel": "half_pixel", "old": "output_half_pixel"}
OUT = {"output_height": 2, "output_width": 3}


def example(**attributes: Any) -> Example:
    """Regions known, their images named at run time."""

    def build(net: Net, a: str, batch: str = "batch") -> str:
        return net.op("RoiAlign", a, net.constant(REGIONS), batch, **{**OUT, **attributes})

    return Example(SHAPE, build, 4, {"batch": BATCH})


def attributes(coordinates: str, ratio: int, **more: Any) -> dict[str, Any]:
    return {"coordinate_transformation_mode": MODES[coordinates], "sampling_ratio": ratio, **more}


CASES: Mapping[str, dict[str, Any]] = {
    **{f"{c}-{ratio}": attributes(c, ratio) for c, ratio in product(MODES, (0, 1, 2))},
    "scaled": attributes("half-pixel", 2, spatial_scale=0.75),
    "scaled-adaptive": attributes("old", 0, spatial_scale=1.25),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_map_of_an_average_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(example(**CASES[case]), dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_derivative_of_a_maximum(case: str, dynamic: bool) -> None:
    expect_derivative(example(**CASES[case], mode="max"), dynamic=dynamic)


def steered(mode: str, case: str) -> Several:
    return Several(
        {"a": distinct(*SHAPE, seed=1), "r": REGIONS},
        applied("RoiAlign", mode=mode, **OUT, **CASES[case]),
        4,
        {"batch": BATCH},
    )


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("case", CASES)
def test_the_derivative_with_respect_to_the_regions(case: str, mode: str, dynamic: bool) -> None:
    expect_gradient(steered(mode, case), dynamic=dynamic)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("case", CASES)
def test_the_ledger_closes(case: str, mode: str) -> None:
    expect_closed_ledger(steered(mode, case))


def test_regions_receive_nothing_by_the_rules_of_relevance() -> None:
    case = steered("avg", "half-pixel-2")
    explained = explain_seeded(case.model(), "epsilon", case.feeds(), inputs=("a", "r"))
    np.testing.assert_array_equal(explained.relevance["r"], np.zeros_like(REGIONS))


def test_regions_alone() -> None:
    image = distinct(*SHAPE, seed=1)
    case = Several(
        {"r": REGIONS},
        lambda net, r: net.op("RoiAlign", net.constant(image), r, net.constant(BATCH), sampling_ratio=2, **OUT),
        4,
    )
    expect_gradient(case)
    expect_closed_ledger(case)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_there_may_be_no_regions(mode: str, ratio: int) -> None:
    """A detector that sees nothing."""
    net = Net(np.float32)
    inputs = net.input("a", SHAPE), net.input("r", ["n", 4]), net.input("batch", ["n"], np.int64)
    model = net.model(net.op("RoiAlign", *inputs, mode=mode, sampling_ratio=ratio, **OUT))
    emitted = onnxlrp.convert(model, rules=GRADIENT, target="seed", inputs=("a", "r"))
    feeds = {
        "a": distinct(*SHAPE).astype(np.float32),
        "r": np.zeros((0, 4), np.float32),
        "batch": np.zeros(0, np.int64),
    }
    result = run_onnxruntime(emitted, {**feeds, "lrp_seed": np.zeros((0, 2, 2, 3), np.float32)})
    np.testing.assert_array_equal(result["a_relevance"], np.zeros(SHAPE))
    assert result["r_relevance"].shape == (0, 4)
