"""The report picture holds what it promises, inside its borders."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxlrp.explain.colours import scale_for
from onnxlrp.explain.page import Caption
from onnxlrp.explain.picture import heatmap_picture, overlay_picture, panel_size, report_picture


def gray(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), (120, 120, 120))


def report(values: np.ndarray, caption: Caption) -> np.ndarray:
    return np.asarray(report_picture(values, gray, scale_for(values), caption)).astype(int)


CAPTION = Caption("Egyptian cat", "class 285 - probability 94.1 %", ("model m.onnx",))


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((28, 28), (448, 448)), ((224, 224), (448, 448)), ((300, 150), (300, 150)), ((896, 448), (448, 224))],
)
def test_panels_are_whole_multiples_or_fit_the_panel(shape, shown):
    assert panel_size(*shape) == shown


@pytest.mark.parametrize("shape", [(28, 28), (224, 224), (48, 640), (640, 48), (1, 1), (1200, 900)])
def test_nothing_is_drawn_over_the_margin(shape):
    values = np.random.default_rng(1).normal(size=shape)
    long = Caption("word " * 60 + "x" * 400, "some detail " * 30, ("foot " * 80,))
    page = report(values, long)
    for edge in (page[:16], page[-16:], page[:, :16], page[:, -16:]):
        assert (edge == 255).all()


def test_the_panels_show_photo_and_signed_map():
    values = np.full((8, 8), 1.0)
    values[:, :4] = -1.0
    page = report(values, CAPTION)
    flat = page.reshape(-1, 3)
    assert (flat == 120).all(axis=1).sum() >= 440 * 440  # the photo
    strongest_red, strongest_blue = scale_for(values).colours(np.array([[1.0, -1.0]]))[0].astype(int)
    for colour in (strongest_red, strongest_blue):
        assert (flat == colour).all(axis=1).sum() >= 2 * 220 * 440  # half of the heatmap, and of the overlay


def test_a_longer_text_makes_a_higher_picture_rather_than_a_cut_one():
    values = np.ones((16, 16))
    assert report(values, Caption("word " * 100)).shape[0] > report(values, Caption("word")).shape[0]


def test_an_empty_map_is_drawn_white():
    values = np.zeros((224, 224))
    assert (np.asarray(heatmap_picture(values, scale_for(values))) == 255).all()
    assert report(values, CAPTION).shape[0] > 448


def test_a_heatmap_keeps_its_pixels_and_tiny_ones_are_enlarged():
    values = np.random.default_rng(2).normal(size=(120, 200))
    scale = scale_for(values)
    np.testing.assert_array_equal(np.asarray(heatmap_picture(values, scale)), scale.colours(values))
    tiny = np.array([[1.0, -1.0], [0.0, 1.0]])
    enlarged = np.asarray(heatmap_picture(tiny, scale_for(tiny)))
    assert enlarged.shape == (448, 448, 3)
    np.testing.assert_array_equal(enlarged[::224, ::224], scale_for(tiny).colours(tiny))


def test_an_overlay_leaves_the_photo_gray_where_relevance_is_zero():
    values = np.zeros((120, 120))
    values[:, 60:] = 3.0
    red = Image.new("RGB", (120, 120), (200, 30, 30))
    picture = np.asarray(overlay_picture(values, lambda height, width: red, scale_for(values))).astype(int)
    clear, covered = picture[0, 0], picture[0, 119]
    assert clear.max() - clear.min() == 0 and covered[0] > covered[2]
