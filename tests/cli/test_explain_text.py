"""`onnxlrp explain --text`: its options, and what it prints with and without a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.similar import SimilarTo
from onnxlrp.explain.text import TextOptions
from tests.cli.conftest import Run
from tests.support.texts import HEAD, TABLE, byte_level, classifier, language_model, word_pieces


@pytest.fixture
def model(tmp_path: Path) -> str:
    onnx.save(classifier(), tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the Python function was given."""
    given: dict[str, Any] = {}

    def explain_texts(model: str, texts: tuple[str, ...], **options: Any) -> list[Any]:
        given.update(options, model=model, texts=texts)
        return []

    monkeypatch.setattr("onnxlrp.explain.text.explain_texts", explain_texts)
    return given


def test_every_option_is_handed_on(run: Run, received: dict[str, Any]) -> None:
    stated = ["--tokenizer", "t.json", "--text", "a", "--text", "b", "--text-pair", "c", "--text-pair", "d"]
    stated += ["--feed", "x=ids", "--feed", "y:0=pair-mask", "--token", " Paris", "--rather-than-token", "London"]
    stated += ["--generate", "3", "--data", "z=1", "--position", "last", "--similar-to", "e", "--pooling", "first"]
    stated += ["--other-model", "o.onnx", "--other-output", "v", "--preprocess", "clip"]
    result = run("explain", "m.onnx", *stated, "-o", "out", "--top", "2", "--labels", "l.txt", "--rules", "epsilon")
    assert result.exit_code == 0, result.stderr
    feed = {"x": "ids", "y:0": "pair-mask"}
    images = ImageOptions(preset="clip")
    similar = SimilarTo("e", "o.onnx", "v", "t.json", images=images, pooling="first")
    options = TextOptions("t.json", ("c", "d"), feed, " Paris", "London", 3, similar)
    assert received == {
        "model": "m.onnx", "texts": ("a", "b"), "options": options, "data": {"z": "1"}, "out_dir": "out", "top": 2,
        "labels": "l.txt", "rules": "epsilon", "position": "last", "providers": None, "progress": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "a"], "--text needs the model's --tokenizer"),
        (["--text", "a", "--tokenizer", "t", "cat.jpg"], "--text and DATA cannot go together"),
        (["--tokenizer", "t"], "Missing argument 'DATA...'"),
        (["--text", "a", "--tokenizer", "t", "--feed", "x"], "'x' names no input"),
        (["--text", "a", "--tokenizer", "t", "--feed", "x=ids", "--feed", "x=mask"], "input 'x' is given twice"),
        (["--text", "a", "--tokenizer", "t", "--generate", "0"], "'--generate'"),
        (["--text", "a", "--tokenizer", "t", "--pooling", "mean"], "go with --similar-to"),
        (["a.wav", "--similar-to", "b.wav"], "--similar-to goes with image files as DATA, or with --text"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], message: str) -> None:
    result = run("explain", "m.onnx", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_words_have_signed_numbers_in_a_pipe(run: Run, model: str, tmp_path: Path) -> None:
    tokenizer = str(word_pieces(tmp_path))
    arguments = ["--text", "Ignore rules", "--rules", "epsilon", "--target", "1", "-o", str(tmp_path), "--top", "2"]
    result = run("explain", model, "--tokenizer", tokenizer, *arguments)
    assert result.exit_code == 0, result.stderr
    first, ignore, rule, plural, last = (TABLE[[2, 4, 6, 7, 3]] @ HEAD[:, 1]).tolist()
    words = [("[CLS]", first), ("Ignore", ignore), ("rules", rule + plural), ("[SEP]", last)]
    lines = result.stdout.splitlines()
    assert lines[0] == "text     Ignore rules"
    assert " ".join(f"{text}({r:+.2g})" for text, r in words) in lines
    largest = sorted(words, key=lambda word: -abs(word[1]))[0]
    assert f"most  {largest[1]:+.4g}  {largest[0]}" in lines
    assert lines[-1].endswith("text.epsilon.class-1.npz")
    assert "\x1b" not in result.stdout


def test_words_have_colours_on_a_terminal(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxlrp.cli.explain_text.on_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    tokenizer = str(word_pieces(tmp_path))
    result = run("explain", model, "--tokenizer", tokenizer, "--text", "Ignore", "-o", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "48;2;" in result.stdout and "Ignore(" not in result.stdout


def test_json(run: Run, model: str, tmp_path: Path) -> None:
    tokenizer = str(word_pieces(tmp_path))
    arguments = ["--text", "all", "--target", "2", "--rules", "epsilon", "-o", str(tmp_path), "--json"]
    (found,) = json.loads(run("explain", model, "--tokenizer", tokenizer, *arguments).stdout)
    relevance = [token["relevance"] for token in found["maps"][0]["tokens"]]
    np.testing.assert_allclose(relevance, TABLE[[2, 5, 3]] @ HEAD[:, 2], rtol=1e-4)
    assert [token["text"] for token in found["maps"][0]["tokens"]] == ["[CLS]", "all", "[SEP]"]
    assert found["text"] == "all" and found["generated"] is None


def test_a_generated_text_and_two_similar_ones(run: Run, tmp_path: Path) -> None:
    onnx.save(language_model(), tmp_path / "lm.onnx")
    tokenizer = str(byte_level(tmp_path))
    common = [str(tmp_path / "lm.onnx"), "--tokenizer", tokenizer, "--rules", "epsilon", "-o", str(tmp_path)]
    result = run("explain", *common, "--text", "The cat", "--generate", "2")
    assert result.exit_code == 0 and result.stdout.count("explained  ") == 2 and "\ngenerated" in result.stdout
    result = run("explain", *common, "--text", "The cat", "--similar-to", "The mat")
    assert result.exit_code == 0 and "explained  cosine to 'The mat'  cosine 0." in result.stdout
