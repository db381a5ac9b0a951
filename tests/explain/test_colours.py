"""The colour scale is signed, symmetric about zero, and not ruled by single pixels."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.explain.colours import TABLE, Scale, scale_for, sparse_scale, ticks


def test_zero_is_white_positive_is_red_and_negative_is_blue():
    colours = Scale(2.0, 0.0).colours(np.array([[0.0, 2.0, -2.0, 0.5, -0.5]]))[0].astype(int)
    assert colours[0].tolist() == [255, 255, 255]
    for red, blue in ((1, 2), (3, 4)):
        assert colours[red][0] > colours[red][2] + 20 and colours[blue][2] > colours[blue][0] + 20


def test_colours_grow_darker_with_size_on_both_sides():
    light = TABLE.astype(int).sum(axis=1)
    assert TABLE.shape == (256, 3)
    assert (np.diff(light[1:129]) > 0).all() and (np.diff(light[128:]) < 0).all()


def test_values_beyond_the_limit_get_the_strongest_colour():
    colours = Scale(1.0, 0.0).colours(np.array([[1.0, 50.0, -1.0, -50.0]]))[0]
    assert (colours[0] == colours[1]).all() and (colours[2] == colours[3]).all()


def test_single_pixels_do_not_pale_the_rest():
    values = np.linspace(-1, 1, 10_000).reshape(100, 100)
    values[0, 0] = 1e6
    scale = scale_for(values)
    assert 0.99 < scale.limit < 1.0 and scale.beyond == pytest.approx(0.5, abs=0.02)


def test_a_map_with_few_pixels_takes_its_largest():
    values = np.zeros((100, 100))
    values[3, 3] = -4.0
    assert scale_for(values) == Scale(4.0, 0.0)


def test_a_map_of_zeros_is_said_to_be_empty_and_white():
    scale = scale_for(np.zeros((2, 2)))
    assert scale.empty and (scale.colours(np.zeros((2, 2))) == 255).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_maps_of_one_sign_keep_the_symmetric_scale(sign):
    values = sign * np.arange(1.0, 101.0).reshape(10, 10)
    scale = scale_for(values)
    assert 99 < scale.limit <= 100
    assert (scale.colours(values)[..., 0 if sign > 0 else 2] >= scale.colours(values)[..., 2 if sign > 0 else 0]).all()


def test_over_a_photo_zero_is_clear_and_the_limit_covers():
    ground = np.full((1, 4, 3), 90.0)
    laid = Scale(2.0, 0.0).over(ground, np.array([[0.0, 1.0, 2.0, -9.0]]))[0].astype(int)
    full = Scale(2.0, 0.0).colours(np.array([[2.0, -2.0]]))[0].astype(int)
    assert laid[0].tolist() == [90, 90, 90] and laid[1][0] > laid[1][2]
    assert laid[2].tolist() == full[0].tolist() and laid[3].tolist() == full[1].tolist()


def test_small_values_do_not_lighten_a_dark_photo():
    dark = np.zeros((1, 1, 3))
    assert Scale(1.0, 0.0).over(dark, np.array([[0.05]])).max() < 40


def test_ticks_are_symmetric_and_share_a_power_of_ten():
    def numbers(limit, count=5):
        return [text for _, text in ticks(limit, count)]

    assert numbers(0.0123456) == ["-0.0123", "-0.00617", "0", "+0.00617", "+0.0123"]
    assert numbers(1.26e-4) == ["-1.26e-4", "-0.63e-4", "0", "+0.63e-4", "+1.26e-4"]
    assert numbers(4e7, 3) == ["-4e7", "0", "+4e7"]
    assert [value for value, _ in ticks(2.0)] == [-2.0, -1.0, 0.0, 1.0, 2.0]


def test_a_sparse_scale_ends_where_the_larger_cells_hold_half_of_all_relevance():
    values = np.zeros((50, 50))
    values[0, :5] = [4, -3, 2, 2, -1]  # 4 + 3 reach half of 12
    scale = sparse_scale(values)
    assert (scale.limit, scale.empty) == (3.0, False)
    assert scale.beyond == pytest.approx(100 / 2500)
    even = sparse_scale(np.full((4, 4), -2.0))
    assert (even.limit, even.beyond) == (2.0, 0.0)


def test_a_sparse_scale_of_nothing_is_empty():
    assert sparse_scale(np.zeros((3, 3))).empty and sparse_scale(np.zeros((0, 3))).empty
