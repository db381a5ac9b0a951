"""The report is one page of its own, whatever names stand in the data."""

from __future__ import annotations

import csv
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxlrp.evaluation import registry
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.data.open import DataOptions
from onnxlrp.evaluation.evaluate import Evaluation, Options, evaluate
from onnxlrp.evaluation.registry import Metric, Settings
from onnxlrp.evaluation.report import example_maps, write_report
from onnxlrp.evaluation.tabular import as_dict, write_csv
from tests.evaluation.data.test_data import photo, picture_model

MODELS = Path(__file__).parents[2] / "models"
NASTY = "<img src=x onerror=alert(1)>&.png"


def curved(case: Case, settings: Settings) -> dict[str, np.ndarray]:
    scores = case.subject.scores(case.values, case.rows).max(axis=1)
    return {"score": scores, "curve": np.linspace(scores, 0, 5, axis=1)}


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    monkeypatch.setattr(registry, "_METRICS", dict(registry.metrics()))
    registry.register(Metric("curved", "", "", {"score": "higher"}, curved))
    for name in (NASTY, "b.png"):
        photo(tmp_path / "photos" / name)
    options = Options(rules=("epsilon",), baselines=("random", "occlusion"), metrics=("curved",))
    return evaluate(picture_model(), tmp_path / "photos", options)


class Tags(HTMLParser):
    """The tags of a page, and every attribute that could load something."""

    VOID = ("meta", "img", "line", "rect", "polyline", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def read(path: Path) -> tuple[str, Tags]:
    page, tags = path.read_text(), Tags()
    tags.feed(page)
    return page, tags


def test_the_page_is_well_formed_and_loads_nothing(found: Evaluation, tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", found, 2)
    page, tags = read(tmp_path / "r.html")
    assert not [tag for tag in tags.open if tag not in ("html",)]
    assert tags.sources and all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert "script" not in tags.seen and "link" not in tags.seen
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;&amp;.png" in page
    assert tags.seen.count("img") == 2 * (1 + 3), "the photo and three maps of two samples"
    assert tags.seen.count("polyline") == 3 and tags.seen.count("svg") == 2


def test_example_maps_are_those_that_were_judged(found: Evaluation) -> None:
    first, _ = example_maps(found, 5)
    assert [name for name, _ in first.maps] == ["epsilon", "random", "occlusion"]
    assert all(values.shape == (8, 8) for _, values in first.maps)


def test_features_and_words_are_shown_as_coloured_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METRICS", dict(registry.metrics()))
    registry.register(Metric("curved", "", "", {"score": "higher"}, curved))
    data = DataOptions(label_column="species", labels=("setosa", "versicolor", "virginica"))
    options = Options(rules=("epsilon",), baselines=(), metrics=("curved",), data=data)
    write_report(tmp_path / "r.html", evaluate(str(MODELS / "iris.onnx"), MODELS / "iris.csv", options), 1)
    page, _ = read(tmp_path / "r.html")
    assert "row 0: setosa (0)" in page and len(re.findall(r'class="number" style="background', page)) == 4


def test_the_csv_has_every_number_and_the_json_the_table(found: Evaluation, tmp_path: Path) -> None:
    write_csv(tmp_path / "r.csv", found)
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert len(rows) == 2 * 3 and {row["part"] for row in rows} == {"score"}
    by_record = {(r.place, r.method): r.parts["score"] for r in found.outcome.records}
    assert all(float(row["value"]) == by_record[int(row["place"]), row["method"]] for row in rows)
    given: dict[str, Any] = as_dict(found)
    assert given["samples"] == 2 and dataclasses.asdict(given["lines"][0])["metric"] == "curved"
