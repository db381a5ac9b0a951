"""Every command and every piece of Python in README.md and docs/GUIDE.md runs as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlrp.tables import parse_table
from tests.support import texts

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/GUIDE.md")
GENERATED = ("docs/METRICS.md", "docs/OPERATORS.md", "docs/RULES.md")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line of its first line of text, and that text."""

    language: str
    line: int
    text: str


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], text.count("\n", 0, found.start(2)) + 1, found[2])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: models/, the command onnxlrp, and the other models and files that the pages speak of."""
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("cache"))
    shutil.copy(ROOT / "models" / "photos" / "cat.jpg", tmp_path / "cat.jpg")
    onnx.save(image_classifier(), tmp_path / "model.onnx")
    onnx.save(texts.classifier(), tmp_path / "classifier.onnx")
    onnx.save(texts.language_model(scores=len(texts.PIECES)), tmp_path / "language-model.onnx")
    onnx.save(texts.encoder(), tmp_path / "encoder.onnx")
    onnx.save(image_classifier(classes=4), tmp_path / "image-tower.onnx")
    texts.word_pieces(tmp_path)
    command = tmp_path / "bin" / "onnxlrp"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnxlrp.cli.main "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image_classifier(classes: int = 1000) -> onnx.ModelProto:
    """Classes from `data` [batch, 3, height, width], as an ImageNet classifier has them, with 16 filters."""
    values = np.random.default_rng(3)
    shapes = {"kernel": (16, 3, 8, 8), "weight": (16, classes)}
    weights = [numpy_helper.from_array(values.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["data", "kernel"], ["features"], name="conv", strides=[8, 8]),
        helper.make_node("Relu", ["features"], ["active"], name="relu"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="classify"),
    ]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
    graph = helper.make_graph(nodes, "net", [data], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are written for a POSIX shell")
@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, folder: Path) -> None:
    """In the order of the page; Python blocks share their names, as in one session."""
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page} line {block.line}:\n{done.stdout}{done.stderr}"
        elif block.language == "python":
            # Empty lines before it let errors name the page's own line.
            exec(compile("\n" * (block.line - 1) + block.text, ROOT / page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_rule_tables_are_valid(page: str) -> None:
    for block in blocks(page):
        if block.language == "toml":
            parse_table(block.text, name="example", source=f"{page} line {block.line}")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """`text` is what cannot run here: it needs a network, another program or another language."""
    found = [block.language for block in blocks(page)]
    assert {"sh", "python"} <= set(found) <= {"sh", "python", "toml", "text"}
    assert (ROOT / page).read_text(encoding="utf-8").count("\n```") == 2 * len(found)


def heading_anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, *GENERATED, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(heading_anchor, headings), target
