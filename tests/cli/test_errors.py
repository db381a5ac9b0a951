"""Every error is one message on standard error with the documented exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import onnxlrp
from onnxlrp.errors import ConversionError, ModelReadError, OnnxLrpError, UsageError, VerificationError
from tests.cli.conftest import Run, process

FAIL = "import onnxlrp\ndef fail(*a, **k): raise {}\nonnxlrp.convert_file = fail"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert"], "Missing argument 'MODEL'"),
        (["convert", "m.onnx", "--rule", "x"], "No such option"),
        (["convert", "m.onnx", "--axis", "x"], "'x' is not a valid integer"),
        (["convert", "a.onnx", "b.onnx"], "unexpected extra argument"),
        (["convrt"], "No such command 'convrt'"),
        (["--nothing"], "No such option"),
        (["rules", "nothing"], "unknown rule table 'nothing'"),
        (["rules", "epsilon", "--rule", "gamma"], "not both"),
        (["rules", "--rule", "gama"], "did you mean 'gamma'"),
        (["explain", "m.onnx"], "Missing argument 'DATA...'"),
        (["verify", "m.onnx", "d.npz", "--samples", "3"], "--samples"),
        (["verify", "m.onnx", "--samples", "0"], "--samples"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("onnxlrp: ")
    assert said in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError, 2),
        (ModelReadError, 3),
        (ConversionError, 4),
        (VerificationError, 5),
        (OnnxLrpError, 1),
    ],
)
def test_an_error_of_onnxlrp_has_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[OnnxLrpError], code: int
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error("model.onnx: why\n  node a\n  node b")

    monkeypatch.setattr(onnxlrp, "convert_file", fail, raising=False)
    result = run("convert", "model.onnx")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == "onnxlrp: model.onnx: why\n  node a\n  node b\n"


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("KeyboardInterrupt", 130, "onnxlrp: interrupted\n"),
        ("MemoryError", 1, "onnxlrp: out of memory\n"),
        (
            "OSError(28, 'No space left on device', 'out.onnx')",
            1,
            "onnxlrp: out.onnx: No space left on device\n",
        ),
        ("OSError('strange')", 1, "onnxlrp: strange\n"),
    ],
)
def test_what_happens_to_a_process_is_said_shortly(raised: str, code: int, said: str) -> None:
    result = process("convert", "m.onnx", before=FAIL.format(raised))
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.endswith(said)
    assert result.stderr.strip() == said.strip()


def test_a_defect_is_called_one_and_shown_on_request() -> None:
    before = FAIL.format("ZeroDivisionError('oops')")
    quiet = process("convert", "m.onnx", before=before)
    assert quiet.returncode == 1
    assert len(quiet.stderr.splitlines()) == 1
    assert "ZeroDivisionError: oops" in quiet.stderr
    assert "--debug" in quiet.stderr
    loud = process("--debug", "convert", "m.onnx", before=before)
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr
    assert "in fail" in loud.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently there")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_went_away_is_no_error(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = process("rules", "--rule", "all", stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        result = process("rules", stdout=full)
    assert result.returncode == 1
    assert result.stderr == "onnxlrp: No space left on device\n"


def test_names_that_the_terminal_cannot_show_are_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "own.toml"
    table.write_text('description = "größer → kleiner"\n[[rule]]\nrule = "flat"\n', encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    result = process("rules", str(table), encoding="latin-1")
    assert result.returncode == 0
    assert "größer \\u2192 kleiner" in result.stdout
