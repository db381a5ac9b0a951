"""What kind of data files are, by the ends of their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from onnxlrp.errors import UsageError
from onnxlrp.explain import feeds, sound, table

Kind = Literal["images", "sounds", "tables", "arrays"]

_SUFFIXES: dict[Kind, frozenset[str]] = {
    "sounds": sound.SUFFIXES,
    "tables": table.SUFFIXES,
    "arrays": feeds.ARRAY_SUFFIXES,
}


def kind_of(paths: Sequence[str | Path]) -> Kind:
    """The one kind of all paths; whatever is not sound, table or arrays is taken for images, folders too.

    No path at all stands for arrays that are named one by one. Raises UsageError for a mixture.
    """
    kinds: dict[Kind, str | Path] = {}
    for path in paths:
        suffix = Path(path).suffix.lower()
        kinds.setdefault(next((kind for kind, ends in _SUFFIXES.items() if suffix in ends), "images"), path)
    if len(kinds) > 1:
        named = ", ".join(f"{path} ({kind})" for kind, path in kinds.items())
        raise UsageError(f"data of different kinds cannot go in one after another: {named}; fill inputs with --data")
    return next(iter(kinds), "arrays")
