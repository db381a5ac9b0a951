"""Fourier transforms: the transpose of each form, with lengths and axes known or computed at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.examples import Example, expect_linear_map
from tests.operators.several import Several, expect_closed_ledger, expect_gradient
from tests.support.explained import explain_seeded
from tests.support.gradients import distinct
from tests.support.models import Net

Array = np.ndarray


def transform(
    shape: tuple[int, ...],
    *,
    length: int | None = None,
    axis: int = -2,
    opset: int = 21,
    at_run_time: bool = False,
    **attributes: int,
) -> Example:
    """A DFT along an axis; of opset 18 the axis is an attribute."""
    given: dict[str, Array] = {}
    if at_run_time:
        given = {"length": np.array(length), "axis": np.array(axis)}

    def build(net: Net, a: str) -> str:
        count = "length" if at_run_time else ("" if length is None else net.constant(np.array(length)))
        if opset < 20:
            return net.op("DFT", a, *((count,) if count else ()), axis=axis, **attributes)
        return net.op("DFT", a, count, "axis" if at_run_time else net.constant(np.array(axis)), **attributes)

    last = len(shape) - 1
    return Example(shape, build, len(shape), given, open_axes=tuple(range(last)), opset=opset)


TRANSFORMS: Mapping[str, Example] = {
    "real": transform((2, 5, 1)),
    "complex": transform((2, 4, 2)),
    "real-one-sided": transform((2, 6, 1), onesided=1),
    "real-one-sided-odd": transform((1, 5, 1), onesided=1),
    "inverse": transform((2, 4, 2), inverse=1),
    "inverse-of-real": transform((2, 4, 1), inverse=1),
    "longer": transform((2, 4, 1), length=7),
    "shorter": transform((2, 5, 2), length=3),
    "one-sided-longer": transform((1, 4, 1), length=6, onesided=1),
    "one-sided-shorter": transform((1, 6, 1), length=4, onesided=1),
    "inverse-longer": transform((1, 3, 2), length=5, inverse=1),
    "inverse-shorter": transform((1, 5, 2), length=3, inverse=1),
    "first-axis": transform((4, 2, 2), axis=0),
    "middle-axis": transform((2, 3, 2, 1), axis=1, onesided=1),
    "to-real": transform((2, 4, 2), inverse=1, onesided=1),
    "to-real-odd": transform((2, 3, 2), length=5, inverse=1, onesided=1),
    "length-and-axis-at-run-time": transform((2, 3, 2), length=4, axis=1, at_run_time=True),
    "one-sided-at-run-time": transform((3, 2, 1), length=5, axis=0, at_run_time=True, onesided=1),
    "opset-18": transform((2, 5, 1), opset=18, axis=1),
    "opset-18-one-sided": transform((1, 5, 2, 1), opset=18, axis=1, length=6, onesided=1),
    "opset-18-inverse": transform((2, 4, 2), opset=18, axis=1, inverse=1),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", TRANSFORMS)
def test_the_map_of_a_transform_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(TRANSFORMS[case], dynamic=dynamic)


def test_a_one_sided_spectrum_with_too_many_values_is_refused() -> None:
    """Runtimes differ in what they make of the values behind half of the length."""
    case = transform((2, 6, 2), length=6, inverse=1, onesided=1)
    with pytest.raises(ConversionError, match="more values than its length needs"):
        onnxlrp.convert(case.model(), target="seed")


def frames(
    shape: tuple[int, ...], step: int = 2, window: int | None = None, length: int | None = None, **attributes: Any
) -> Example:
    def build(net: Net, a: str) -> str:
        shaped = "" if window is None else net.constant(np.hanning(window + 1)[:-1] + 0.1)
        count = () if length is None else (net.constant(np.array(length)),)
        return net.op("STFT", a, net.constant(np.array(step)), shaped, *count, **attributes)

    return Example(shape, build, 4, open_axes=(0, 1))


def _at_run_time(net: Net, a: str) -> str:
    return net.op("STFT", a, "step", "", "length", onesided=1)


FRAMES: Mapping[str, Example] = {
    "window": frames((2, 9, 1), window=4),
    "window-and-length": frames((1, 8, 1), 3, window=5, length=5),
    "length": frames((2, 7, 1), 1, length=4),
    "both-sides": frames((1, 8, 1), window=4, onesided=0),
    "complex": frames((2, 7, 2), 3, window=4, onesided=0),
    "samples-left-over": frames((1, 10, 1), 4, length=4),
    "step-and-length-at-run-time": Example(
        (1, 9, 1), _at_run_time, 4, {"step": np.array(2), "length": np.array(4)}, open_axes=(0, 1)
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", FRAMES)
def test_the_map_to_a_spectrogram_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(FRAMES[case], dynamic=dynamic)


WINDOWS: Mapping[str, Several] = {
    "real": Several(
        {"a": distinct(2, 9, 1, seed=1), "w": distinct(4, seed=2)},
        lambda net, a, w: net.op("STFT", a, net.constant(np.array(2)), w),
        4,
    ),
    "complex": Several(
        {"a": distinct(1, 7, 2, seed=1), "w": distinct(3, seed=2)},
        lambda net, a, w: net.op("STFT", a, net.constant(np.array(2)), w, onesided=0),
        4,
    ),
    "window-alone": Several(
        {"w": distinct(4, seed=2)},
        lambda net, w: net.op("STFT", net.constant(distinct(1, 8, 1)), net.constant(np.array(2)), w),
        4,
    ),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_a_window_may_depend_on_the_explained_input(case: str) -> None:
    expect_gradient(WINDOWS[case])
    expect_closed_ledger(WINDOWS[case])


def test_a_window_receives_nothing_beside_a_signal_and_its_share_of_a_constant_one() -> None:
    both, alone = WINDOWS["real"], WINDOWS["window-alone"]
    beside = explain_seeded(both.model(), "epsilon", both.feeds(), inputs=("a", "w"))
    np.testing.assert_array_equal(beside.relevance["w"], np.zeros(4))
    only = explain_seeded(alone.model(), "epsilon", alone.feeds())
    assert np.isclose(only.relevance["w"].sum(), only.seeded.sum(), rtol=1e-3)


def _features(net: Net, a: str) -> str:
    """Log power in bands, as models of sound begin: window and filter bank are made by the model."""
    window = net.op("HannWindow", net.constant(np.array(4)), output_datatype=11)
    spectrum = net.op("STFT", a, net.constant(np.array(2)), window)
    power = net.op("ReduceSum", net.op("Mul", spectrum, spectrum), net.constant([3]), keepdims=0)
    numbers = [net.constant(np.array(n)) for n in (2, 4, 16)]
    bounds = [net.constant(np.array(f)) for f in (0.5, 8.0)]
    bank = net.op("MelWeightMatrix", *numbers, *bounds, output_datatype=11)
    return net.op("Log", net.op("Add", net.op("MatMul", power, bank), net.constant(np.array(0.5))))


def test_the_ledger_of_sound_features_closes() -> None:
    expect_closed_ledger(Several({"a": distinct(1, 12, 1, seed=2)}, _features, 3))
