"""Which input takes images, and in which order of axes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import dtype_of, find_image_input

FLOAT = {"x": "tensor(float)"}


def found(shape, layout="auto", types=FLOAT):
    return find_image_input(["x"], {"x": shape}, types, layout)


@pytest.mark.parametrize(
    ("shape", "layout", "channels", "height", "width"),
    [
        ([1, 3, 224, 192], "nchw", 3, 224, 192),
        (["N", 224, 192, 3], "nhwc", 3, 224, 192),
        ([None, 1, 28, 28], "nchw", 1, 28, 28),
        ([1, 28, 28, 1], "nhwc", 1, 28, 28),
        ([1, 4, 64, 64], "nchw", 4, 64, 64),
        (["N", 3, "H", "W"], "nchw", 3, None, None),
        (["N", "H", "W", 3], "nhwc", 3, None, None),
        ([1, 3, 224, 3], "nchw", 3, 224, 3),  # both ends could be channels
        (["N", "C", "H", "W"], "nchw", 3, None, None),
        (["N", 28, 30], "nhw", 1, 28, 30),
    ],
)
def test_layout_follows_from_the_shape(shape, layout, channels, height, width):
    image = found(shape)
    assert (image.layout, image.channels, image.height, image.width) == (layout, channels, height, width)


def test_a_dynamic_batch_is_open_and_a_fixed_one_is_known():
    assert found(["batch", 3, 8, 8]).batch is None
    assert found([4, 3, 8, 8]).batch == 4


def test_layout_can_be_settled_by_hand():
    assert found([1, 3, 224, 3], "nhwc").layout == "nhwc"
    with pytest.raises(UsageError, match="no input that takes images"):
        found([1, 3, 224, 224], "nhwc")


@pytest.mark.parametrize("shape", [[1, 5, 8, 8], ["N", 10], None, [1, 3, 8, 8, 8]])
def test_other_shapes_are_refused_and_named(shape):
    with pytest.raises(UsageError, match=r"inputs are: x .*--data"):
        found(shape)


def test_a_model_with_a_second_input_is_refused_with_both_names():
    shapes = {"photo": [1, 3, 8, 8], "size": [1, 2]}
    with pytest.raises(UsageError, match=r"photo \[1, 3, 8, 8\], size \[1, 2\].*--data"):
        find_image_input(["photo", "size"], shapes, {"photo": np.float32, "size": np.float32})


def test_number_types_are_understood_in_every_spelling():
    assert dtype_of("tensor(float)") == dtype_of("float32") == dtype_of(np.dtype("f4")) == np.float32
    assert dtype_of("tensor(float16)") == np.float16
    assert dtype_of("tensor(uint8)") == np.uint8
    assert dtype_of("tensor(string)").kind not in "fui"


def test_pixels_are_arranged_and_rounded_as_the_input_wants():
    pixels = np.arange(2 * 3 * 3, dtype=np.float64).reshape(2, 3, 3) + 0.6
    first = found([1, 3, 2, 3]).arrange(pixels)
    assert first.shape == (3, 2, 3) and first.dtype == np.float32
    assert first[2, 1, 0] == np.float32(pixels[1, 0, 2])
    whole = found([1, 2, 3, 3], "nhwc", {"x": "tensor(uint8)"}).arrange(pixels * 30)
    assert whole.dtype == np.uint8 and whole[0, 0, 0] == 18 and whole.max() == 255


def test_relevance_is_summed_over_channels_and_nothing_else():
    values = np.array([[[1.0, -1.0]], [[2.0, 5.0]], [[-4.0, 1.0]]])
    assert found([1, 3, 1, 2]).over_channels(values).tolist() == [[-1.0, 5.0]]
    assert found([1, 1, 2, 3], "nhwc").over_channels(values.transpose(1, 2, 0)).tolist() == [[-1.0, 5.0]]
    assert found(["N", 8, 9]).over_channels(np.ones((8, 9))).shape == (8, 9)
