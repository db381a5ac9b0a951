"""Image files of every kind become upright, plain pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.explain.load import check_photo, expand_paths, on_white, read_photo


def test_the_orientation_noted_by_a_camera_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turn by a quarter to the right
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_photo(tmp_path / "turned.jpg").image.size == (2, 4)


def test_transparency_is_laid_on_white(tmp_path):
    Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)).save(tmp_path / "a.png")
    flat = on_white(read_photo(tmp_path / "a.png").image)
    assert np.asarray(flat).tolist() == [[[255, 255, 255], [0, 0, 0]]]


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png", transparency=0)
    flat = on_white(read_photo(tmp_path / "p.png").image)
    assert np.asarray(flat).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_sixteen_bits_keep_their_precision(tmp_path):
    Image.fromarray(np.array([[0, 257, 65535, 128]], np.uint16)).save(tmp_path / "deep.png")
    image = read_photo(tmp_path / "deep.png").image
    assert image.mode == "F"
    np.testing.assert_allclose(np.asarray(image), [[0, 1, 255, 128 / 257]], rtol=1e-6)


@pytest.mark.parametrize(("mode", "plain"), [("1", "L"), ("L", "L"), ("LA", "RGBA"), ("CMYK", "RGB"), ("P", "RGB")])
def test_every_mode_becomes_a_plain_one(tmp_path, mode, plain):
    path = tmp_path / "image.tif"
    Image.new(mode, (3, 2)).save(path)
    assert read_photo(path).image.mode == plain


def test_floating_point_pixels_have_no_known_range(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UsageError, match=r"f\.tif.*8 or 16 bits"):
        read_photo(tmp_path / "f.tif")


def test_the_first_frame_of_an_animation_is_taken_and_said(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "a.gif")
    assert photo.notes == ("first of 3 frames",)
    assert photo.image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_text_and_broken_files_are_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UsageError, match=r"text\.png: not an image"):
        check_photo(tmp_path / "text.png")
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UsageError, match=r"cut\.png: the image cannot be read"):
        read_photo(tmp_path / "cut.png")


def test_a_folder_stands_for_its_images_by_name(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in expand_paths([tmp_path])] == ["a.JPG", "b.png"]


def test_no_file_comes_twice(tmp_path):
    (tmp_path / "a.png").touch()
    assert expand_paths([tmp_path / "a.png", tmp_path]) == (tmp_path / "a.png",)


def test_missing_paths_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.png: no such file"):
        expand_paths([tmp_path / "nowhere.png"])
    with pytest.raises(UsageError, match="holds no image"):
        expand_paths([tmp_path])
    with pytest.raises(UsageError, match="no image was given"):
        expand_paths([])
