"""`onnxlrp evaluate` from the command line to what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxlrp.evaluation import registry
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.methods import baselines
from onnxlrp.evaluation.registry import Metric, Settings, metrics
from tests.cli.conftest import Run

MODELS = Path(__file__).parents[2] / "models"
IRIS = (str(MODELS / "iris.onnx"), str(MODELS / "iris.csv"), "--drop", "species", "--samples", "4")
METRIC = ("--metrics", "score")


def score(case: Case, settings: Settings) -> dict[str, np.ndarray]:
    return {"score": case.subject.scores(case.values, case.rows).max(axis=1)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "_METRICS", dict(registry.metrics()))
    registry.register(Metric("score", "The score itself", "", {"score": "higher"}, score))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_of_means_is_printed_and_results_are_kept(run: Run, folder: Path) -> None:
    first = run("evaluate", *IRIS, *METRIC, "--rules", "epsilon,gradient-x-input", "--baselines", "random,occlusion")
    assert first.exit_code == 0, first.stderr
    lines = first.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["epsilon", "gradient-x-input", "random", "occlusion"]
    assert "*" in first.stdout and "4 samples; mean [95 % interval]" in first.stdout
    assert (folder / "iris.evaluation.jsonl").exists()
    again = run("evaluate", *IRIS, *METRIC, "--rules", "epsilon")
    assert "8 of 8 results were known from iris.evaluation.jsonl" in again.stdout
    fresh = run("evaluate", *IRIS, *METRIC, "--rules", "epsilon", "--fresh")
    assert "were known" not in fresh.stdout


def test_json_csv_and_the_page(run: Run, folder: Path) -> None:
    found = run("evaluate", *IRIS, *METRIC, "--json", "--csv", "a.csv", "--html", "a.html", "--examples", "1")
    assert found.exit_code == 0, found.stderr
    given = json.loads(found.stdout)
    assert given["samples"] == 4 and [c["method"] for c in given["lines"][0]["cells"]] == ["default", "random"]
    assert (folder / "a.csv").read_text().startswith("place,sample,method,metric,part,value\n")
    assert (folder / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_the_list_names_every_metric_and_baseline(run: Run) -> None:
    listed = run("evaluate", "--list").stdout
    assert all(f"\n{name} " in f"\n{listed}" for name in (*metrics(), *baselines()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--metrics", "nothing"), "unknown metric 'nothing'"),
        (("--baselines", "chance"), "unknown baseline 'chance'"),
        (("--target", "best"), "'best' is no target; write predicted, label or the index of a class"),
        (("--set", "patch=3"), "'patch=3' is no setting; write NAME.SETTING=VALUE"),
        (("--unit", "8"), "--unit is the side of squares of pixels; this data has no pictures"),
        (("--tokenizer", "t.json"), "--tokenizer goes with texts (.jsonl)"),
    ],
    ids=str,
)
def test_mistakes_are_one_message(run: Run, arguments: tuple[str, ...], said: str) -> None:
    found = run("evaluate", *IRIS, *METRIC, *arguments)
    assert found.exit_code == 2 and said in found.stderr and "Traceback" not in found.stderr


def test_tune_writes_a_table_that_convert_takes(run: Run, folder: Path) -> None:
    arguments = ("--drop", "species", "--metric", "score", "--trials", "3", "--rules", "epsilon,default")
    found = run("tune", *IRIS[:2], *arguments, "-o", "mine.toml")
    assert found.exit_code == 0, found.stderr
    assert "3 rule tables in" in found.stdout and "On 7 samples that the search has not seen:" in found.stdout
    assert (folder / "mine.toml").read_text().startswith("# Found by onnxlrp tune: score, higher is better.")
    assert run("convert", IRIS[0], "--rules", "mine.toml", "-o", "x.onnx").exit_code == 0
    given = json.loads(run("tune", *IRIS[:2], *arguments, "--json").stdout)
    assert sorted(t["name"] for t in given["tried"]) == ["default", "epsilon", "tried-3"]
    assert given["held_out_samples"] == 7 and "default" in given["verdict"]
