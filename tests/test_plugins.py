"""Plugins: files, modules and installed entry points that register rules and operators."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

import onnxlrp
from onnxlrp import plugins
from onnxlrp.cli.main import cli
from onnxlrp.rules.own import remove_rule
from tests.emit.test_concepts import network

SOURCE = """
import onnxlrp

@onnxlrp.register_rule("shared", parameters={"epsilon": 1e-6}, summary="the epsilon rule once more")
def shared(step, relevance, p):
    b = step.b
    z = step.forward(step.x)
    return b.mul(step.x, step.adjoint(b.div(relevance, step.stabilised(z, p["epsilon"]))))
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    remove_rule("shared")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shared_rule.py").write_text(SOURCE)
    (tmp_path / "table.toml").write_text('[[rule]]\nkind = "linear"\nrule = "shared"\nepsilon = 0.1\n')
    onnx.save(network(), tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, arguments, prog_name="onnxlrp")
    return done.exit_code, done.output


def test_a_file_before_the_command(folder: Path) -> None:
    code, said = call("--plugin", "shared_rule.py", "plan", "net.onnx", "--rules", "table.toml")
    assert code == 0 and "shared (epsilon=0.1)" in said, said
    code, said = call("convert", "net.onnx", "--rules", "table.toml", "-o", "out.onnx")
    assert code == 0, said
    code, said = call("rules", "--rule", "shared")
    assert code == 0 and "the epsilon rule once more" in said


def test_without_it_the_rule_is_unknown(folder: Path) -> None:
    code, said = call("plan", "net.onnx", "--rules", "table.toml")
    assert code == 2 and "table.toml line 3: unknown rule 'shared'" in said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, "plugin missing.py: no such file"),
        ("no_such_module", None, "plugin no_such_module cannot be loaded: ModuleNotFoundError"),
        ("broken.py", "1 / 0", "plugin broken.py cannot be loaded: ZeroDivisionError"),
        (
            "clash.py",
            'import onnxlrp\nonnxlrp.register_rule("epsilon")',
            "plugin clash.py: there is a rule 'epsilon' already",
        ),
    ],
)
def test_what_cannot_be_loaded(folder: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (folder / name).write_text(text)
    code, said = call("--plugin", name, "rules")
    assert code == 2 and message in said, said


def test_installed_plugins_are_loaded_by_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    point = metadata.EntryPoint("shared", "shared_rule", plugins.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == plugins.GROUP else [])
    plugins.load_installed.cache_clear()
    assert onnxlrp.plan("net.onnx", rules="table.toml").steps[0].rule == "shared"
    broken = metadata.EntryPoint("broken", "nowhere_at_all", plugins.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [broken])
    plugins.load_installed.cache_clear()
    with pytest.raises(onnxlrp.UsageError, match=r"installed plugin broken \(nowhere_at_all\) cannot be loaded"):
        onnxlrp.plan("net.onnx")
    monkeypatch.undo()
    plugins.load_installed.cache_clear()
