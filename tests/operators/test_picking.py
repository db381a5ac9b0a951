"""Picking by conditions, lengths and recorded positions: relevance goes back to where each value stood."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import Example, at_run_time, expect_linear_map, expect_linear_map_in_onnxruntime, one
from tests.operators.several import Several, applied, expect_closed_ledger, expect_gradient
from tests.support.evaluate import run_onnxruntime
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray


def _compressed(net: Net, a: str) -> str:
    """Columns whose first element is positive: the condition depends on the data."""
    first = net.op("Squeeze", net.op("Slice", a, net.constant([0]), net.constant([1])), net.constant([0]))
    return net.op("Compress", a, net.op("Greater", first, net.constant(np.array(0.0))), axis=1)


def _unpooled(net: Net, a: str) -> str:
    pooled = net.op("MaxPool", a, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    return net.op("MaxUnpool", pooled, f"{pooled}_1", kernel_shape=[2, 2], strides=[2, 2])


def _unpooled_overlapping(net: Net, a: str) -> str:
    """Neighbouring windows share their largest element."""
    pooled = net.op("MaxPool", a, outputs=2, kernel_shape=[2, 2])
    return net.op("MaxUnpool", pooled, f"{pooled}_1", kernel_shape=[2, 2])


def _unpooled_larger(net: Net, a: str) -> str:
    """One row and one column more than the kernel and its strides give."""
    positions = net.constant(np.array([[[[5, 3], [2, 13]]]]))
    return net.op("MaxUnpool", a, positions, net.constant([1, 1, 5, 5]), kernel_shape=[2, 2], strides=[2, 2])


def _hot(net: Net) -> tuple[str, str]:
    """Indices of which some are counted from the end or out of range, and the depth."""
    return net.constant([[1, -1, 3], [0, 5, 2]]), net.constant(np.array(4))


CASES: Mapping[str, Example] = {
    "compress": one("Compress", (3, 2), np.array([False, True, True]), axis=0),
    "compress-short-condition": one("Compress", (2, 4), np.array([True, False, True]), axis=-1),
    "compress-flat": one("Compress", (2, 3), np.array([True, False, False, True, True, False]), rank=1),
    "trilu-upper": one("Trilu", (2, 3, 4)),
    "trilu-lower-shifted": one("Trilu", (4, 3), np.array(-1), upper=0),
    "trilu-at-run-time": at_run_time("Trilu", (3, 3), None, {"upper": 1}, k=np.array(1)),
    "reverse-sequence": one("ReverseSequence", (4, 3, 2), [4, 1, 3]),
    "reverse-sequence-batch-first": at_run_time(
        "ReverseSequence", (3, 4), None, {"batch_axis": 0, "time_axis": 1}, lengths=[2, 4, 1]
    ),
    "crop": one("CenterCropPad", (5, 4), [2, 3]),
    "crop-odd-and-pad-odd": one("CenterCropPad", (2, 7, 3), [4, 6], axes=[1, 2]),
    "crop-pad-negative-axis": one("CenterCropPad", (2, 3, 4), [5], axes=[-2]),
    "crop-pad-at-run-time": at_run_time("CenterCropPad", (3, 6), size=[6, 3]),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(CASES[case], dynamic=dynamic)


SELECTING: Mapping[str, Several] = {
    "compress-by-the-data": Several({"a": distinct(3, 4, seed=4)}, _compressed, 2),
    "unpool": Several({"a": distinct(1, 2, 4, 4, seed=4)}, _unpooled, 4),
    "unpool-overlapping": Several({"a": distinct(1, 1, 4, 3, seed=4)}, _unpooled_overlapping, 4),
    "unpool-to-a-size": Several({"a": distinct(1, 1, 2, 2, seed=4)}, _unpooled_larger, 4, runs=False),
    "top": Several({"a": distinct(3, 4, seed=4)}, applied("TopK", [2], outputs=2), 2),
    "bottom-of-axis-0": Several({"a": distinct(4, 3, seed=4)}, applied("TopK", [2], outputs=2, axis=0, largest=0), 2),
    "top-at-run-time": Several({"a": distinct(2, 5, seed=4)}, applied("TopK", outputs=2), 2, {"k": np.array([3])}),
    "unique": Several({"a": distinct(5, seed=4)}, applied("Unique"), 1),
    "unique-flat": Several({"a": distinct(2, 3, seed=4)}, applied("Unique", outputs=4), 1),
    "unique-rows": Several({"a": distinct(3, 2, seed=4)}, applied("Unique", axis=0), 2),
    "unique-columns": Several({"a": distinct(2, 3, seed=4)}, applied("Unique", axis=1, outputs=3), 2),
    "one-hot": Several({"a": np.array([-1.5, 0.7])}, lambda net, a: net.op("OneHot", *_hot(net), a), 3),
    "one-hot-axis-0": Several({"a": np.array([0.5, 2.0])}, lambda net, a: net.op("OneHot", *_hot(net), a, axis=0), 3),
    "pad-value": Several(
        {"a": distinct(2, 3, seed=4), "v": np.array(0.4)},
        lambda net, a, v: net.op("Pad", a, net.constant([1, 0, 0, 2]), v),
        2,
    ),
    "pad-value-of-a-constant": Several(
        {"v": np.array(0.4)},
        lambda net, v: net.op("Pad", net.constant(distinct(2, 3)), net.constant([1, -1, 0, 2]), v),
        2,
    ),
    "pad-value-some-axes-at-run-time": Several(
        {"a": distinct(2, 3, seed=4), "v": np.array(0.4)},
        lambda net, a, v, pads: net.op("Pad", a, pads, v, net.constant([1])),
        2,
        {"pads": np.array([2, 1])},
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", SELECTING)
def test_the_derivative(case: str, dynamic: bool) -> None:
    expect_gradient(SELECTING[case], dynamic=dynamic)


@pytest.mark.parametrize("case", SELECTING)
def test_the_ledger_closes(case: str) -> None:
    expect_closed_ledger(SELECTING[case])


@pytest.mark.parametrize("outputs", [1, 2], ids=["values", "values-and-indices"])
@pytest.mark.parametrize("axis", [None, 1], ids=["flat", "axis-1"])
def test_of_equal_values_the_first_one_is_what_unique_found(axis: int | None, outputs: int) -> None:
    net = Net(np.float32)
    a = np.array([[2, 1, 2, 1], [3, 5, 3, 5]], np.float32)
    attributes = {} if axis is None else {"axis": axis}
    model = net.model(
        net.op("Unique", net.input("a", a.shape), outputs=outputs, **attributes), ranks=[2 if axis else 1]
    )
    count = 4 if axis is None else 2
    seed = np.arange(1.0, 5.0, dtype=np.float32).reshape((4,) if axis is None else (2, 2))
    emitted = onnxlrp.convert(model, rules="epsilon", target="seed")
    relevance = run_onnxruntime(emitted, {"a": a, "lrp_seed": seed})["a_relevance"]
    expected = np.zeros_like(a)
    expected[:, :2] = [[4, 1], [9, 20]] if count == 4 else [[4, 1], [12, 15]]
    np.testing.assert_array_equal(relevance, expected)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
def test_unpooling_to_a_size_is_undone_as_the_runtime_does_it(dynamic: bool) -> None:
    """Positions count in the larger tensor for onnxruntime, and in the usual one for `onnx.reference`."""
    expect_linear_map_in_onnxruntime(Example((1, 1, 2, 2), _unpooled_larger, 4), dynamic=dynamic)


def test_top_k_without_its_indices() -> None:
    net = Net()
    model = net.model(net.op("TopK", net.input("a", [4]), net.constant([2]), outputs=2))
    model.graph.node[0].output[1] = ""
    explained = explain_seeded(model, "epsilon", {"a": np.array([1.0, 3.0, 2.0, -4.0])}, seed=np.array([1.0, 10.0]))
    np.testing.assert_array_equal(explained.relevance["a"], [0.0, 3.0, 20.0, 0.0])


def test_equal_values_of_top_k_go_where_the_indices_say() -> None:
    net = Net()
    model = net.model(net.op("TopK", net.input("a", [4]), net.constant([2]), outputs=2))
    explained = explain_seeded(model, "epsilon", {"a": np.array([1.0, 3.0, 3.0, 3.0])}, seed=np.array([1.0, 10.0]))
    np.testing.assert_array_equal(explained.relevance["a"], [0.0, 3.0, 30.0, 0.0])
