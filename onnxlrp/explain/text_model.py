"""A model opened for texts: its session, its tokenizer, and one pass through both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.answer import Answer, Reading, read_answer
from onnxlrp.explain.feeds import Value, arrays_for
from onnxlrp.explain.job import Job
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.session import Explainer, Explanation, answer_of
from onnxlrp.explain.text_inputs import TextInputs, fill, find_text_inputs
from onnxlrp.explain.text_results import Pass
from onnxlrp.explain.text_tokens import Encoded, Piece, TextTokenizer


@dataclass(frozen=True)
class TextModel:
    """What all texts of one call share.

    Attributes:
        others: arrays for inputs that no text goes into.
        position: the token whose scores are explained, for a model that takes it with every run; may count back.
    """

    explainer: Explainer
    job: Job
    tokenizer: TextTokenizer
    inputs: TextInputs
    others: Mapping[str, np.ndarray]
    position: int | None = None

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        job: Job,
        tokenizer: TextTokenizer,
        feed: Mapping[str, str],
        data: Mapping[str, Value],
        position: int | None = None,
    ) -> TextModel:
        """With its inputs found by their names and `feed`, but for those that `data` fills.

        Raises UsageError for inputs that nothing is known of, and data that do not fit.
        """
        others = arrays_for(explainer, data, ImageOptions())
        return cls(explainer, job, tokenizer, find_text_inputs(explainer, feed, tuple(others)), others, position)

    def encode(self, text: str, pair: str | None) -> tuple[Encoded, ...]:
        """The tokens for each group of inputs: both texts in one, or each in its own.

        Raises UsageError where the model takes another number of texts.
        """
        groups = len(self.inputs.groups)
        if groups == 1:
            return (self.tokenizer.encode(text, pair),)
        if groups != 2 or pair is None:
            raise UsageError(
                f"the model takes {groups} texts, by {', '.join(self.inputs.ids)}: give two, the second as the pair"
            )
        return self.tokenizer.encode(text), self.tokenizer.encode(pair)

    def feeds(self, texts: Sequence[Encoded]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Arrays for every input, and what a reader should know of them."""
        feeds, notes = fill(self.inputs, self.explainer, texts, self.tokenizer.pad_id)
        cut = (note for encoded in texts for note in encoded.notes)
        return {**feeds, **self.others}, (*cut, *notes)

    def run(self, texts: Sequence[Encoded]) -> tuple[Explanation, tuple[str, ...]]:
        """One pass, with the target and the position where the model takes these."""
        feeds, notes = self.feeds(texts)
        given: dict[str, Any] = {}
        if self.job.target_each_run:
            given["target"] = self.job.target
        if self.position is not None:
            count = len(texts[-1].ids)
            if not -count <= self.position < count:
                raise UsageError(f"position {self.position} is out of range: the text has {count} tokens")
            given["position"] = self.position % count
        return self.explainer.explain(feeds, **given), notes

    def read(self, found: Explanation) -> tuple[Answer, Reading]:
        """What the model said, in words; classes of a model with a score for every token are called by the tokens."""
        answer = answer_of(found, 0, self._batch(found))
        values = answer.explained
        job = self.job
        if job.labels is None and values is not None and values.ndim == 1 and values.size >= self.tokenizer.size:
            job = replace(job, labels=self.tokenizer.names(values.size))
        return answer, read_answer(answer, job)

    def _batch(self, found: Explanation) -> int:
        first = next(iter(found.outputs.values()))
        return first.shape[0] if first.ndim else 1

    def passes(
        self, found: Explanation, texts: Sequence[Encoded], reading: Reading, plain: Sequence[str]
    ) -> list[Pass]:
        """The relevance of the tokens for each map.

        Args:
            plain: the texts themselves, in the order of the tokens' sequences.

        Raises UsageError when no token ids are explained.
        """
        ids = [name for name in self.inputs.ids if name in found.relevance]
        if not ids:
            raise UsageError(
                f"no token ids are explained; these are: {', '.join(found.relevance)}. "
                f"Explain {', '.join(self.inputs.ids)}"
            )
        several = self.job.maps is not None
        result = []
        for k, subject in enumerate(reading.subjects):
            rows = {name: _row(values, k, several) for name, values in found.relevance.items()}
            parts = []
            for sequence, (name, encoded) in enumerate(zip(self.inputs.ids, texts, strict=True)):
                if name in ids:
                    own = encoded.pieces if len(texts) == 1 else _numbered(encoded, sequence)
                    parts.append((own, rows[name][: len(own)]))
            others = {name: float(row.sum()) for name, row in rows.items() if name not in ids and row.size}
            pieces = tuple(piece for own, _ in parts for piece in own)
            relevance = np.concatenate([row for _, row in parts])
            result.append(Pass(subject.heading, subject.detail, pieces, relevance, others, tuple(plain)))
        return result


def _row(relevance: np.ndarray, k: int, several: bool) -> np.ndarray:
    """The relevance of the first sample, of map `k` where there are several; float64."""
    first = relevance[0] if relevance.ndim > 1 else relevance
    chosen: np.ndarray = (first[k] if several else first).astype(np.float64)
    return chosen


def _numbered(encoded: Encoded, sequence: int) -> tuple[Piece, ...]:
    """The pieces of a text that goes through inputs of its own, as those of the first or second text."""
    return tuple(replace(piece, sequence=sequence) for piece in encoded.pieces)
