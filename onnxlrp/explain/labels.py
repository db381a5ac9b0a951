"""Class names: the bundled ImageNet list, or a file in one of the usual forms."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from onnxlrp.errors import UsageError

#: The name that stands for the bundled list of ImageNet-1k.
IMAGENET = "imagenet"

_NUMBERED = re.compile(r"^(\d+)\s*[:\t]\s*(.+)$")
_SYNSET = re.compile(r"^n\d{8}\s+(.+)$")


def read_labels(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Class names in the order of the model's outputs.

    `source` is "imagenet", a sequence of names, or a file: one name per line, "index: name" lines, synset
    lines ("n02124075 Egyptian cat"), a JSON list, or a JSON object from index to name (or to [synset, name]).
    Raises UsageError for a file that cannot be read, is empty, or numbers its names with gaps.
    """
    if isinstance(source, Sequence) and not isinstance(source, str):
        return tuple(source)
    if source == IMAGENET:
        return _bundled()
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the labels file cannot be read: {error}") from None
    names = _from_json(path, text) if text.lstrip()[:1] in ("[", "{") else _from_lines(path, text)
    if not names:
        raise UsageError(f"{path}: the labels file is empty")
    return names


def labels_for(classes: int, labels: Sequence[str]) -> tuple[str, ...]:
    """`labels` fitted to an output with `classes` classes.

    Models trained by TensorFlow on ImageNet often count a background class first; then "background" goes
    before.
    Raises UsageError when the numbers differ otherwise.
    """
    if len(labels) == classes:
        return tuple(labels)
    if len(labels) == 1000 and classes == 1001:
        return ("background", *labels)
    raise UsageError(f"{len(labels)} labels were given, but the explained output has {classes} classes")


def _bundled() -> tuple[str, ...]:
    text = files("onnxlrp.explain").joinpath("data/imagenet-1k.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def _from_lines(path: Path, text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [_NUMBERED.match(line) for line in lines]
    if lines and all(numbered):
        return _in_order(path, {int(match[1]): match[2].strip() for match in numbered if match})
    return tuple(match[1] if (match := _SYNSET.match(line)) else line for line in lines)


def _from_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        data = json.loads(text)
        if isinstance(data, list):
            return tuple(_name(entry) for entry in data)
        return _in_order(path, {int(key): _name(entry) for key, entry in data.items()})
    except (ValueError, TypeError, IndexError) as error:
        raise UsageError(
            f"{path}: the labels file is not a list of names nor an object from index to name: {error}"
        ) from None


def _name(entry: object) -> str:
    if isinstance(entry, list) and entry:
        entry = entry[-1]
    if not isinstance(entry, str):
        raise TypeError(f"{entry!r} is no name")
    return entry


def _in_order(path: Path, numbered: dict[int, str]) -> tuple[str, ...]:
    missing = sorted(set(range(max(numbered, default=0))) - set(numbered))
    if missing:
        raise UsageError(f"{path}: the labels file has no name for class {missing[0]}")
    return tuple(numbered[index] for index in range(len(numbered)))
