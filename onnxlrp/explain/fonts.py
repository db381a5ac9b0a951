"""Type for pictures: Pillow's own typeface, and a system one for words that it has no letters for."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Files that Pillow finds in the system's font folders; the ones with the most letters first.
_SYSTEM = (
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "arial.ttf",
    "Arial.ttf",
)
_PROBE_SIZE = 16
_NO_LETTER = "\uffff"


def font_for(text: str, size: int) -> Font:
    """A font of `size` pixels that has every letter of `text`, or Pillow's own where none is found."""
    return _font(_typeface(frozenset(text)), size)


def drawable(text: str) -> str:
    """The text as `font_for` can draw it: letters that no font has lose their accents or become "?"."""
    typeface = _typeface(frozenset(text))
    if typeface is not None or _has(None, frozenset(text)):
        return text
    return "".join(letter if _has(None, frozenset(letter)) else _plain(letter) for letter in text)


def _plain(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode("ascii")
    return base if base and _has(None, frozenset(base)) else "?"


@lru_cache(maxsize=256)
def _typeface(letters: frozenset[str]) -> str | None:
    """The file of the first typeface with all letters; None stands for Pillow's own."""
    return next((name for name in (None, *_SYSTEM) if _has(name, letters)), None)


@lru_cache(maxsize=1024)
def _has(typeface: str | None, letters: frozenset[str]) -> bool:
    try:
        font = _font(typeface, _PROBE_SIZE)
    except OSError:
        return False
    missing = bytes(font.getmask(_NO_LETTER))
    return all(letter.isspace() or bytes(font.getmask(letter)) != missing for letter in letters)


@lru_cache(maxsize=64)
def _font(typeface: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if typeface is None else ImageFont.truetype(typeface, size)
