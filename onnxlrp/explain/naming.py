"""Names of the files that are written: never two the same, never an image that was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnxlrp.errors import UsageError

_UNSAFE = re.compile(r"[^\w.+-]+")


def unique_stems(files: Sequence[Path]) -> tuple[str, ...]:
    """One name per file:

    its stem, with `-2`, `-3` ... where another file has it (file systems may ignore case).
    """
    own = [file.stem.casefold() for file in files]
    taken: set[str] = set()
    stems: list[str] = []
    for file in files:
        stem, number = file.stem, 1
        while stem.casefold() in taken or (number > 1 and stem.casefold() in own):
            number += 1
            stem = f"{file.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return tuple(stems)


def safe(text: str) -> str:
    """The text with everything that is awkward in a file name replaced."""
    return _UNSAFE.sub("-", text).strip("-") or "custom"


def refuse_overwriting(written: Iterable[Path], read: Iterable[Path]) -> None:
    """Raise UsageError when a file about to be written is one of the images that were given."""
    sources = {file.resolve() for file in read}
    for file in written:
        if file.resolve() in sources:
            raise UsageError(
                f"{file}: this picture would replace an image that was given; choose another output folder "
                "or leave earlier results out of the images"
            )
