"""Commands of the guide that need fetched models run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from onnxlrp.cli.main import cli
from tests.breadth.real import MODELS, PITCH_RATE, REPOSITORY, fetched, notes

BLOCKS = re.findall(r"^```text\n(onnxlrp .*?)```$", (REPOSITORY / "docs" / "GUIDE.md").read_text("utf-8"), re.M | re.S)
NEEDED = {
    "face_detection_yunet": "yunet",
    "nmp.onnx": "basic-pitch",
    "silero_vad": "silero-vad",
    "astronaut": "astronaut",
    "mobilenetv2-7": "mobilenetv2",
}


def test_there_are_such_commands() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: shlex.split(text)[2].rsplit("/", 1)[-1])
def test_commands_on_fetched_models(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, name in NEEDED.items():
        if part in text:
            fetched(name)
    (tmp_path / "models").symlink_to(MODELS)
    soundfile.write(tmp_path / "notes.wav", notes(), PITCH_RATE)
    monkeypatch.chdir(tmp_path)
    _, *arguments = shlex.split(text.replace("\\\n", " "))
    result = CliRunner().invoke(cli, arguments, prog_name="onnxlrp")
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "pictures").glob("*.png"))
