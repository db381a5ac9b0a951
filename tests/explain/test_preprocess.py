"""Photos become the numbers that presets and options promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import ImageInput
from onnxlrp.explain.load import Photo
from onnxlrp.explain.preprocess import ImageOptions, recipe_for
from onnxlrp.explain.presets import PRESETS


def photo(height: int, width: int, colour=(51, 102, 204), mode="RGB") -> Photo:
    return Photo(Path("photo.png"), Image.new(mode, (width, height), colour))


def model(channels=3, height: int | None = 224, width: int | None = 224, layout="nchw", dtype="float32") -> ImageInput:
    return ImageInput("x", layout, channels, None, height, width, np.dtype(dtype))


def prepared(options: ImageOptions, image_input: ImageInput, given: Photo):
    return recipe_for(options, image_input).prepare(given)


#: What each preset makes of the colour (51, 102, 204), worked out by hand from its published definition.
EXPECTED = {
    "imagenet": [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.8 - 0.406) / 0.225],
    "imagenet-255": [51 - 123.675, 102 - 116.28, 204 - 103.53],
    "caffe": [204 - 103.939, 102 - 116.779, 51 - 123.68],
    "inception": [-0.6, -0.2, 0.6],
    "clip": [
        (0.2 - 0.48145466) / 0.26862954,
        (0.4 - 0.4578275) / 0.26130258,
        (0.8 - 0.40821073) / 0.27577711,
    ],
    "cifar10": [(0.2 - 0.4914) / 0.2470, (0.4 - 0.4822) / 0.2435, (0.8 - 0.4465) / 0.2616],
    "mnist": [(0.2 - 0.1307) / 0.3081, (0.4 - 0.1307) / 0.3081, (0.8 - 0.1307) / 0.3081],
    "unit": [0.2, 0.4, 0.8],
    "raw": [51, 102, 204],
}


def test_every_preset_is_listed_here():
    assert set(EXPECTED) == set(PRESETS)


@pytest.mark.parametrize("name", EXPECTED)
def test_presets_normalise_as_published(name):
    array = prepared(ImageOptions(preset=name), model(height=8, width=8), photo(8, 8)).array
    np.testing.assert_allclose(array, np.broadcast_to(np.reshape(EXPECTED[name], (3, 1, 1)), (3, 8, 8)), rtol=1e-5)


def test_without_a_preset_colour_gets_imagenet_and_gray_gets_raw_pixels():
    colour = recipe_for(ImageOptions(), model())
    gray = recipe_for(ImageOptions(), model(channels=1))
    assert colour.preset.name == "imagenet" and colour.describe().startswith("imagenet: RGB, NCHW")
    assert gray.preset.name == "raw" and gray.describe().startswith("raw: gray, NCHW")


def test_numbers_alone_count_in_zero_to_one_as_in_pytorch():
    array = prepared(ImageOptions(mean=(0.5,), std=(0.25,)), model(height=1, width=1), photo(1, 1)).array
    np.testing.assert_allclose(array.ravel(), [-1.2, -0.4, 1.2], rtol=1e-6)


def test_a_mean_of_pixel_size_without_scale_is_refused():
    with pytest.raises(UsageError, match="--scale 1"):
        recipe_for(ImageOptions(mean=(123.7, 116.3, 103.5)), model())
    assert recipe_for(ImageOptions(mean=(123.7, 116.3, 103.5), scale=1.0), model()).preset.mean[0] == 123.7


def test_numbers_change_a_named_preset():
    used = recipe_for(ImageOptions(preset="imagenet", std=(1.0,)), model()).preset
    assert used.std == (1.0,) and used.mean == PRESETS["imagenet"].mean and "changed" in used.name


def test_the_order_of_colours_can_be_turned():
    array = prepared(ImageOptions(preset="raw", order="bgr"), model(height=1, width=1), photo(1, 1)).array
    assert array.ravel().tolist() == [204, 102, 51]


def test_a_colour_photo_becomes_gray_and_a_gray_one_colour():
    gray = prepared(ImageOptions(preset="raw"), model(1, 2, 2), photo(2, 2, (100, 100, 100))).array
    colour = prepared(ImageOptions(preset="raw"), model(3, 2, 2), photo(2, 2, 100, "L")).array
    assert gray.shape == (1, 2, 2) and colour.shape == (3, 2, 2) and (gray == 100).all() and (colour == 100).all()


def test_four_channels_take_the_transparency_along():
    array = prepared(ImageOptions(), model(4, 1, 1), photo(1, 1, (1, 2, 3, 4), "RGBA")).array
    assert array.ravel().tolist() == [1, 2, 3, 4]


def test_imagenet_resizes_to_256_and_crops_224_in_the_middle():
    frame = prepared(ImageOptions(), model(), photo(300, 451)).frame
    assert frame.resized == (256, 384)  # the shorter side to 256, the longer 384.9 cut to a whole number
    assert (frame.size, frame.top, frame.left) == ((224, 224), 16, 80)


def test_other_sizes_keep_the_share_of_the_crop():
    assert prepared(ImageOptions(), model(height=299, width=299), photo(600, 800)).frame.resized == (342, 456)


def test_a_photo_of_the_models_size_is_left_alone_without_a_crop_share():
    rng = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    array = prepared(ImageOptions(), model(1, 28, 28), Photo(Path("d.png"), Image.fromarray(rng))).array
    np.testing.assert_array_equal(array[0], rng)


def test_a_wide_input_is_covered_without_distortion():
    frame = prepared(ImageOptions(preset="raw"), model(height=100, width=300), photo(200, 400)).frame
    assert frame.resized == (150, 300) and (frame.top, frame.left) == (25, 0)


def test_open_sizes_come_from_the_preset_or_the_photo():
    assert prepared(ImageOptions(preset="imagenet"), model(3, None, None), photo(500, 600)).array.shape == (
        3,
        224,
        224,
    )
    assert prepared(ImageOptions(preset="raw"), model(3, None, None), photo(50, 60)).array.shape == (
        3,
        50,
        60,
    )


def test_one_open_side_follows_the_shape_of_the_photo():
    assert prepared(ImageOptions(preset="raw"), model(3, 48, None), photo(96, 500)).array.shape == (
        3,
        48,
        250,
    )


def test_resize_and_crop_by_hand():
    open_model = model(3, None, None)
    assert prepared(ImageOptions(resize=100), open_model, photo(200, 300)).array.shape == (3, 100, 150)
    assert prepared(ImageOptions(resize=(40, 50)), open_model, photo(200, 300)).array.shape == (3, 40, 50)
    assert prepared(ImageOptions(resize=100, crop=(64, 32)), open_model, photo(200, 300)).array.shape == (
        3,
        64,
        32,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImageOptions(preset="imagnet"), "unknown preset 'imagnet'; there are: imagenet"),
        (ImageOptions(mean=(0.1, 0.2)), "mean has 2 numbers"),
        (ImageOptions(std=(0.0,)), "not 0"),
        (ImageOptions(scale=float("nan")), "finite"),
        (ImageOptions(resize=0), "--resize must be at least 1"),
        (ImageOptions(crop=(0, 3)), "--crop must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        recipe_for(options, model())


def test_a_three_channel_preset_does_not_fit_gray_models():
    with pytest.raises(UsageError, match="mean has 3 numbers, the model's image input 1 channel"):
        recipe_for(ImageOptions(preset="imagenet"), model(channels=1))


def test_sizes_that_contradict_each_other_are_refused():
    with pytest.raises(UsageError, match="does not fit the model"):
        prepared(ImageOptions(crop=100), model(), photo(300, 300))
    with pytest.raises(UsageError, match="larger --resize"):
        prepared(ImageOptions(resize=100), model(), photo(300, 300))


def test_the_view_shows_the_same_part_of_the_photo_as_the_model_sees():
    left, right = np.full((100, 200, 3), 255, np.uint8), np.zeros((100, 200, 3), np.uint8)
    wide = Photo(Path("w.png"), Image.fromarray(np.concatenate([left, right], axis=1)))
    ready = prepared(ImageOptions(preset="unit"), model(height=50, width=50), wide)
    view = np.asarray(ready.view(50, 50)).astype(float) / 255
    assert ready.frame.box == (150.0, 0.0, 250.0, 100.0)
    assert abs(view.transpose(2, 0, 1) - ready.array).mean() < 0.02


def test_a_view_of_a_sixteen_bit_photo_is_rgb():
    deep = Photo(Path("d.png"), Image.fromarray(np.full((4, 4), 100.4, np.float32)))
    assert prepared(ImageOptions(), model(1, 4, 4), deep).view(8, 8).getpixel((0, 0)) == (100, 100, 100)
