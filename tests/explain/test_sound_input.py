"""Which input takes sound, by its axes alone."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.sound_input import find_sound_input
from onnxlrp.explain.spectrogram import Spectrogram

MEL = Spectrogram(bins=64)


def find(shape, spectrogram=None):
    return find_sound_input(["x"], {"x": shape}, {"x": "tensor(float)"}, spectrogram)


@pytest.mark.parametrize(
    ("shape", "axes", "batch", "length", "rows"),
    [
        ((16000,), "t", None, 16000, 1),
        ((None,), "t", None, None, 1),
        (("N", 16000), "t", None, 16000, 1),
        ((1, "time"), "t", 1, None, 1),
        (("N", 1, 16000), "rt", None, 16000, 1),
        (("N", 2, None), "rt", None, None, 2),
        (("N", 43844, 1), "tr", None, 43844, 1),
    ],
)
def test_samples(shape, axes, batch, length, rows):
    found = find(shape)
    assert (found.axes, found.batch, found.length, found.rows) == (axes, batch, length, rows)
    assert found.batched == (len(shape) > 1)


@pytest.mark.parametrize(
    ("shape", "axes", "length"),
    [
        (("N", 64, 21), "rt", 21),
        (("N", 21, 64), "tr", 21),
        (("N", None, None), "rt", None),
        (("N", "time", 64), "tr", None),
        (("N", 1, 64, 100), "1rt", 100),
        (("N", 1, None, 64), "1tr", None),
        (("N", 64, 100, 1), "rt1", 100),
        (("N", 64, 1), "rt", 1),
    ],
)
def test_spectrograms(shape, axes, length):
    found = find(shape, MEL)
    assert (found.axes, found.length, found.rows) == (axes, length, 64)


@pytest.mark.parametrize(
    ("shape", "spectrogram"),
    [(None, None), (("N", 3, 100), None), (("N", 1, 2), None), (("N", 1, 64, 21), None), (("N", 40, 21), MEL),
     (("N", 2, 64, 21), MEL), (("N", 16000), MEL)],
)  # fmt: skip
def test_other_shapes_are_refused_with_what_is_possible(shape, spectrogram):
    wanted = r"\[batch, 64 bins, frames\]" if spectrogram else "--spectrogram"
    with pytest.raises(UsageError, match=f"the input x .* does not take sound as it was described.*{wanted}"):
        find(shape, spectrogram)


def test_several_inputs_have_to_be_named():
    shapes = {"samples": ("N", 576), "state": (1, 1, 128)}
    with pytest.raises(UsageError, match=r"samples \[N, 576\], state \[1, 1, 128\]. Name the others: --data"):
        find_sound_input(list(shapes), shapes, dict.fromkeys(shapes, "tensor(float)"), None)


@pytest.mark.parametrize(
    ("shape", "spectrogram", "sample"),
    [
        (("N", 4), None, (4,)),
        (("N", 2, 4), None, (2, 4)),
        (("N", 4, 2), None, (4, 2)),
        (("N", 1, 64, 4), MEL, (1, 64, 4)),
        (("N", 4, 64, 1), MEL, (4, 64, 1)),
    ],
)
def test_values_are_arranged_for_the_model_and_back(shape, spectrogram, sample):
    found = find(shape, spectrogram)
    values = np.arange(found.rows * 4.0).reshape(found.rows, 4)
    arranged = found.arrange(values)
    assert arranged.shape == sample and arranged.dtype == np.float32
    time = found.axes.index("t")
    np.testing.assert_array_equal(np.take(arranged, 2, axis=time).ravel(), values[:, 2])
    np.testing.assert_array_equal(found.rows_of(arranged), values)
