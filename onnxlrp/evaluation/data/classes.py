"""True classes: from words or numbers in a file to the indices of the model's outputs."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxlrp.errors import UsageError


def class_index(text: str, names: Sequence[str] | None, where: str) -> int:
    """The class that `text` names: its index, or its name among `names`; -1 for an empty text.

    Raises:
        UsageError: it is neither.
    """
    text = text.strip()
    if not text:
        return -1
    if re.fullmatch(r"-?\d+", text, re.ASCII):
        return max(-1, int(text))
    if re.fullmatch(r"\d+\.0*", text, re.ASCII):
        return int(float(text))
    found = index_by_name(names or ()).get(plain(text))
    if found is None:
        advice = (
            "name the classes with --labels, or write their indices" if names is None else "--labels has no such name"
        )
        raise UsageError(f"{where}: {text!r} is no class; {advice}")
    return found


def index_by_name(names: Sequence[str]) -> Mapping[str, int]:
    """Index by name, and by each of several names separated by commas, upper and lower case alike."""
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        for part in (name, *name.split(",")):
            found.setdefault(plain(part), index)
    return found


def plain(name: str) -> str:
    """A name as it is compared: letters and digits only."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def read_truth(path: Path, names: Sequence[str] | None) -> Mapping[str, int]:
    """The classes of files from a CSV file with lines `file,label`; a first line that names the two is left out.

    Raises:
        UsageError: it cannot be read, or a line is not of that form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the file of labels cannot be read: {error}") from None
    found: dict[str, int] = {}
    for number, line in enumerate(csv.reader(text.splitlines()), 1):
        if not line or (number == 1 and [cell.strip().casefold() for cell in line] == ["file", "label"]):
            continue
        if len(line) != 2:
            raise UsageError(f"{path} line {number}: a line is `file,label`, but this one has {len(line)} cells")
        name = line[0].strip()
        if name in found:
            raise UsageError(f"{path} line {number}: {name} is labelled twice")
        found[name] = class_index(line[1], names, f"{path} line {number}")
    if not found:
        raise UsageError(f"{path}: no file is labelled in it")
    return found
