"""What `rules` and `ops` print, and that they start fast."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from onnxlrp.rules.spec import RULES
from onnxlrp.tables import preset_names, preset_text
from tests.cli.conftest import Run, process


def test_rules_lists_the_tables(run: Run) -> None:
    result = run("rules")
    assert (result.exit_code, result.stderr) == (0, "")
    listed = [line.split()[0] for line in result.stdout.splitlines()[2:]]
    assert listed == list(preset_names())
    found = json.loads(run("rules", "--json").stdout)
    assert [table["name"] for table in found] == list(preset_names())
    assert all(table["description"] in result.stdout for table in found)


@pytest.mark.parametrize("name", preset_names())
def test_rules_prints_a_table_that_can_be_used_as_a_file(run: Run, name: str, tmp_path: Path) -> None:
    printed = run("rules", name).stdout
    assert printed == preset_text(name)
    copy = tmp_path / "copy.toml"
    copy.write_text(printed, encoding="utf-8")
    assert run("rules", str(copy)).stdout == printed
    assert json.loads(run("rules", name, "--json").stdout)["name"] == tomllib.loads(printed)["name"]


def test_rules_checks_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[[rule]]\nrule = "flat"\nlow = 1\n', encoding="utf-8")
    result = run("rules", str(tmp_path / "own.toml"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"onnxlrp: {tmp_path / 'own.toml'} line 3: ")


def test_rules_describes_the_rules(run: Run) -> None:
    listed = [line.split()[0] for line in run("rules", "--rule", "all").stdout.splitlines()[2:]]
    assert listed == list(RULES)
    assert [rule["name"] for rule in json.loads(run("rules", "--rule", "all", "--json").stdout)] == list(RULES)
    text = run("rules", "--rule", "z+").stdout
    for part in ("z-plus", "also called", RULES["z-plus"].source, "epsilon (default 1e-06)"):
        assert part in text
    assert "low (must be stated)" in run("rules", "--rule", "z-box").stdout
    found = json.loads(run("rules", "--rule", "alpha-beta", "--json").stdout)
    assert found["parameters"]["alpha"]["minimum"] == 1.0
    assert found["parameters"]["alpha"]["maximum"] is None


def test_ops_lists_the_catalogue(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (
        SimpleNamespace(op="Conv", domain="", kind="linear", treatment="by rule", derivative="transpose"),
        SimpleNamespace(op="Shape", domain="", kind="stop", treatment="ends here", derivative="zero"),
    )
    monkeypatch.setitem(sys.modules, "onnxlrp.operators", SimpleNamespace(catalogue=lambda: entries))
    lines = run("ops").stdout.splitlines()
    assert lines[0].split() == ["op", "kind", "treatment", "derivative"]
    assert lines[2].split() == ["Conv", "linear", "by", "rule", "transpose"]
    assert lines[-1] == "2 operators"
    assert json.loads(run("ops", "--json").stdout)[1] == {
        "op": "Shape", "domain": "ai.onnx", "kind": "stop", "treatment": "ends here", "derivative": "zero",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [["rules"], ["rules", "epsilon"], ["--help"], ["explain", "--help"], ["--version"]]
)
def test_what_needs_no_session_loads_no_runtime(arguments: list[str]) -> None:
    heavy = ("onnxruntime", "PIL", "onnx_graphsurgeon", "torch")
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    watch = f"import atexit\natexit.register(lambda: print({loaded}, file=sys.stderr))"
    result = process(*arguments, before=watch)
    assert (result.returncode, result.stderr) == (0, "[]\n")
    assert result.stdout


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == run("--help").stdout
    listed = [line.split()[0] for line in result.stdout.split("Commands:\n")[1].splitlines()]
    assert listed == ["convert", "plan", "explain", "verify", "evaluate", "tune", "rules", "ops"]
