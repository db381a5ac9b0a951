"""Writing results: every file in one step, arrays without pickles, pictures as PNG."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from onnxlrp.errors import UsageError

#: Bytes of arrays from which on they are not compressed.
_LARGE = 1 << 24


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of an .npz file; words are written as arrays of text."""
    buffer = io.BytesIO()
    plain = {name: array.astype(str) if array.dtype == object else array for name, array in arrays.items()}
    # Floats hardly shrink, and for a few minutes of sound packing them took three quarters of all the time.
    large = sum(array.nbytes for array in plain.values()) > _LARGE
    (np.savez if large else np.savez_compressed)(buffer, allow_pickle=False, **plain)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new, never a part.

    Raises UsageError when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
