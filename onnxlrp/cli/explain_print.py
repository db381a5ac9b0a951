"""What `onnxlrp explain` prints of its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.explain_text import print_text
from onnxlrp.cli.output import print_facts, print_table, print_warnings

if TYPE_CHECKING:
    from onnxlrp.explain.answer import TopClass
    from onnxlrp.explain.arrays import ArraysResult
    from onnxlrp.explain.results import ImageResult
    from onnxlrp.explain.sounds import SoundResult
    from onnxlrp.explain.tables import RowResult, TableResult


def image(result: ImageResult, _top: int) -> None:
    """Classes, what was explained, and the files of one image."""
    print_warnings(f"{result.image}: {note}" for note in result.notes)
    print_facts(
        {
            "image": str(result.image),
            "classes": [_class_line(found, result.score_kind) for found in result.top],
            # Classes have their scores above.
            "explained": result.target if result.top else f"{result.target}  {result.detail}".rstrip(),
            "prepared": result.preprocessing,
            "written": [str(file) for file in result.files],
        }
    )


def sound(result: SoundResult, _top: int) -> None:
    """What was explained in which window, the most relevant moments, and the files of one sound."""
    print_warnings(f"{result.sound}: {note}" for note in result.notes)
    explained = [f"{window.target}  {window.detail}".rstrip() for window in result.windows]
    if len(explained) > 1:
        starts = [f"{window.start:7.3f} s to {window.end:7.3f} s  " for window in result.windows]
        explained = [start + text for start, text in zip(starts, explained, strict=True)]
    print_facts(
        {
            "sound": str(result.sound),
            "explained": explained,
            "moments": [
                f"{found.start:7.3f} s to {found.end:7.3f} s  {found.relevance:+.3g}  ({found.share:.1%})  "
                f"most at {found.frequency:.0f} Hz"
                for found in result.moments
            ],
            "prepared": result.preparation,
            "written": [str(file) for file in result.files],
        }
    )


def table(result: TableResult, top: int) -> None:
    """A line for each row, and the files of one table."""
    print_warnings(f"{result.table}: {note}" for note in result.notes)
    columns = ("row", "explained", "score", "most relevant features")
    print_table(
        columns,
        ((str(row.row), row.target, _row_score(row), _features(row, top)) for row in result.rows),
        fixed=("row", "score"),
        right=("row", "score"),
    )
    click.echo()
    pictures = [file for file in result.files if file.suffix == ".png"]
    others = [str(file) for file in result.files if file.suffix != ".png"]
    more = f" ... {pictures[-1]}" if len(pictures) > 1 else ""
    print_facts({"table": str(result.table), "written": [f"{pictures[0]}{more}", *others]})


def arrays(result: ArraysResult, _top: int) -> None:
    """The relevance of each input in short, and the files of one set of arrays."""
    print_warnings(f"{result.data}: {note}" for note in result.notes)
    facts: dict[str, str | Sequence[str]] = {"data": result.data, "explained": list(result.targets)}
    for entry in result.inputs:
        shape = " x ".join(map(str, entry.shape))
        facts[entry.name] = [
            f"{shape}, sum {entry.total:+.4g} ({entry.positive:+.4g} and {entry.negative:+.4g})",
            *(f"{found.relevance:+10.4g}  at {', '.join(map(str, found.index))}" for found in entry.largest),
        ]
    facts["written"] = [str(file) for file in result.files]
    print_facts(facts)


#: What prints one result of each kind of data; the number is how many entries its listing has.
SHOWN: Mapping[str, Callable[[Any, int], None]] = {
    "images": image,
    "sounds": sound,
    "tables": table,
    "arrays": arrays,
    "texts": print_text,
}


def _class_line(found: TopClass, score_kind: str) -> str:
    return f"{_score(found, score_kind)}  {found.index:>4}  {found.label or ''}".rstrip()


def _score(found: TopClass, score_kind: str) -> str:
    return f"{found.score:7.2%}" if score_kind else f"{found.score:9.4g}"


def _row_score(row: RowResult) -> str:
    """The score of the class that was explained, where it is among the listed ones."""
    for found in row.top:
        if row.target in (found.label, f"class {found.index}", "the output"):
            return _score(found, row.score_kind).strip()
    return ""


def _features(row: RowResult, count: int) -> str:
    largest = sorted(row.features, key=lambda feature: -abs(feature.relevance))[:count]
    return ", ".join(
        f"{found.name} {found.relevance:+.3g}" if found.relevance else f"{found.name} 0" for found in largest
    )
