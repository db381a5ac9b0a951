"""Pools in unusual attributes: each window's share or winner, in float64 and as onnxruntime computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, ValueInfoProto

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.examples import (
    Example,
    expect_derivative,
    expect_linear_map,
    expect_linear_map_in_onnxruntime,
    one,
)
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.models import Net

Array = np.ndarray


def average(*shape: int, **attributes: Any) -> Example:
    return one("AveragePool", shape, **attributes)


AVERAGES: Mapping[str, Example] = {
    "ceil": average(1, 1, 5, 6, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    "ceil-pads": average(1, 2, 6, 5, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1], ceil_mode=1),
    "ceil-pads-counted": average(
        1, 1, 6, 5, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1], ceil_mode=1, count_include_pad=1
    ),
    "dilated-pads": average(1, 1, 6, 7, kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 2, 0, 1]),
    "dilated-pads-counted": average(
        1, 1, 6, 7, kernel_shape=[2, 3], dilations=[3, 2], strides=[1, 2], pads=[1, 2, 1, 1], count_include_pad=1
    ),
    "dilated-ceil": average(1, 1, 7, 8, kernel_shape=[2, 2], dilations=[2, 3], strides=[2, 3], ceil_mode=1),
    "gaps": average(1, 2, 7, 6, kernel_shape=[1, 2], strides=[3, 4]),
    "same-upper": average(1, 1, 5, 4, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "same-lower": average(1, 1, 5, 4, kernel_shape=[2, 3], strides=[1, 2], auto_pad="SAME_LOWER"),
    "valid": average(1, 1, 5, 4, kernel_shape=[2, 3], strides=[2, 1], auto_pad="VALID"),
    "three-dimensions": average(1, 1, 3, 4, 3, kernel_shape=[2, 2, 2], strides=[1, 2, 1], pads=[0, 1, 0, 1, 0, 1]),
    "one-dimension-ceil": average(2, 2, 8, kernel_shape=[3], strides=[3], ceil_mode=1),
    "global": one("GlobalAveragePool", (2, 2, 3, 2, 2)),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", AVERAGES)
def test_averages_share_each_window(case: str, dynamic: bool) -> None:
    expect_linear_map(AVERAGES[case], dynamic=dynamic)


@st.composite
def averages(draw: st.DrawFn) -> Example:
    """AveragePool in one to three dimensions, each attribute at random, valid in onnxruntime."""
    n = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(n)]
    dilations = [draw(st.integers(1, 2)) for _ in range(n)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    size = [r + draw(st.integers(0, 4 if n < 3 else 1)) for r in reach]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [draw(st.integers(1, 3)) for _ in range(n)]}
    auto = draw(st.sampled_from(("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")))
    if auto == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        attributes |= {"dilations": dilations, "ceil_mode": draw(st.integers(0, 1))}
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    else:
        attributes["auto_pad"] = auto
        attributes["strides"] = [min(s, k + 1) for s, k in zip(attributes["strides"], kernel, strict=True)]
        size = [max(s, k) for s, k in zip(size, kernel, strict=True)]
    return average(2, 2, *size, **attributes)


@pytest.mark.parametrize("op", ["Conv", "AveragePool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_negative_same_padding_is_refused(op: str, auto_pad: str) -> None:
    """Kernel 1, stride 4: onnxruntime takes other elements in one operator than in the other."""
    net = Net(np.float32)
    weight = [net.constant(np.ones((1, 1, 1)))] if op == "Conv" else []
    y = net.op(op, net.input("a", (1, 1, 8)), *weight, kernel_shape=[1], strides=[4], auto_pad=auto_pad)
    with pytest.raises(ConversionError, match="SAME padding"):
        onnxlrp.convert(net.model(y), rules="epsilon")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(example=averages())
def test_averages_of_any_geometry(example: Example) -> None:
    """With open sizes, so that shape inference cannot be wrong about a last window in the padding."""
    expect_linear_map_in_onnxruntime(example, dynamic=True)


def _with_indices(net: Net, a: str) -> str:
    """Both outputs are used: the indices, as numbers, carry no relevance."""
    value = net.op("MaxPool", a, outputs=2, kernel_shape=[2, 2], strides=[1, 1])
    return net.op("Add", value, net.op("Cast", f"{value}_1", to=11 if net.dtype is np.float64 else 1))


def _with_column_major_indices(net: Net, a: str) -> str:
    value = net.op("MaxPool", a, outputs=2, kernel_shape=[2, 3], storage_order=1)
    return net.op("Sub", value, net.op("Cast", f"{value}_1", to=11 if net.dtype is np.float64 else 1))


MAXIMA: Mapping[str, Example] = {
    "ceil": one("MaxPool", (1, 1, 6, 5), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    "ceil-pads": one("MaxPool", (1, 2, 5, 6), kernel_shape=[3, 2], strides=[2, 3], pads=[1, 1, 0, 1], ceil_mode=1),
    "dilated-pads": one("MaxPool", (1, 1, 6, 6), kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 2]),
    "same-lower": one("MaxPool", (1, 1, 5, 4), kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    "valid": one("MaxPool", (1, 1, 5, 5), kernel_shape=[3, 2], strides=[2, 2], auto_pad="VALID"),
    "three-dimensions": one("MaxPool", (1, 2, 3, 3, 3), kernel_shape=[2, 2, 2], pads=[0, 0, 1, 1, 0, 0]),
    "indices-used-too": Example((1, 1, 4, 4), _with_indices, 4),
    "column-major-indices-used-too": Example((1, 1, 4, 4), _with_column_major_indices, 4),
    "reduce-over-several": one("ReduceMax", (2, 3, 2, 2), [0, -1], rank=2, keepdims=0),
    "reduce-nothing": one("ReduceMax", (2, 3), noop_with_empty_axes=1),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", MAXIMA)
def test_maxima_go_to_the_winner(case: str, dynamic: bool) -> None:
    expect_derivative(MAXIMA[case], dynamic=dynamic)


def test_a_last_window_in_the_padding_alone_is_left_out() -> None:
    """Shape inference counts it, the runtime does not; so this can only be told with open sizes."""
    example = average(1, 1, 4, 4, kernel_shape=[1, 2], strides=[3, 3], pads=[0, 1, 0, 1], ceil_mode=1)
    expect_linear_map(example, dynamic=True)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 3, 2, 2)])
def test_global_maxima_in_one_and_three_dimensions(shape: tuple[int, ...]) -> None:
    """In onnxruntime: `onnx.reference` knows two dimensions only."""
    example = one("GlobalMaxPool", shape)
    a = example.data.astype(np.float32)
    flat = a.reshape(*shape[:2], -1)
    winners = flat == flat.max(axis=2, keepdims=True)
    seed = np.random.default_rng(5).normal(size=(*shape[:2], *[1] * (len(shape) - 2))).astype(np.float32)
    expected = (winners * flat * seed.reshape(*shape[:2], 1)).reshape(shape)
    for dynamic in (False, True):
        model = example.model(dynamic=dynamic, dtype=np.float32)
        emitted = onnxlrp.convert(model, rules="epsilon-plus", target="seed")
        map_ = run_onnxruntime(emitted, {"a": a, "lrp_seed": seed})["a_relevance"]
        assert relative_l2(map_, expected) < 1e-6


def scattered(indices: Array, values: Array, size: int) -> Array:
    """Each value added at its index."""
    total = np.zeros(size)
    np.add.at(total, indices.ravel(), values.ravel())
    return total


def pooled(attributes: Mapping[str, Any], *, indices: bool) -> ModelProto:
    """MaxPool alone, of open sizes; `indices` makes onnxruntime's own Indices an output."""
    net = Net(np.float32)
    value = net.op("MaxPool", net.input("a", ("n", "c", "h", "w")), outputs=2 if indices else 1, **attributes)
    model = net.model(value, ranks=[4])
    if indices:
        model.graph.output.append(ValueInfoProto(name=f"{value}_1"))
    return model


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padded=st.booleans(),
    ceil=st.booleans(),
    levels=st.integers(1, 3),
)
def test_ties_fall_where_onnxruntime_says(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    padded: bool,
    ceil: bool,
    levels: int,
) -> None:
    """With one to three different values nearly every window has several winners; one level makes all equal."""
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if any(r > s for r, s in zip(reach, size, strict=True)):
        return
    shape = (2, 2, *size)
    attributes = {"kernel_shape": list(kernel), "strides": list(strides), "dilations": list(dilations)}
    attributes |= {"ceil_mode": int(ceil), "pads": [int(padded and k > 1) for k in kernel] * 2}
    a = (1 + np.random.default_rng(sum(size)).integers(0, levels, shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(pooled(attributes, indices=True).SerializeToString())
    y, winners = session.run(None, {"a": a})
    seed = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    emitted = onnxlrp.convert(pooled(attributes, indices=False), rules="epsilon-plus", target="seed")
    for optimised in (False, True):
        map_ = run_onnxruntime(emitted, {"a": a, "lrp_seed": seed}, optimised=optimised)["a_relevance"]
        assert relative_l2(map_.ravel(), scattered(winners, seed * y, a.size)) < 1e-6


def test_column_major_indices_do_not_matter() -> None:
    """storage_order changes the Indices output alone, not which element wins."""
    maps = []
    for order in (0, 1):
        net = Net(np.float32)
        value = net.op("MaxPool", net.input("a", (1, 1, 4, 5)), outputs=2, kernel_shape=[2, 3], storage_order=order)
        emitted = onnxlrp.convert(net.model(value), rules="epsilon-plus", target="seed")
        a = np.random.default_rng(2).normal(size=(1, 1, 4, 5)).astype(np.float32)
        maps.append(run_onnxruntime(emitted, {"a": a, "lrp_seed": np.ones((1, 1, 3, 3), np.float32)})["a_relevance"])
    assert np.abs(maps[0]).max() > 0
    np.testing.assert_array_equal(maps[0], maps[1])
