"""Rows on disk, one JSON object a line: a run that was cut off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from zoo.row import Row


def read(path: Path) -> list[Row]:
    """The rows of a file, the latest of each network, exporter and rule table; none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [Row(**json.loads(line)) for line in lines if line.strip()]
    return list({(r.group, r.name, r.exporter, r.rules): r for r in rows}.values())


def append(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows at the end of a file, which is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row.as_json()) + "\n")
