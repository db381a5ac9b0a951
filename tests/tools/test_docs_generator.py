"""The generated pages are complete, and the committed ones are up to date."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from onnxlrp.evaluation.registry import metrics
from onnxlrp.operators import catalogue
from onnxlrp.rules.spec import KINDS, RULES
from onnxlrp.tables import preset_names, preset_text

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("docs", ROOT / "tools" / "docs.py")
assert _spec is not None and _spec.loader is not None
docs = importlib.util.module_from_spec(_spec)
sys.modules["docs"] = docs
_spec.loader.exec_module(docs)


def test_the_committed_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails: python tools/docs.py"""
    assert docs.main(["--check"]) == 0, capsys.readouterr().err


def test_every_operator_has_one_row() -> None:
    rows = [line for line in docs.pages()["docs/OPERATORS.md"].splitlines() if line.startswith("| ")]
    named = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    operators = [name for name in named if name not in ("operator", "---")]
    assert sorted(operators) == sorted(f"{entry.domain}.{entry.op}".lstrip(".") for entry in catalogue())


def test_every_rule_has_a_section_with_a_formula_and_its_source() -> None:
    assert docs.FORMULAS.keys() == RULES.keys()
    page = docs.pages()["docs/RULES.md"]
    for rule in RULES.values():
        section = page.split(f"\n## {rule.name}\n")[1].split("\n## ")[0]
        assert docs.FORMULAS[rule.name][-1] in section
        assert rule.source in section
        for parameter in rule.parameters:
            assert f"`{parameter}`" in section
    assert all(f"| `{kind}` |" in page for kind in KINDS)


def test_every_preset_is_printed_as_it_is() -> None:
    page = docs.pages()["docs/RULES.md"].split("# Presets")[1]
    printed = [block.split("\n```")[0] for block in page.split("```toml\n")[1:]]
    assert [tomllib.loads(text) for text in printed] == [tomllib.loads(preset_text(name)) for name in preset_names()]


def test_every_metric_has_a_row_and_a_section_that_tells_its_settings() -> None:
    page = docs.pages()["docs/METRICS.md"]
    for metric in metrics().values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{metric.name}` |"))
        assert metric.summary in row
        assert metric.source in row
        assert all(f"{part} " in row for part in metric.better)
        section = page.split(f"\n## {metric.name}\n")[1].split("\n## ")[0]
        for name, value in metric.settings.items():
            assert f"`{name} = {value:g}`" in section
            assert f"`{name}`" in section, f"{metric.name} does not say what {name} is"


def test_a_page_that_was_changed_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name, text in docs.pages().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert docs.stale(tmp_path) == []
    (tmp_path / "docs" / "RULES.md").write_text("changed\n", encoding="utf-8")
    assert docs.stale(tmp_path) == ["docs/RULES.md"]
    (tmp_path / "docs" / "OPERATORS.md").unlink()
    assert docs.stale(tmp_path) == ["docs/OPERATORS.md", "docs/RULES.md"]


def test_a_bar_inside_a_cell_does_not_end_it() -> None:
    assert docs._table(("a",), [("|x|",)]).splitlines() == ["| a |", "| --- |", "| \\|x\\| |"]
