"""Tokens, the words that they belong to, and their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from onnxlrp.explain.text_tokens import TextTokenizer, word_relevance
from tests.support.texts import byte_level, word_pieces


def words(tokenizer: TextTokenizer, text: str, pair: str | None = None) -> list[str]:
    pieces = tokenizer.encode(text, pair).pieces
    return [word.text for word in word_relevance(pieces, np.zeros(len(pieces)), (text, pair or ""))]


def unsplit(folder: Path) -> TextTokenizer:
    """A tokenizer that splits at no spaces, as some of language models: a whole text is one word to it."""
    letters = {letter: k for k, letter in enumerate("abc ,")}
    own = Tokenizer(models.BPE(vocab={**letters, "ab": 5, " c": 6}, merges=[("a", "b"), (" ", "c")]))
    own.save(str(folder / "unsplit.json"))
    return TextTokenizer(folder / "unsplit.json")


def test_words_are_written_as_in_the_text(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(word_pieces(tmp_path))
    assert words(tokenizer, "ALL  Rules, fine") == ["[CLS]", "ALL", "Rules", ",", "fine", "[SEP]"]
    assert words(tokenizer, "all", "all") == ["[CLS]", "all", "[SEP]", "all", "[SEP]"]


def test_the_space_before_a_piece_is_no_part_of_the_word(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(byte_level(tmp_path))
    assert words(tokenizer, "The cat sat") == ["The", "cat", "sat"]
    assert words(tokenizer, "The cats") == ["The", "cats"]


def test_a_tokenizer_that_knows_no_words_is_split_at_spaces(tmp_path: Path) -> None:
    assert words(unsplit(tmp_path), "abc ca, c") == ["abc", "ca,", "c"]


def test_a_character_of_several_tokens_is_one_word(tmp_path: Path) -> None:
    alphabet = {letter: k for k, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    own = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.save(str(tmp_path / "bytes.json"))
    assert words(TextTokenizer(tmp_path / "bytes.json"), "a \N{CAT}!")[:2] == ["a", "\N{CAT}!"]


def test_two_texts_that_nothing_parts_are_two_words(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(byte_level(tmp_path))
    assert words(tokenizer, "The", "The") == ["The", "The"]


@pytest.mark.parametrize("text", ["\u0120Paris", " Paris"])
def test_a_token_is_named_as_in_the_vocabulary_or_by_its_text(tmp_path: Path, text: str) -> None:
    assert TextTokenizer(byte_level(tmp_path)).token_id(text) == 7


def test_names_of_all_tokens(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(word_pieces(tmp_path))
    names = tokenizer.names(17)
    assert names[:5] == ('"[PAD]"', '"[UNK]"', '"[CLS]"', '"[SEP]"', '"ignore"')
    assert names[15:] == ("unused 15", "unused 16")
    assert len(tokenizer.names(10)) == 10


def test_what_fills_up_a_text(tmp_path: Path) -> None:
    assert TextTokenizer(word_pieces(tmp_path, padded=True)).pad_id == 0
    own = Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "<pad>": 2}, unk_token="a"))
    own.save(str(tmp_path / "level.json"))
    assert TextTokenizer(tmp_path / "level.json").pad_id == 2
