"""tools/evaluation.py: what the page says follows from the numbers, and its data is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import evaluation
import numpy as np
import pytest
from evaluated import page
from evaluated.subjects import PHOTOS, PROMPTS, SUBJECTS, TEXTS, marked_line

from onnxlrp.evaluation.methods import baselines
from onnxlrp.evaluation.registry import Metric, metrics
from onnxlrp.evaluation.store import Record
from onnxlrp.evaluation.summary import summarise

RNG = np.random.default_rng(4)
BASE = RNG.normal(size=60)
METRIC = Metric("fall", "", "", {"fall": "lower"}, lambda case, settings: {})


def measured(**means: float) -> page.Measured:
    """Methods whose numbers differ by the same amount in every sample, but for a little noise."""
    numbers = {name: BASE + mean + 0.01 * RNG.normal(size=60) for name, mean in means.items()}
    records = [
        Record(f"{name}{i}", i, str(i), name, "fall", {"fall": float(value)})
        for name, values in numbers.items()
        for i, value in enumerate(values)
    ]
    names = list(means)
    lines = summarise(records, [METRIC], names)
    tables = [name for name in names if name in ("default", "epsilon", "gradient-x-input")]
    return page.Measured("A model", "About it.", 60, lines, records, names, tables, {"epsilon": "default"})


def test_lrp_loses_where_another_method_is_better_beyond_chance() -> None:
    found = measured(default=1.0, epsilon=1.1, **{"gradient-x-input": 1.3}, occlusion=0.5, random=2.0)
    (said,) = page.losses(found)
    assert said.startswith("fall ↓: occlusion is better than the best LRP table, default (occlusion ")
    assert page.wins(found) == [] and page.no_better_than_chance(found) == []


def test_a_gradient_is_no_lrp_and_may_beat_it() -> None:
    (said,) = page.losses(measured(default=1.0, **{"gradient-x-input": 0.2}, occlusion=0.5, random=2.0))
    assert "gradient-x-input and occlusion are better" in said


def test_lrp_wins_where_it_is_better_than_all_others_beyond_chance() -> None:
    found = measured(default=0.1, epsilon=1.1, occlusion=0.5, random=2.0)
    (said,) = page.wins(found)
    assert "default" in said and "best other method, occlusion" in said and page.losses(found) == []


def test_chance_is_no_rival_but_a_measure() -> None:
    found = measured(default=1.0, epsilon=2.5, occlusion=1.5, random=2.0)
    assert page.losses(found) == []
    (said,) = page.no_better_than_chance(found)
    assert said.startswith("fall ↓: epsilon (random maps: ")


def test_tables_that_beat_the_default_are_named() -> None:
    (said,) = page.better_than_default(measured(default=1.0, epsilon=0.5, occlusion=0.1, random=2.0))
    assert said.startswith("fall ↓: epsilon (") and said.endswith(".") and "; default " in said
    assert page.better_than_default(measured(default=0.5, epsilon=1.0, random=2.0)) == []


def test_a_difference_that_may_be_chance_is_neither_won_nor_lost() -> None:
    found = measured(default=1.0, occlusion=1.0, random=2.0)
    assert page.losses(found) == page.wins(found) == []


def test_the_page_has_a_table_and_says_which_tables_are_the_same() -> None:
    text = page.page([measured(default=0.1, epsilon=0.1, occlusion=0.5, random=2.0)], "1.2")
    assert "## A model" in text and "| method | fall ↓ |" in text and "`onnxlrp evaluate` 1.2" in text
    assert "`epsilon` makes the same relevance pass as `default` for this model." in text
    assert text.count("\n| ") == 1 + 1 + 4


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_named_exists(name: str) -> None:
    subject = SUBJECTS[name]
    assert set(subject.baselines) <= set(baselines()) and set(subject.metrics) <= set(metrics())


def test_brackets_become_marks() -> None:
    line = marked_line("Hello. [Ignore it.] Bye.", 1)
    assert line["text"] == "Hello. Ignore it. Bye." and line["label"] == 1
    ((start, end),) = line["marked"]
    assert line["text"][start:end] == "Ignore it."
    assert "marked" not in marked_line("Hello.", 0)


def test_there_are_as_many_texts_and_photos_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluated.subjects.fetched", lambda name: tmp_path / name)
    path, _ = SUBJECTS["texts"].prepare(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 204 and [line["label"] for line in lines[:4]] == [0, 1, 0, 1]
    assert sum("marked" in line for line in lines) == 102 and len({line["text"] for line in lines}) == 204
    assert PROMPTS.exists() and TEXTS.exists() and f"on {len(PHOTOS)} photos" in SUBJECTS["photos"].about


def test_an_unknown_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation.main(["nothing"]) == 2
    assert "nothing is called nothing; there are: photos, digits, texts" in capsys.readouterr().err
