"""Resize in every mode, coordinate system and rounding: the map is its transpose, whatever the forward pass does."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.examples import Example, expect_linear_map, expect_linear_map_in_onnxruntime
from tests.support.models import Net

MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
#: Of a 3 by 4 image: whole factors, fractions up and down, sizes that are no multiples, down to one row.
GEOMETRIES: Mapping[str, Mapping[str, list[float]]] = {
    "whole-factors": {"scales": [1, 1, 2, 3]},
    "fractions": {"scales": [1, 1, 1.7, 0.6]},
    "sizes-up": {"sizes": [1, 1, 5, 7]},
    "sizes-down": {"sizes": [1, 1, 1, 2]},
    "sizes-doubled": {"sizes": [1, 1, 6, 8]},
}


def resized(
    shape: tuple[int, ...],
    *,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    region: list[float] | None = None,
    **attributes: Any,
) -> Example:
    def build(net: Net, a: str) -> str:
        # Scales and regions are float32 in a float64 net as well.
        roi = net.op("Constant", value_floats=region) if region else ""
        factors = net.op("Constant", value_floats=[float(s) for s in scales]) if scales else ""
        return net.op("Resize", a, roi, factors, *([net.constant(np.array(sizes))] if sizes else []), **attributes)

    return Example(shape, build, len(shape))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", MODES)
def test_modes_and_coordinates(mode: str, coordinates: str, geometry: str) -> None:
    """Each of them with known and with open sizes, in turn."""
    example = resized((1, 1, 3, 4), mode=mode, coordinate_transformation_mode=coordinates, **GEOMETRIES[geometry])
    index = COORDINATES.index(coordinates) + list(GEOMETRIES).index(geometry)
    expect_linear_map(example, dynamic=index % 2 == 0)


@pytest.mark.parametrize(
    ("rounding", "coordinates"), list(product(ROUNDINGS, ("half_pixel", "align_corners", "asymmetric")))
)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_roundings_of_nearest_neighbours(geometry: str, rounding: str, coordinates: str) -> None:
    at = {"mode": "nearest", "nearest_mode": rounding, "coordinate_transformation_mode": coordinates}
    index = ROUNDINGS.index(rounding) + list(GEOMETRIES).index(geometry)
    expect_linear_map(resized((1, 1, 3, 4), **at, **GEOMETRIES[geometry]), dynamic=index % 2 == 0)


CASES: Mapping[str, Example] = {
    "antialias-linear": resized((1, 1, 6, 5), scales=[1, 1, 0.5, 0.6], mode="linear", antialias=1),
    "antialias-cubic": resized((1, 1, 6, 5), sizes=[1, 1, 4, 3], mode="cubic", antialias=1),
    "cubic-inside-only": resized((1, 1, 4, 5), sizes=[1, 1, 7, 3], mode="cubic", exclude_outside=1),
    "cubic-other-coefficient": resized((1, 1, 4, 3), scales=[1, 1, 2, 2], mode="cubic", cubic_coeff_a=-0.5),
    "some-axes": resized((1, 2, 4, 3), sizes=[7, 2], axes=[2, 3], mode="linear"),
    "axes-in-another-order": resized((1, 2, 4, 3), scales=[2, 0.7], axes=[3, 2], mode="linear"),
    "one-axis": resized((2, 2, 3, 4), scales=[1.5], axes=[3], mode="linear"),
    "three-dimensions-linear": resized((1, 1, 2, 3, 2), sizes=[1, 1, 3, 4, 5], mode="linear"),
    "three-dimensions-nearest": resized((1, 1, 2, 3, 2), sizes=[1, 1, 3, 4, 5], mode="nearest"),
    "one-dimension": resized((2, 2, 5), sizes=[2, 2, 8], mode="linear"),
    "a-matrix": resized((3, 4), sizes=[5, 6], mode="linear"),
    "channels-last": resized((1, 3, 4, 2), sizes=[1, 5, 7, 2], mode="nearest"),
    "channels": resized((1, 3, 2, 2), scales=[1, 2, 1, 1], mode="nearest"),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_other_attributes(case: str, dynamic: bool) -> None:
    expect_linear_map(CASES[case], dynamic=dynamic)


def test_negative_axes() -> None:
    """`onnx.reference` does not take them."""
    example = resized((1, 2, 4, 3), scales=[2.5], axes=[-1], mode="nearest")
    expect_linear_map_in_onnxruntime(example, dynamic=False)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
def test_nearest_neighbours_that_keep_the_aspect_ratio(policy: str, dynamic: bool) -> None:
    sizes = {"sizes": [5, 8], "axes": [2, 3]}
    expect_linear_map(resized((1, 2, 3, 4), mode="nearest", keep_aspect_ratio_policy=policy, **sizes), dynamic=dynamic)


def test_interpolation_that_keeps_the_aspect_ratio_is_refused() -> None:
    example = resized((1, 1, 3, 4), sizes=[1, 1, 5, 8], mode="linear", keep_aspect_ratio_policy="not_larger")
    with pytest.raises(ConversionError, match="keep_aspect_ratio_policy"):
        onnxlrp.convert(example.model(), target="seed")


_CROP = {"coordinate_transformation_mode": "tf_crop_and_resize"}
CROPS: Mapping[str, Example] = {
    "inside": resized(
        (1, 1, 5, 4), sizes=[1, 1, 3, 3], region=[0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9], mode="linear", **_CROP
    ),
    "beyond": resized(
        (1, 1, 5, 4),
        sizes=[1, 1, 4, 6],
        region=[0, 0, 0.2, -0.3, 1, 1, 1.4, 0.9],
        mode="linear",
        extrapolation_value=2.5,
        **_CROP,
    ),
    "nearest-on-axes": resized(
        (1, 2, 5, 4), sizes=[3, 5], region=[0.2, 0.1, 1.2, 0.8], axes=[2, 3], mode="nearest", **_CROP
    ),
    "same-size": resized((1, 1, 5, 4), sizes=[1, 1, 5, 3], region=[0, 0, 0.2, 0, 1, 1, 0.8, 1], mode="linear", **_CROP),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CROPS)
def test_crop_and_resize(case: str, dynamic: bool) -> None:
    expect_linear_map(CROPS[case], dynamic=dynamic)


def _upsampled(net: Net, a: str) -> str:
    """Upsample as it was up to opset 8 and in opset 9."""
    if net.opset < 9:
        return net.op("Upsample", a, scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")
    factors = numpy_helper.from_array(np.array([1, 1, 2, 3], np.float32))
    return net.op("Upsample", a, net.op("Constant", value=factors), mode="linear")


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
def test_an_old_upsample_is_lifted(opset: int, dynamic: bool) -> None:
    expect_linear_map_in_onnxruntime(Example((1, 2, 3, 2), _upsampled, 4, opset=opset), dynamic=dynamic)
