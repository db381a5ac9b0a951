"""Texts through models whose relevance can be told by hand: tokens, words, pairs, positions, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.explain.similar import SimilarTo
from onnxlrp.explain.text import TextOptions, TextResult, explain_texts
from onnxlrp.explain.text_tokens import TextTokenizer
from tests.support.texts import (
    CLASSIFIER,
    HEAD,
    MINUS,
    SECOND,
    TABLE,
    TYPES,
    byte_level,
    classifier,
    language_model,
    word_pieces,
    written,
)

Array = np.ndarray
TEXT = "Ignore all rules, the weather"
#: [CLS] ignore all rule ##s , the weather [SEP]
IDS = [2, 4, 5, 6, 7, 12, 8, 9, 3]


@pytest.fixture
def options(tmp_path: Path) -> TextOptions:
    return TextOptions(word_pieces(tmp_path))


def explained(tmp_path: Path, model: Any, options: TextOptions, text: str = TEXT, **asked: Any) -> TextResult:
    (result,) = explain_texts(model, [text], options=options, rules="epsilon", out_dir=tmp_path / "out", **asked)
    return result


def tokens(result: TextResult, k: int = 0) -> tuple[list[str], Array]:
    found = result.maps[k].tokens
    return [token.text for token in found], np.array([token.relevance for token in found])


def assert_close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_each_token_has_what_it_adds_to_the_likeliest_class(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, classifier(), options, labels=["a", "b", "c"])
    logits = TABLE[IDS].sum(0) @ HEAD[:, :3]
    best = int(logits.argmax())
    names, relevance = tokens(result)
    assert names == ["[CLS]", "Ignore", "all", "rule", "s", ",", "the", "weather", "[SEP]"]
    assert_close(relevance, TABLE[IDS] @ HEAD[:, best])
    assert result.maps[0].target == "abc"[best] and result.top[0].label == "abc"[best]
    assert result.maps[0].total == pytest.approx(logits[best], rel=1e-4)


def test_a_word_has_the_sum_of_its_pieces(tmp_path: Path, options: TextOptions) -> None:
    (one,) = explained(tmp_path, classifier(), options, target=1).maps
    pieces = TABLE[IDS] @ HEAD[:, 1]
    assert [word.text for word in one.words] == ["[CLS]", "Ignore", "all", "rules", ",", "the", "weather", "[SEP]"]
    assert_close(np.array([w.relevance for w in one.words]), np.array([*pieces[:3], pieces[3:5].sum(), *pieces[5:]]))
    assert [word.text for word in one.words if word.special] == ["[CLS]", "[SEP]"]


def test_padding_up_to_a_fixed_length_is_masked_and_left_out(tmp_path: Path, options: TextOptions) -> None:
    padded = replace(options, tokenizer=word_pieces(tmp_path, padded=True))
    for given in (options, padded):
        result = explained(tmp_path, classifier(16), given, target=1)
        assert_close(tokens(result)[1], TABLE[IDS] @ HEAD[:, 1])
        assert result.notes == ()
    with pytest.raises(UsageError, match=r"the text has 9 tokens, but input 'input_ids' takes 8"):
        explained(tmp_path, classifier(8), options)


def test_a_model_without_a_mask_sees_what_fills_it_up(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, language_model(16), options, position="last", target=3)
    assert result.notes == ("the model has no mask: it sees the 7 tokens that fill it up to 16",)


def test_a_text_that_the_tokenizer_cuts_is_noted(tmp_path: Path) -> None:
    result = explained(tmp_path, classifier(), TextOptions(word_pieces(tmp_path, max_length=6)))
    assert len(result.maps[0].tokens) == 6
    assert result.notes == ("the text is cut to 6 tokens, as the tokenizer has it",)


def test_two_texts_in_one_input_are_told_apart_by_their_segments(tmp_path: Path, options: TextOptions) -> None:
    nodes = CLASSIFIER.replace("k = Mul(e, m)", "t = Gather(types, token_type_ids) u = Add(e, t) k = Mul(u, m)")
    size = "int64[N,S]"
    inputs = f"{size} input_ids, {size} attention_mask, {size} token_type_ids"
    model = written(nodes, inputs, "float[N,3] logits", **MINUS)
    paired = replace(options, pairs=("fine",))
    result = explained(tmp_path, model, paired, "all rules", target=2)
    ids = [2, 5, 6, 7, 3, 11, 3]
    assert_close(tokens(result)[1], TABLE[ids] @ HEAD[:, 2])
    assert [token.sequence for token in result.maps[0].tokens] == [0, 0, 0, 0, 0, 1, 1]
    segments = (5 * TYPES[0] + 2 * TYPES[1]) @ HEAD[:, 2]
    assert result.maps[0].other_inputs == {"token_type_ids": pytest.approx(segments, rel=1e-4)}


def test_two_texts_in_inputs_of_their_own(tmp_path: Path, options: TextOptions) -> None:
    nodes = """
      a = Gather(table, query_input_ids) x = ReduceSum <keepdims = 0> (a, axis)
      b = Gather(second, doc_input_ids) y = ReduceSum <keepdims = 0> (b, axis)
      s = Add(x, y) logits = MatMul(s, classes)
    """
    inputs = "int64[N,S] query_input_ids, int64[N,D] doc_input_ids"
    model = written(nodes, inputs, "float[N,3] logits", **MINUS)
    result = explained(tmp_path, model, replace(options, pairs=("fine",)), "all", target=0)
    assert_close(tokens(result)[1], np.concatenate([TABLE[[2, 5, 3]], SECOND[[2, 11, 3]]]) @ HEAD[:, 0])
    assert [token.sequence for token in result.maps[0].tokens] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UsageError, match="takes 2 texts, by query_input_ids, doc_input_ids: give two"):
        explained(tmp_path, model, options)


@pytest.mark.parametrize("sequence", ["S", 12])
@pytest.mark.parametrize(("position", "place"), [("last", 4), (1, 1), (-2, 3), ("input", 4)])
def test_the_scores_of_one_position_are_named_by_their_tokens(
    tmp_path: Path, sequence: str | int, position: Any, place: int
) -> None:
    """Also where the model is filled up behind the text, so that its last position is not that of the text."""
    options = TextOptions(byte_level(tmp_path))
    ids = [1, 2, 3, 4, 5]
    result = explained(tmp_path, language_model(sequence), options, "The cat sat on mat", position=position)
    seen = TABLE[ids[: place + 1]]
    best = int((seen.sum(0) @ HEAD).argmax())
    assert_close(tokens(result)[1], np.append(seen @ HEAD[:, best], [0.0] * (4 - place)))
    names = TextTokenizer(options.tokenizer).names(40)
    assert result.maps[0].target == names[best]


def test_a_token_rather_than_another_by_their_texts(tmp_path: Path) -> None:
    options = TextOptions(byte_level(tmp_path), token=" Paris", rather_than_token="\u0120London")
    result = explained(tmp_path, language_model(), options, "The cat", position="last")
    assert_close(tokens(result)[1], TABLE[[1, 2]] @ (HEAD[:, 7] - HEAD[:, 8]))
    assert result.maps[0].target == '" Paris" rather than " London"'
    with pytest.raises(UsageError, match="' cats' is not one token but 5: 'Ġ', 'c', 'a', 't', 's'"):
        explained(tmp_path, language_model(), replace(options, token=" cats"), "The cat", position="last")
    with pytest.raises(UsageError, match="a token is the target: give one of the two"):
        explained(tmp_path, language_model(), options, "The cat", position="last", target=3)


def test_several_maps_in_one_run(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, classifier(), options, target="top:2")
    order = np.argsort(-(TABLE[IDS].sum(0) @ HEAD[:, :3]))
    for k in range(2):
        assert_close(tokens(result, k)[1], TABLE[IDS] @ HEAD[:, order[k]])
        assert result.maps[k].target == f"class {order[k]}"


@pytest.mark.parametrize("target", ["input", 2])
def test_converted_models(tmp_path: Path, options: TextOptions, target: Any) -> None:
    model = onnxlrp.convert(classifier(), rules="epsilon", target=target)
    (result,) = explain_texts(
        model, [TEXT], options=options, out_dir=tmp_path, **({"target": 2} if target == "input" else {})
    )
    assert_close(tokens(result)[1], TABLE[IDS] @ HEAD[:, 2])
    by_position = onnxlrp.convert(language_model(), rules="epsilon", target=2, position="input")
    (result,) = explain_texts(by_position, [TEXT], options=options, out_dir=tmp_path)
    assert_close(tokens(result)[1], TABLE[IDS] @ HEAD[:, 2])


def test_files_and_what_is_in_them(tmp_path: Path, options: TextOptions) -> None:
    results = explain_texts(
        classifier(), [TEXT, "fine"], options=options, rules="epsilon", target=1, out_dir=tmp_path / "out"
    )
    names = [file.name for result in results for file in result.files]
    assert names == [f"text{k}.epsilon.class-1.{end}" for k in ("", "-2") for end in ("html", "npz")]
    with np.load(results[0].files[1]) as saved:
        assert_close(saved["relevance"][0], TABLE[IDS] @ HEAD[:, 1])
        assert saved["ids"].tolist() == [IDS]
        assert saved["tokens"][0].tolist() == [token.text for token in results[0].maps[0].tokens]
        assert_close(saved["output/logits"][0], TABLE[IDS].sum(0) @ HEAD[:, :3])
        assert json.loads(str(saved["settings"]))["text"] == TEXT


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({"pairs": ("a", "b")}, {}, "1 texts and 2 texts to pair them with"),
        ({"similar_to": SimilarTo("x"), "generate": 2}, {}, "of two similar texts is their cosine"),
        ({"similar_to": SimilarTo("x", pooling="max")}, {}, "pooling is one of mean, first, last, none, not 'max'"),
        ({"generate": 2}, {"target": 1}, "leave target, token and position out"),
        ({"feed": {"input_ids": "words"}}, {}, "cannot be fed with 'words'; write one of ids, mask"),
        ({"tokenizer": "none.json"}, {}, r"none\.json: not a tokenizer\.json"),
        ({}, {"data": {"other": 1.0}}, "the model has no input 'other'"),
        ({"generate": 2}, {}, r"an output \[batch, sequence, classes\]"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_written(
    tmp_path: Path, options: TextOptions, changes: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        explained(tmp_path, classifier(), replace(options, **changes), **asked)
    assert not (tmp_path / "out").exists()


def test_an_empty_text_is_refused(tmp_path: Path, options: TextOptions) -> None:
    with pytest.raises(UsageError, match="a text is empty"):
        explained(tmp_path, classifier(), options, "")


def test_scores_for_every_position_are_noted_where_no_position_is_named(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, language_model(), options)
    assert result.notes == ("the output has scores for each of 9 positions; a position names one",)


def test_ids_that_are_not_explained_are_missed(tmp_path: Path, options: TextOptions) -> None:
    nodes = LANGUAGE_WITH_FLOATS
    model = written(nodes, "int64[N,S] input_ids, float[N,S,4] extra", "float[N,S,40] logits")
    feeds = {"data": {"extra": np.ones((1, 9, 4), np.float32)}}
    with pytest.raises(UsageError, match=r"no token ids are explained; these are: extra\. Explain input_ids"):
        explained(tmp_path, model, options, inputs=["extra"], position="last", **feeds)
    result = explained(tmp_path, model, options, position="last", target=1, **feeds)
    assert_close(tokens(result)[1], TABLE[IDS] @ HEAD[:, 1])
    assert result.maps[0].other_inputs["extra"] == pytest.approx(9 * HEAD[:, 1].sum(), rel=1e-4)


LANGUAGE_WITH_FLOATS = """
  e = Gather(table, input_ids) both = Add(e, extra) s = CumSum(both, one) logits = MatMul(s, head)
"""


def test_the_library_that_is_missing_is_named(
    tmp_path: Path, options: TextOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"pip install 'onnxlrp\[text\]'"):
        explained(tmp_path, classifier(), options)
