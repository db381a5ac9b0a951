"""A continuation, token by token: each has the relevance that the same text gives its score at the last position."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.explain.text import TextOptions, TextResult, explain_texts
from onnxlrp.explain.text_tokens import TextTokenizer
from tests.support.texts import HEAD, TABLE, VOCABULARY, byte_level, classifier, language_model, word_pieces, written

#: Each of nine tokens is followed by the next one, the last of them by the first, which ends a text.
NEXT = np.zeros((VOCABULARY, VOCABULARY))
NEXT[range(9), [*range(1, 9), 0]] = 8


@pytest.fixture
def options(tmp_path: Path) -> TextOptions:
    return TextOptions(byte_level(tmp_path), generate=3)


def counting(sequence: str | int = "S") -> onnx.ModelProto:
    nodes = "e = Gather(eye, input_ids) logits = MatMul(e, next)"
    size, scores = f"int64[N,{sequence}] input_ids", f"float[N,{sequence},{VOCABULARY}] logits"
    return written(nodes, size, scores, eye=np.eye(VOCABULARY), next=NEXT)


def explained(tmp_path: Path, model: onnx.ModelProto, options: TextOptions, text: str = "The cat") -> TextResult:
    (result,) = explain_texts(model, [text], options=options, rules="epsilon", out_dir=tmp_path / "out")
    return result


@pytest.mark.parametrize("sequence", ["S", 12])
def test_each_token_rests_on_all_that_came_before(tmp_path: Path, options: TextOptions, sequence: str | int) -> None:
    result = explained(tmp_path, language_model(sequence), replace(options, generate=4))
    ids = [1, 2]
    assert len(result.maps) == 4
    for one in result.maps:
        best = int((TABLE[ids].sum(0) @ HEAD).argmax())
        relevance = [token.relevance for token in one.tokens]
        np.testing.assert_allclose(relevance, TABLE[ids] @ HEAD[:, best], rtol=1e-4, atol=1e-5)
        assert one.target == TextTokenizer(options.tokenizer).names(40)[best]
        ids.append(best)


def test_the_continuation_and_its_words(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, counting(), options)
    assert result.generated == " sat on mat"
    assert [one.target for one in result.maps] == ['" sat"', '" on"', '" mat"']
    assert [word.text for word in result.maps[2].words] == ["The", "cat", "sat", "on"]
    assert [token.relevance for token in result.maps[2].tokens] == pytest.approx([0, 0, 0, 8])


def test_a_generated_piece_without_a_space_belongs_to_the_word_before_it(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, counting(), options, "The cat sat on")
    assert result.generated == " mats Paris"
    assert [word.text for word in result.maps[2].words] == ["The", "cat", "sat", "on", "mats"]


def test_a_special_token_ends_the_text(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, counting(), options, "The Paris")
    assert [one.target for one in result.maps] == ['" London"', '"<end>"']
    assert result.generated == " London"
    assert result.notes == ("the model ended the text with <end>",)


def test_files_hold_a_row_for_each_generated_token(tmp_path: Path, options: TextOptions) -> None:
    result = explained(tmp_path, counting(), options)
    assert [file.name for file in result.files] == ["text.epsilon.generated.html", "text.epsilon.generated.npz"]
    with np.load(result.files[1]) as saved:
        assert saved["relevance"].shape == (3, 4)
        assert np.isnan(saved["relevance"][0]).tolist() == [False, False, True, True]
        assert saved["ids"].tolist() == [[1, 2, -1, -1], [1, 2, 3, -1], [1, 2, 3, 4]]
        assert saved["tokens"][2].tolist() == ["The", "cat", "sat", "on"]


def test_a_model_with_a_cache_starts_with_an_empty_one(tmp_path: Path, options: TextOptions) -> None:
    nodes = """
      e = Gather(table, input_ids) heads = Unsqueeze(e, axis) whole = Concat <axis = 2> (past_key_0, heads)
      s = CumSum(whole, two) flat = Squeeze(s, axis) logits = MatMul(flat, head) present_key_0 = Identity(whole)
    """
    inputs = "int64[N,S] input_ids, float[N,1,past,4] past_key_0, bool[1] use_cache_branch"
    outputs = "float[N,T,40] logits, float[N,1,T,4] present_key_0"
    model = written(nodes, inputs, outputs, two=np.array(2))
    cached, plain = explained(tmp_path, model, options), explained(tmp_path, language_model(), options)
    assert cached.maps == plain.maps


@pytest.mark.parametrize("position", ["last", "input"])
def test_a_converted_model_goes_on_from_the_position_that_it_explains(
    tmp_path: Path, options: TextOptions, position: str
) -> None:
    model = onnxlrp.convert(language_model(), rules="epsilon", position=position)
    (converted,) = explain_texts(model, ["The cat"], options=options, out_dir=tmp_path)
    assert converted.maps == explained(tmp_path, language_model(), options).maps
    with pytest.raises(UsageError, match=r"the scores \[batch, sequence, tokens\] of one position"):
        explain_texts(onnxlrp.convert(language_model(), rules="epsilon"), ["The"], options=options, out_dir=tmp_path)


def test_what_cannot_be_continued(tmp_path: Path, options: TextOptions) -> None:
    with pytest.raises(UsageError, match=r"an output \[batch, sequence, classes\]"):
        explained(tmp_path, classifier(), replace(options, tokenizer=word_pieces(tmp_path)))
    nodes = """
      a = Gather(table, input_ids) b = Gather(second, decoder_input_ids) sum = ReduceSum(a, axis) e = Add(b, sum)
      logits = MatMul(e, head)
    """
    inputs = "int64[N,S] input_ids, int64[N,D] decoder_input_ids"
    model = written(nodes, inputs, "float[N,D,40] logits")
    with pytest.raises(UsageError, match="with one input of token ids only"):
        explained(tmp_path, model, replace(options, pairs=("The",)))
