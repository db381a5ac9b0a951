"""Texts from JSON lines as samples: token ids, masks, and which tokens a person has marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.data.classes import class_index
from onnxlrp.evaluation.sample import Layout, Sample
from onnxlrp.explain.session import ModelInputs
from onnxlrp.explain.text_inputs import TextInputs, fill, find_text_inputs
from onnxlrp.explain.text_tokens import TextTokenizer

#: What stands for a token that is taken away, by the name that vocabularies give it; the padding token otherwise.
_MASKS = ("[MASK]", "<mask>", "[UNK]", "<unk>")


@dataclass(frozen=True)
class Line:
    """One text: what it says, its class, the second text of a pair, and the parts of it that are marked."""

    number: int
    text: str
    label: int = -1
    pair: str | None = None
    marked: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Sentences:
    """Texts as samples; see `Data`. They are split into tokens when they come up."""

    model: ModelInputs
    tokenizer: TextTokenizer
    inputs: TextInputs
    lines: Sequence[Line]
    others: Mapping[str, Array]
    class_names: tuple[str, ...] | None = None
    shared: Mapping[str, Array] = field(default_factory=dict)

    @property
    def input_name(self) -> str:
        return self.inputs.ids[0]

    @property
    def layout(self) -> Layout:
        known = (self.tokenizer.known(name) for name in _MASKS)
        mask = next((token for token in known if token is not None), self.tokenizer.pad_id)
        return Layout(is_token=True, mask_token=mask)

    @property
    def has_labels(self) -> bool:
        return any(line.label >= 0 for line in self.lines)

    @property
    def has_marks(self) -> bool:
        return any(line.marked for line in self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def sample(self, place: int) -> Sample:
        line = self.lines[place]
        encoded = self.tokenizer.encode(line.text, line.pair)
        feeds, _ = fill(self.inputs, self.model, [encoded], self.tokenizer.pad_id)
        arrays = {name: array[0] for name, array in feeds.items()}
        ids = arrays[self.input_name]
        # Special tokens and padding are no part of the text: they are never taken away.
        units, marked = np.full(ids.shape, -1, np.int64), np.zeros(ids.shape, bool)
        own = [place for place, piece in enumerate(encoded.pieces) if not piece.is_special]
        units[own] = np.arange(len(own))
        for place in own:
            piece = encoded.pieces[place]
            marked[place] = piece.sequence == 0 and any(s < piece.end and piece.start < e for s, e in line.marked)
        words = tuple(piece.text for piece in encoded.pieces)
        return Sample(
            f"line {line.number}",
            {**arrays, **self.others},
            line.label,
            marked if line.marked else None,
            units,
            words=words,
        )


def open_sentences(
    model: ModelInputs,
    path: Path,
    tokenizer: Path | None,
    feed: Mapping[str, str],
    *,
    labels: tuple[str, ...] | None = None,
    others: Mapping[str, Array] | None = None,
) -> Sentences:
    """Texts from a file with a JSON object on each line.

    Its keys: `text`; `label`, an index or a name in `labels`; `pair`, the second text of a model of two; `marked`, a
    list of [start, end] in characters of the text, the end left out.

    Raises:
        UsageError: no tokenizer, lines of another form, or a model that texts do not fit.
    """
    if tokenizer is None:
        raise UsageError(f"{path}: texts need the model's tokenizer: --tokenizer tokenizer.json")
    others = others or {}
    inputs = find_text_inputs(model, feed, tuple(others))
    if len(inputs.groups) != 1:
        raise UsageError("the model takes two texts in inputs of their own; evaluation explains one input")
    lines = _lines(path, labels)
    return Sentences(model, TextTokenizer(tokenizer), inputs, lines, others, labels)


def _lines(path: Path, labels: tuple[str, ...] | None) -> list[Line]:
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the texts cannot be read: {error}") from None
    found = [_line(f"{path} line {n}", n, text, labels) for n, text in enumerate(texts, 1) if text.strip()]
    if not found:
        raise UsageError(f"{path}: there is no text in it")
    return found


def _line(where: str, number: int, text: str, labels: tuple[str, ...] | None) -> Line:
    try:
        entry: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or not entry["text"].strip():
        raise UsageError(f'{where}: a line is an object such as {{"text": "...", "label": 1}}')
    pair, spans = entry.get("pair"), entry.get("marked", [])
    if pair is not None and not isinstance(pair, str):
        raise UsageError(f"{where}: pair is not a text")
    try:
        marked = tuple((int(start), int(end)) for start, end in spans)
    except (TypeError, ValueError):
        raise UsageError(f"{where}: marked is a list of [start, end], counted in characters") from None
    label = entry.get("label")
    return Line(number, entry["text"], -1 if label is None else class_index(str(label), labels, where), pair, marked)
