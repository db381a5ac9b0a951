"""A sample of the standard's own cases over all operators; tools/coverage.py checks all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from backend import run
from backend.report import reason_of
from backend.results import Result
from click.testing import CliRunner
from coverage import coverage

_SAMPLE, _PARTS = 160, 4
NAMES = run.chosen(sample=_SAMPLE)


def check(names: list[str]) -> list[Result]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return run.results(names, jobs=1)


@pytest.mark.parametrize("part", range(_PARTS))
def test_no_case_is_wrong(part: int) -> None:
    wrong = {r.name: reason_of(r) for r in check(NAMES[part::_PARTS]) if r.status == "wrong"}
    assert wrong == {}


def test_the_sample_has_every_operator() -> None:
    operators = {run.by_name(name).operator for name in NAMES}
    assert operators == {run.by_name(name).operator for name in run.chosen()}


def test_a_sample_takes_every_operator_once_before_any_twice() -> None:
    operators = [run.by_name(name).operator for name in run.chosen(sample=50)]
    assert len(set(operators)) == 50


def test_the_command_writes_a_page_and_the_results(tmp_path: Path) -> None:
    page, stored = tmp_path / "page.md", tmp_path / "results.json"
    options = ["--only", "test_relu,test_ceil", "--jobs", "1", "--output", str(page), "--json", str(stored)]
    done = CliRunner().invoke(coverage, options)
    assert done.exit_code == 0, done.output
    assert "1 right, 0 wrong, 0 refused, 1 nothing of 2 cases" in done.output
    assert "| Relu | 1 | 1 |" in page.read_text()
    assert [Result.of_json(r).status for r in json.loads(stored.read_text())] == ["nothing", "right"]
    assert CliRunner().invoke(coverage, ["--only", "test_no_such"]).exit_code == 2
