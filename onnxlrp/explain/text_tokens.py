"""Texts as token ids: the `tokenizers` library, and which piece of a token belongs to which word of the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError

#: What pads in vocabularies whose tokenizer does not say.
_PADS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Piece:
    """One token of a text.

    Attributes:
        text: the part of the text that it stands for; of a special token its name.
        word: the number of the word that it is a part of, counted through both texts; None for special tokens.
        sequence: 0 for the first text, 1 for the second.
        start: where in its text it begins, in characters; `end` is behind it.
    """

    id: int
    text: str
    word: int | None
    sequence: int = 0
    start: int = 0
    end: int = 0

    @property
    def is_special(self) -> bool:
        return self.word is None


@dataclass(frozen=True)
class Encoded:
    """The tokens of one text, or of two that go through a model together; `types` tell the two apart."""

    pieces: tuple[Piece, ...]
    types: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(piece.id for piece in self.pieces)

    def with_piece(self, piece: Piece) -> Encoded:
        """The same with one more token at the end."""
        return Encoded((*self.pieces, piece), (*self.types, self.types[-1] if self.types else 0), self.notes)


class TextTokenizer:
    """A tokenizer.json file, opened.

    Raises UsageError when the library is missing or the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UsageError(
                "texts need the library tokenizers, which is not installed: pip install 'onnxlrp[text]'"
            ) from None
        try:
            self._own: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise UsageError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from None
        padding = self._own.padding
        known = [self._own.token_to_id(name) for name in _PADS]
        self.pad_id = int(padding["pad_id"] if padding else next((k for k in known if k is not None), 0))
        # Only a model of fixed length needs padding, and then up to that length.
        self._own.no_padding()
        self._special = {int(k) for k, added in self._own.get_added_tokens_decoder().items() if added.special}

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self._own.get_vocab_size())

    def is_special(self, token: int) -> bool:
        return token in self._special

    def known(self, name: str) -> int | None:
        """The id of a token as it stands in the vocabulary; None where it does not."""
        found = self._own.token_to_id(name)
        return None if found is None else int(found)

    def encode(self, text: str, pair: str | None = None) -> Encoded:
        """The tokens of a text, or of two, with the special tokens that the tokenizer adds."""
        found = self._own.encode(text, pair)
        words = _word_numbers(found, (text, pair or ""))
        pieces: list[Piece] = []
        for place, (token, name) in enumerate(zip(found.ids, found.tokens, strict=True)):
            sequence = found.sequence_ids[place]
            start, end = found.offsets[place]
            inside = "" if sequence is None else (text, pair or "")[sequence][start:end].strip()
            if sequence is None:  # a special token stands with the text that it ends
                sequence = pieces[-1].sequence if pieces else 0
            pieces.append(Piece(token, inside or name, words[place], sequence, start, end))
        notes: tuple[str, ...] = ()
        if found.overflowing:
            length = self._own.truncation["max_length"]
            notes = (f"the text is cut to {length} tokens, as the tokenizer has it",)
        return Encoded(tuple(pieces), tuple(found.type_ids), notes)

    def continued(self, encoded: Encoded, token: int) -> Encoded:
        """The tokens with one more that a model has generated."""
        before, after = (self._decoded(ids) for ids in (encoded.ids, (*encoded.ids, token)))
        text = after[len(before) :] if after.startswith(before) else self._decoded((token,))
        last = encoded.pieces[-1] if encoded.pieces else None
        word = 1 + max((p.word for p in encoded.pieces if p.word is not None), default=-1)
        if last is not None and last.word is not None and not text[:1].isspace():
            word = last.word
        special = self.is_special(token)
        name = self._own.id_to_token(token) or str(token)
        return encoded.with_piece(Piece(token, text.strip() or name, None if special else word))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self._own.decode(list(ids)))

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._own.decode(list(ids), skip_special_tokens=False))

    def token_id(self, text: str) -> int:
        """The id of one token: as it stands in the vocabulary, or as a text that is one token.

        Raises UsageError for a text of several tokens.
        """
        known = self.known(text)
        if known is not None:
            return known
        found = self._own.encode(text, add_special_tokens=False)
        if len(found.ids) != 1:
            parts = ", ".join(map(repr, found.tokens))
            raise UsageError(f"{text!r} is not one token but {len(found.ids)}: {parts}; name one of them")
        return int(found.ids[0])

    def names(self, count: int) -> tuple[str, ...]:
        """All tokens as readable names in quotes; a model may have more scores than there are tokens."""
        spare = (f"unused {k}" for k in range(self.size, count))
        return (*self._names, *spare)[:count]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        texts = self._own.decode_batch([[k] for k in range(self.size)], skip_special_tokens=False)
        return tuple(json.dumps(text, ensure_ascii=False) for text in texts)


def _word_numbers(found: Any, texts: tuple[str, str]) -> list[int | None]:
    """The number of the word of each token, counted through both texts."""
    numbers: list[int | None] = []
    keys: dict[tuple[int, int], int] = {}
    by_space = [_is_one_word(found, sequence, text) for sequence, text in enumerate(texts)]
    for place, sequence in enumerate(found.sequence_ids):
        if sequence is None:
            numbers.append(None)
            continue
        start, end = found.offsets[place]
        own = _words_before(texts[sequence], start, end) if by_space[sequence] else found.word_ids[place]
        numbers.append(keys.setdefault((sequence, own or 0), len(keys)))
    return numbers


def _is_one_word(found: Any, sequence: int, text: str) -> bool:
    """Whether the tokenizer takes a text of several words for one, as those do that split at no spaces."""
    own = {w for w, s in zip(found.word_ids, found.sequence_ids, strict=True) if s == sequence}
    return len(own) == 1 and len(text.split()) > 1


def _words_before(text: str, start: int, end: int) -> int:
    """How many words separated by spaces begin at or before a piece of the text."""
    first = start + len(text[start:end]) - len(text[start:end].lstrip())
    return len(text[: first + 1].split())


@dataclass(frozen=True)
class TokenRelevance:
    """A token and its relevance; `word` is the number of its word, None for a special token."""

    text: str
    relevance: float
    word: int | None
    sequence: int


@dataclass(frozen=True)
class WordRelevance:
    """A word (or a special token) and the sum of the relevance of its pieces."""

    text: str
    relevance: float
    special: bool
    sequence: int


def token_relevance(pieces: Sequence[Piece], relevance: np.ndarray) -> tuple[TokenRelevance, ...]:
    """Each token with its relevance; padding behind the tokens is left out."""
    return tuple(
        TokenRelevance(p.text, float(r), p.word, p.sequence) for p, r in zip(pieces, relevance.tolist(), strict=False)
    )


def word_relevance(
    pieces: Sequence[Piece], relevance: np.ndarray, texts: Sequence[str] = ()
) -> tuple[WordRelevance, ...]:
    """Word by word: relevance is summed over pieces; a word is written as in the text where that is at hand."""
    groups: list[list[int]] = []
    for place, piece in enumerate(pieces):
        before = pieces[groups[-1][-1]] if groups else None
        if before and not piece.is_special and (before.word, before.sequence) == (piece.word, piece.sequence):
            groups[-1].append(place)
        else:
            groups.append([place])
    found = []
    for group in groups:
        first = pieces[group[0]]
        total = float(np.sum(relevance[group], dtype=np.float64))
        found.append(
            WordRelevance(_written([pieces[k] for k in group], texts), total, first.is_special, first.sequence)
        )
    return tuple(found)


def _written(group: Sequence[Piece], texts: Sequence[str]) -> str:
    """A word as it stands in its text, or as its pieces together where it was generated."""
    first = group[0]
    if first.is_special or not all(p.end > p.start for p in group) or first.sequence >= len(texts):
        return "".join(p.text for p in group)
    whole = texts[first.sequence][min(p.start for p in group) : max(p.end for p in group)]
    return whole.strip() or "".join(p.text for p in group)
