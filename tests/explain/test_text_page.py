"""The HTML page of a text: everything escaped, nothing from outside, colours on words."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onnxlrp.explain.answer import TopClass
from onnxlrp.explain.job import Job
from onnxlrp.explain.text_page import page
from onnxlrp.explain.text_results import TextMap, TextResult
from onnxlrp.explain.text_tokens import TokenRelevance, WordRelevance

EVIL = "<script>alert('x')</script>\"&"
JOB = Job(model=f"{EVIL}.onnx", rules=EVIL)


def text_map(target: str, *relevance: float) -> TextMap:
    words = [(f"w{k}", r, k == 0, 0 if k < 2 else 1) for k, r in enumerate(relevance)]
    return TextMap(
        target,
        "detail",
        tuple(TokenRelevance(text, r, None if special else 0, sequence) for text, r, special, sequence in words),
        tuple(WordRelevance(*word) for word in words),
        {"types": -0.25},
    )


RESULT = TextResult(
    "text", None, None, (TopClass(1, "name", 0.9),), "softmax", (text_map("t", 0, 2, -1),), (Path("x"),)
)


class _Read(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(result: TextResult) -> _Read:
    reader = _Read()
    reader.feed(page(result, JOB).decode())
    assert not reader.open
    return reader


def test_everything_is_escaped() -> None:
    one = text_map(EVIL, 1, 2)
    evil = replace(
        one,
        detail=EVIL,
        tokens=tuple(replace(token, text=EVIL) for token in one.tokens),
        words=tuple(replace(word, text=EVIL) for word in one.words),
        other_inputs={EVIL: 1.0},
    )
    top = (TopClass(0, EVIL, 0.5),)
    for generated in (None, EVIL):
        reader = read(replace(RESULT, generated=generated, top=top, maps=(evil, evil), notes=(EVIL,)))
        assert "script" not in {tag for tag, _ in reader.tags}
        assert reader.text.count(EVIL) > 10


@pytest.mark.parametrize("generated", [None, " on"])
def test_nothing_comes_from_outside(generated: str | None) -> None:
    reader = read(replace(RESULT, generated=generated))
    assert not {"script", "link", "img", "iframe", "a", "base"} & {tag for tag, _ in reader.tags}
    assert not any({"src", "href", "onclick"} & set(attributes) for _, attributes in reader.tags)
    assert not re.search(r"url\(|@import|https?:", page(RESULT, JOB).decode())
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in reader.tags)


def test_the_strongest_words_have_the_strongest_colours() -> None:
    words = [attributes for tag, attributes in read(RESULT).tags if tag == "span" and "title" in attributes]
    assert [word["title"] for word in words] == ["+0", "+2", "-1"]
    grounds = [re.search(r"rgb\((\d+),(\d+),(\d+)\)", str(word["style"])) for word in words]
    nothing, strong, against = [[int(part) for part in ground.groups()] for ground in grounds if ground]
    assert nothing == [255, 255, 255]
    assert strong[0] > strong[2] and against[2] > against[0]
    assert sum(strong) < sum(against)
    assert words[0]["class"] == "special" and "color:#fff" in str(words[1]["style"])


def test_each_text_has_a_paragraph() -> None:
    assert [attributes.get("class") for tag, attributes in read(RESULT).tags if tag == "p"].count("text") == 2


def test_the_matrix_has_a_column_for_each_generated_token_and_a_row_for_each_token_before() -> None:
    maps = (text_map("first", 1, 2), text_map("second", 1, 2, 3))
    content = page(replace(RESULT, generated="first second", maps=maps), JOB).decode()
    matrix = content[content.index('<table class="matrix">') : content.index("<figcaption>")]
    rows = matrix.split("<tr>")[1:]
    assert re.findall(r"<th>(.*?)</th>", rows[0]) == ["", "first", "second"]
    assert [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows[1:]] == [["+1", "+1"], ["+2", "+2"], ["", "+3"]]
