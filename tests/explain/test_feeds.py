"""Inputs by name: arrays, numbers, files of arrays, and images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.feeds import feeds_for
from onnxlrp.explain.preprocess import ImageOptions
from tests.explain.test_images import quadrant

SHAPES = {"photo": ("N", 1, 16, 16), "state": (1, 1, 4), "open": ("N", None), "size": ("N", 2)}
TYPES = {"photo": np.dtype("float32"), "state": np.dtype("float32"), "open": "tensor(float)", "size": "tensor(int64)"}
MODEL = SimpleNamespace(input_names=list(SHAPES), input_shapes=SHAPES, input_types=TYPES, explained=["photo"])


def feed(name, value, **options):
    return feeds_for(MODEL, {name: value}, ImageOptions(**options))[name]


@pytest.mark.parametrize("value", ["0.5", 0.5])
def test_a_number_fills_the_inputs_shape(value):
    np.testing.assert_array_equal(feed("state", value).array, np.full((1, 1, 4), 0.5, np.float32))
    assert feed("state", value).array.dtype == np.float32


def test_a_number_fills_whole_numbers_and_an_open_batch_of_one():
    found = feed("size", "7").array
    assert found.dtype == np.int64 and found.tolist() == [[7, 7]]


def test_a_number_cannot_fill_an_open_size():
    with pytest.raises(UsageError, match=r"input 'open' has no fixed size that 1 could fill; give an \.npy file"):
        feed("open", 1.0)


def test_an_array_is_taken_as_it_is():
    array = np.zeros((3, 5))
    assert feed("open", array).array is array


def test_files_of_arrays(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "one.npz", anything=array)
    for file in ("a.npy", "one.npz"):
        np.testing.assert_array_equal(feed("open", tmp_path / file).array, array)
    np.savez(tmp_path / "two.npz", a=array, b=array)
    with pytest.raises(UsageError, match=r"two\.npz: holds 2 arrays \(a, b\); one input takes one"):
        feed("open", tmp_path / "two.npz")


def test_an_image_is_prepared_as_the_options_say(tmp_path):
    found = feed("photo", quadrant(tmp_path / "a.png", 1), preset="unit")
    assert found.array.shape == (1, 1, 16, 16) and found.photo is not None
    np.testing.assert_allclose(found.array[0, 0, 0], [50 / 255] * 8 + [200 / 255] * 8, rtol=1e-6)


def test_other_names_and_files_are_refused(tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name, value, reason in (
        ("nobody", 1.0, "no input 'nobody'; its inputs are photo, state, open, size"),
        ("open", tmp_path / "a.txt", r"a\.txt: input 'open' takes a number, an \.npy or \.npz file, or an image"),
        ("open", tmp_path / "none.npy", r"none\.npy: cannot be read"),
        ("open", tmp_path / "broken.npy", r"broken\.npy: not an \.npy or \.npz file of plain arrays"),
        ("open", tmp_path / "objects.npy", r"objects\.npy: not an"),
        ("open", quadrant(tmp_path / "a.png", 0), "no input that takes images"),
    ):
        with pytest.raises(UsageError, match=reason):
            feed(name, value)
