"""Pools by a norm: derivatives in every attribute, and shares in proportion to the powers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.examples import GRADIENT, Example, expect_derivative, one
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.explained import explain_seeded
from tests.support.models import Net


def pool(*shape: int, **attributes: Any) -> Example:
    return one("LpPool", shape, **attributes)


POOLS: Mapping[str, Example] = {
    "plain": pool(1, 2, 4, 5, kernel_shape=[2, 3]),
    "absolute": pool(1, 2, 4, 5, kernel_shape=[2, 3], p=1),
    "cubes": pool(1, 2, 4, 5, kernel_shape=[2, 3], p=3),
    "strides-pads": pool(2, 1, 5, 6, kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 2, 1]),
    "ceil": pool(1, 2, 6, 5, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    "ceil-pads": pool(1, 1, 4, 4, kernel_shape=[1, 2], strides=[3, 3], pads=[0, 1, 0, 1], ceil_mode=1),
    "dilated": pool(1, 1, 6, 5, kernel_shape=[2, 2], dilations=[2, 3]),
    "same-upper": pool(1, 1, 5, 4, kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_UPPER"),
    "same-lower": pool(1, 1, 5, 4, kernel_shape=[2, 3], strides=[1, 2], auto_pad="SAME_LOWER"),
    "one-dimension": pool(2, 2, 7, kernel_shape=[3], strides=[2]),
    "three-dimensions": pool(1, 1, 3, 3, 3, kernel_shape=[2, 2, 2], p=1),
    "global": one("GlobalLpPool", (2, 3, 2, 2)),
    "global-cubes": one("GlobalLpPool", (2, 2, 5), p=3),
}


#: Shape inference counts a last window in the padding, which the runtime leaves out.
STATIC = [case for case in POOLS if case != "ceil-pads"]


@pytest.mark.parametrize("case", STATIC)
def test_derivatives(case: str) -> None:
    expect_derivative(POOLS[case], tolerance=1e-6)


@pytest.mark.parametrize("case", ["plain", "strides-pads", "ceil", "ceil-pads", "global"])
def test_derivatives_with_open_sizes(case: str) -> None:
    expect_derivative(POOLS[case], dynamic=True, tolerance=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_shares_are_in_proportion_to_the_powers(p: int) -> None:
    example = pool(2, 3, 4, kernel_shape=[2], strides=[2], p=p)
    explained = explain_seeded(example.model(), "epsilon", {"a": example.data})
    powers = np.abs(example.data.reshape(2, 3, 2, 2)) ** p
    shares = powers / powers.sum(axis=3, keepdims=True)
    expected = (shares * explained.seeded[..., None]).reshape(2, 3, 4)
    assert relative_l2(explained.relevance["a"], expected) < 1e-3


@pytest.mark.parametrize("rules", ["default", "epsilon", GRADIENT])
@pytest.mark.parametrize("op", ["LpPool", "GlobalLpPool"])
def test_zeros_stay_zero_in_onnxruntime(op: str, rules: str) -> None:
    net = Net(np.float32)
    attributes = {"kernel_shape": [2, 2]} if op == "LpPool" else {}
    model = net.model(net.op(op, net.input("a", (1, 1, 4, 4)), p=2, **attributes), ranks=[4])
    emitted = onnxlrp.convert(model, rules=rules)
    assert not run_onnxruntime(emitted, {"a": np.zeros((1, 1, 4, 4), np.float32)})["a_relevance"].any()


def test_padding_that_is_known_only_at_run_time_is_refused() -> None:
    model = POOLS["same-upper"].model(dynamic=True)
    with pytest.raises(ConversionError, match="SAME padding"):
        onnxlrp.convert(model, rules=GRADIENT)
