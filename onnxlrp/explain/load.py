"""Image files in: paths expanded, pixels read upright, gray and transparent files made plain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxlrp.errors import UsageError

#: File name endings taken from a folder; a file named directly may have any.
SUFFIXES = frozenset(
    [".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)

_SIXTEEN_BIT = 65535.0 / 255.0


@dataclass(frozen=True)
class Photo:
    """One image file, upright.

    `image` has mode L, F (gray with more than 8 bits, rescaled to 0..255), RGB or RGBA; `notes` says what a
    reader of the result should know.
    """

    path: Path
    image: Image.Image
    notes: tuple[str, ...] = ()


def expand_paths(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """The image files meant by `paths`: a folder stands for the images in it, by name; no file comes twice.

    Raises UsageError for a path that does not exist, a folder without images, and an empty list.
    """
    files: dict[Path, Path] = {}
    for given in map(Path, paths):
        for file in _images_in(given) if given.is_dir() else (given,):
            if not file.exists():
                raise UsageError(f"{file}: no such file or folder")
            files.setdefault(file.resolve(), file)
    if not files:
        raise UsageError("no image was given: name image files or a folder that holds some")
    return tuple(files.values())


def _images_in(folder: Path) -> Sequence[Path]:
    found = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )
    if not found:
        raise UsageError(f"{folder}: the folder holds no image ({', '.join(sorted(SUFFIXES))})")
    return found


def check_photo(path: Path) -> None:
    """Raise UsageError unless the file starts like an image; its pixels are not read."""
    try:
        with Image.open(path):
            return
    except UnidentifiedImageError:
        raise UsageError(f"{path}: not an image that can be read (PNG, JPEG, TIFF, WebP, BMP, GIF ...)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: the image cannot be read: {error}") from None


def read_photo(path: Path) -> Photo:
    """Read one image file; the orientation that a camera noted is applied, of an animation the first frame is
    taken.

    Raises UsageError when the file cannot be read, is no image, or holds numbers of an unknown range.
    """
    check_photo(path)
    try:
        with Image.open(path) as opened:
            frames = getattr(opened, "n_frames", 1)
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: the image cannot be read: {error}") from None
    notes = (f"first of {frames} frames",) if frames > 1 else ()
    return Photo(path, _plain(path, image), notes)


def _plain(path: Path, image: Image.Image) -> Image.Image:
    """The image in one of the four modes of Photo."""
    mode = image.mode
    if mode in ("L", "RGB", "RGBA"):
        plain = image if "transparency" not in image.info else image.convert("RGBA")
    elif mode.startswith("I"):
        values = np.asarray(image, dtype=np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise UsageError(f"{path}: its pixels are not in 0..65535; save it with 8 or 16 bits per channel")
        plain = Image.fromarray(values / np.float32(_SIXTEEN_BIT))
    elif mode == "F":
        raise UsageError(f"{path}: floating point pixels have no stated range; save it with 8 or 16 bits per channel")
    elif mode == "1":
        plain = image.convert("L")
    elif "A" in mode or "a" in mode or "transparency" in image.info:
        plain = image.convert("RGBA")
    else:
        plain = image.convert("RGB")
    return plain


def on_white(image: Image.Image) -> Image.Image:
    """The image without transparency, laid on white; other images as they are."""
    if image.mode != "RGBA":
        return image
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")
