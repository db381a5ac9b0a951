"""One explained text on disk: an HTML page and the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain.answer import TopClass
from onnxlrp.explain.files import npz, write
from onnxlrp.explain.job import Job, beside
from onnxlrp.explain.text_page import page
from onnxlrp.explain.text_tokens import Piece, TokenRelevance, WordRelevance, token_relevance, word_relevance

PAGE, NUMBERS = ".html", ".npz"


@dataclass(frozen=True)
class TextMap:
    """What one pass explains.

    Attributes:
        target: what was explained, in words; `detail` its score.
        tokens: every token that the model saw, padding left out; `words` the same word by word.
        other_inputs: the sum of what other inputs made of ids received, such as segments and positions.
    """

    target: str
    detail: str
    tokens: tuple[TokenRelevance, ...]
    words: tuple[WordRelevance, ...]
    other_inputs: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(token.relevance for token in self.tokens)

    def largest(self, count: int) -> tuple[WordRelevance, ...]:
        """The words with the largest sizes of relevance, largest first; special tokens among them."""
        return tuple(sorted(self.words, key=lambda word: -abs(word.relevance))[:count])


@dataclass(frozen=True)
class TextResult:
    """What was found and written for one text.

    Attributes:
        generated: the continuation that the model generated, if it was asked for one; each token has a map.
        top: most likely classes, best first; empty when the explained output is not [batch, classes].
        score_kind: what the scores are: "softmax", "sigmoid" or "output" probabilities, or "" for raw outputs.
        files: everything written.
        notes: what a reader of the result should know.
        pairs: of two similar texts what each pair of tokens adds to the cosine, one row for each token of the first
            text, if that was asked for.
    """

    text: str
    pair: str | None
    generated: str | None
    top: tuple[TopClass, ...]
    score_kind: str
    maps: tuple[TextMap, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    pairs: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Pass:
    """One map before it is put into words: the tokens, their relevance, and what else there is to keep."""

    target: str
    detail: str
    pieces: tuple[Piece, ...]
    relevance: np.ndarray
    other_inputs: Mapping[str, float]
    texts: tuple[str, ...]

    def as_map(self) -> TextMap:
        """Raises OnnxLrpError when the relevance is not finite."""
        if not np.isfinite(self.relevance).all():
            raise OnnxLrpError(
                f"{self.texts[0]!r}: the relevance has values that are not finite; `onnxlrp verify` on this model and "
                "its inputs shows where they arise"
            )
        return TextMap(
            self.target,
            self.detail,
            token_relevance(self.pieces, self.relevance),
            word_relevance(self.pieces, self.relevance, self.texts),
            self.other_inputs,
        )


@dataclass(frozen=True)
class Found:
    """Everything about one text before it is written. `arrays` are outputs and inputs of the model to be kept."""

    text: str
    pair: str | None
    passes: tuple[Pass, ...]
    top: tuple[TopClass, ...] = ()
    score_kind: str = ""
    generated: str | None = None
    arrays: Mapping[str, np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    pairs: np.ndarray | None = None


def planned_files(prefix: Path) -> tuple[Path, ...]:
    """Every file that `write_text` writes for this prefix."""
    return beside(prefix, PAGE), beside(prefix, NUMBERS)


def write_text(prefix: Path, found: Found, job: Job) -> TextResult:
    """Write the page and the arrays of one text to files that start with `prefix`; makes the folder.

    Raises OnnxLrpError when the relevance is not finite (nothing is written then), UsageError when the folder cannot
    be written.
    """
    maps = tuple(one.as_map() for one in found.passes)
    files = planned_files(prefix)
    notes = list(found.notes)
    if all(token.relevance == 0 for one in maps for token in one.tokens):
        notes.append("all relevance is zero")
    pairs = () if found.pairs is None else tuple(tuple(map(float, row)) for row in found.pairs)
    result = TextResult(
        *(found.text, found.pair, found.generated, found.top, found.score_kind, maps, files),
        notes=tuple(dict.fromkeys(notes)),
        pairs=pairs,
    )
    write(files[0], page(result, job))
    write(files[1], _arrays(found, maps, job))
    return result


def _arrays(found: Found, maps: Sequence[TextMap], job: Job) -> bytes:
    """`relevance`, `ids` and `tokens`, each [maps, tokens]; NaN, -1 and "" behind the tokens of a shorter map."""
    longest = max(len(one.pieces) for one in found.passes)
    relevance = np.full((len(maps), longest), np.nan, np.float32)
    ids = np.full((len(maps), longest), -1, np.int64)
    names = np.full((len(maps), longest), "", dtype=object)
    for row, one in enumerate(found.passes):
        count = len(one.pieces)
        relevance[row, :count] = one.relevance[:count]
        ids[row, :count] = [piece.id for piece in one.pieces]
        names[row, :count] = [piece.text for piece in one.pieces]
    settings = {
        "text": found.text,
        "pair": found.pair,
        "generated": found.generated,
        "model": job.model,
        "rules": job.rules,
        "explained": [one.target for one in maps],
    }
    return npz(
        {
            "relevance": relevance,
            "ids": ids,
            "tokens": names.astype(str),
            "settings": np.asarray(json.dumps(settings, ensure_ascii=False)),
            **(found.arrays or {}),
            **({} if found.pairs is None else {"pairs": found.pairs.astype(np.float32)}),
        }
    )
