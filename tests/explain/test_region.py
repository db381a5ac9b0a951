"""A mask over the photo as the target: what is summed, and where it lands on the output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.explain.images import explain_images
from onnxlrp.explain.load import Photo
from onnxlrp.explain.preprocess import Frame, ImageOptions, Prepared
from onnxlrp.explain.region import Region, read_region
from tests.explain.linear import EXACT
from tests.graph.written import network, normal


def photo(height=8, width=8, frame=None) -> Prepared:
    whole = frame or Frame((height, width), (height, width), (height, width), 0, 0)
    return Prepared(Photo(None, Image.new("L", (width, height))), np.zeros((1, height, width)), whole)


def region(pixels, target=None, axis=None) -> Region:
    return Region(Path("mask.png"), Image.fromarray(np.uint8(pixels) * 255), target, axis)


def square(height=8, width=8, rows=slice(0, 4), columns=slice(4, 8)):
    pixels = np.zeros((height, width), bool)
    pixels[rows, columns] = True
    return pixels


def test_a_position_belongs_where_at_least_half_of_it_does():
    pixels = square(rows=slice(0, 3), columns=slice(4, 8))
    expected = np.zeros((4, 4), bool)
    expected[:2, 2:] = True  # the second row of positions is half in
    np.testing.assert_array_equal(region(pixels).inside(photo(), 4, 4), expected)


def test_only_the_part_of_the_photo_that_the_model_sees_counts():
    frame = Frame((8, 16), (8, 16), (8, 8), 0, 8)  # the right half
    pixels = square(width=16, rows=slice(0, 8), columns=slice(8, 12))
    found = region(pixels).inside(photo(8, 16, frame), 2, 2)
    np.testing.assert_array_equal(found, [[True, False], [True, False]])
    with pytest.raises(UsageError, match=r"covers none of the 2 x 2 positions"):
        region(square(width=16, columns=slice(0, 8))).inside(photo(8, 16, frame), 2, 2)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"the mask is 4 x 8, but .* is 8 x 8 \(height x width\)"):
        region(square(4, 8)).inside(photo(), 4, 4)


@pytest.mark.parametrize(("layout", "shape"), [("nchw", (2, 3, 4, 4)), ("nhwc", (2, 4, 4, 3))])
def test_the_class_is_summed_in_the_mask_of_each_photo(layout, shape):
    seeds = region(square(), target=1).seeds(normal(*shape, seed=1), [photo()], layout)
    expected = np.zeros((2, 3, 4, 4))
    expected[0, 1, :2, 2:] = 1
    np.testing.assert_array_equal(seeds, expected if layout == "nchw" else expected.transpose(0, 2, 3, 1))


def test_without_a_class_it_is_the_largest_at_each_position():
    values = normal(1, 3, 4, 4, seed=1)
    seeds = region(square()).seeds(values, [photo()], "nchw")
    expected = np.zeros_like(values)
    for y in range(2):
        for x in range(2, 4):
            expected[0, values[0, :, y, x].argmax(), y, x] = 1
    np.testing.assert_array_equal(seeds, expected)


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 4, 4)])
def test_a_map_without_classes_is_summed(shape):
    for target in (None, 0, 1) if len(shape) == 4 else (None,):
        seeds = region(square(), target).seeds(normal(*shape), [photo()], "nchw")
        np.testing.assert_array_equal(seeds.reshape(4, 4), square(4, 4, slice(0, 2), slice(2, 4)))


@pytest.mark.parametrize(
    ("shape", "target", "axis", "reason"),
    [
        ((1, 10), None, None, "a mask needs an output that is a map"),
        ((1, 3, 4, 4), None, 0, "a mask needs an output that is a map"),
        ((1, 3, 4, 4), 3, None, "class 3 does not exist: axis 1 .* has 3"),
    ],
)
def test_outputs_and_classes_that_do_not_fit_are_refused(shape, target, axis, reason):
    with pytest.raises(UsageError, match=reason):
        region(square(), target, axis).seeds(normal(*shape), [photo()], "nchw")


def test_a_mask_is_what_is_not_black_nor_transparent(tmp_path):
    colours = [(0, 0, 0, 255), (0, 0, 9, 255), (255, 255, 255, 255), (255, 0, 0, 0)]
    image = Image.new("RGBA", (4, 1))
    image.putdata(colours)
    image.save(tmp_path / "m.png")
    assert np.asarray(read_region(tmp_path / "m.png", None, None).mask).tolist() == [[0, 255, 255, 0]]
    for target in ("top:2", (1, 2), "seed", True):
        with pytest.raises(UsageError, match="with a mask the target is a class"):
            read_region(tmp_path / "m.png", target, None)


def test_relevance_of_a_class_in_a_mask_from_photo_to_picture(tmp_path):
    """A 1 x 1 convolution: each pixel is relevant to its own position alone, by its weight."""
    w = normal(3, 1, 1, 1, seed=2)
    model = network("g (float[N,1,8,8] photo) => (float[N,3,8,8] y) { y = Conv(photo, w) }", w=w)
    pixels = np.random.default_rng(1).integers(1, 255, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.uint8(square()) * 255).save(tmp_path / "corner.png")
    (result,) = explain_images(
        model,
        [tmp_path / "a.png"],
        options=ImageOptions(preset="raw"),
        mask=tmp_path / "corner.png",
        target=2,
        rules=EXACT,
        labels=["sky", "road", "car"],
        out_dir=tmp_path / "out",
    )
    assert result.target == "car within corner.png"
    assert result.files[0].name == f"a.{EXACT}.class-2-in-corner.png"
    with np.load(result.files[-1]) as saved:
        np.testing.assert_allclose(saved["relevance"][0], square() * pixels * w[2, 0, 0, 0], rtol=1e-5)
