"""Why two texts are similar: relevance of the cosine between their embeddings.

The cosine u v / (|u| |v|) is linear in u while the norms stand still, which is the usual rule for normalisations. So
one pass through the model of each text, seeded with the embedding of the other over both norms, shares the cosine among
its tokens. `text_pairs` goes on to pairs of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxlrp.check import metadata
from onnxlrp.errors import UsageError
from onnxlrp.explain.answer import Reading, Subject
from onnxlrp.explain.feeds import Value, feeds_for
from onnxlrp.explain.job import Job
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.session import Asked, Explainer, Model, open_seeded
from onnxlrp.explain.text_inputs import find_text_inputs
from onnxlrp.explain.text_model import TextModel
from onnxlrp.explain.text_pairs import Way, pairs_of_tokens
from onnxlrp.explain.text_results import Found, Pass
from onnxlrp.explain.text_tokens import Encoded, TextTokenizer
from onnxlrp.read.load import load

POOLINGS = ("mean", "first", "last", "none")


@dataclass(frozen=True)
class Tower:
    """The way of one text to its embedding: a model that says what it is, and one that takes a seed on it."""

    scout: TextModel
    seeded: Explainer


@dataclass(frozen=True)
class Towers:
    """Both ways; one and the same for a model that embeds one text at a time."""

    first: Tower
    second: Tower
    pooling: str | None
    numbers: int | None = None
    """How many numbers of the embeddings are explained for pairs of tokens: 0 for all, None for no pairs."""

    @property
    def job(self) -> Job:
        return replace(self.first.scout.job, part="cosine")

    def explain(self, text: str, other: str) -> Found:
        """The cosine shared among the tokens of both texts: one map for each."""
        plain, first = (text, other), self.first.scout
        together = len(first.inputs.groups) > 1
        encoded = [first.tokenizer.encode(one) for one in plain]
        ways: list[tuple[Tower, tuple[Encoded, ...]]] = []
        for tower, own in zip((self.first, self.second), encoded, strict=True):
            ways.append((tower, (encoded[0], encoded[1]) if together else (own,)))
        raw, notes = zip(*(_output(tower, texts) for tower, texts in ways), strict=True)
        pools = [_weights(self.pooling, array, len(own.ids)) for array, own in zip(raw, encoded, strict=True)]
        vectors = [_pooled(array, weights) for array, weights in zip(raw, pools, strict=True)]
        if vectors[0].shape != vectors[1].shape:
            raise UsageError(f"embeddings of {vectors[0].size} and {vectors[1].size} numbers have no cosine")
        norm = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
        if not norm:
            raise UsageError("an embedding is zero, so that there is no cosine")
        cosine = float(vectors[0] @ vectors[1]) / norm
        passes: list[Pass] = []
        for k, (tower, texts) in enumerate(ways):
            seed = _seed(raw[k], pools[k], vectors[1 - k] / norm)
            title = Subject(f"cosine to {plain[1 - k]!r}", f"cosine {cosine:.4f}")
            if together:
                passes.append(_pass(tower, texts, seed, title, k, plain))
            else:
                passes.append(_pass(tower, texts, seed, title, None, (plain[k],)))
        pairs = None
        if self.numbers is not None:
            first_way, second_way = (
                _way(tower, texts, raw[k], pools[k], k if together else 0, len(encoded[k].ids))
                for k, (tower, texts) in enumerate(ways)
            )
            pairs = pairs_of_tokens((first_way, second_way), vectors, self.numbers)
        arrays = {"cosine": np.asarray(cosine), "embeddings": np.stack(vectors).astype(np.float32)}
        said = tuple(note for found in notes for note in found)
        return Found(text, other, tuple(passes), arrays=arrays, notes=said, pairs=pairs)


def open_towers(
    model: Model,
    asked: Asked,
    top: int,
    tokenizer: TextTokenizer,
    feed: Mapping[str, str],
    data: Mapping[str, Value],
    pooling: str | None,
    numbers: int | None = None,
) -> Towers:
    """A model with one embedding for both texts, or with two outputs, each the embedding of the text of its own inputs.

    Raises UsageError for a converted model and for more outputs than two.
    """
    if metadata.read(load(model).model) is not None:
        raise UsageError("the cosine needs the original model, not one that was converted already")
    if asked.get("axis") is not None:
        raise UsageError("what is explained is a cosine: leave the axis out")
    outputs: Sequence[str | None] = asked.get("outputs") or (None,)
    if len(outputs) > 2:
        raise UsageError(f"a cosine is between two embeddings; {len(outputs)} outputs were named")
    towers = []
    for output in outputs:
        own = asked.copy()
        own["outputs"] = () if output is None else (output,)
        scout, seeded, job = open_seeded(model, own, None, top)
        others = {name: given.array for name, given in feeds_for(scout, data, ImageOptions()).items()}
        inputs = find_text_inputs(scout, feed, tuple(others))
        towers.append(Tower(TextModel(scout, job, tokenizer, inputs, others), seeded))
    groups = len(towers[0].scout.inputs.groups)
    if groups != len(towers):
        raise UsageError(
            f"the model takes {groups} texts and {len(towers)} embeddings were named: with two inputs of token ids "
            "name both embeddings, --output A --output B, with a single one just one"
        )
    return Towers(towers[0], towers[-1], pooling, numbers)


def _output(tower: Tower, texts: tuple[Encoded, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    found, notes = tower.scout.run(texts)
    if found.explained_output is None or found.explained_output.ndim not in (2, 3):
        shape = None if found.explained_output is None else list(found.explained_output.shape)
        raise UsageError(
            f"an embedding is [batch, width], or [batch, sequence, width] to be pooled; this one is {shape}"
        )
    return found.explained_output, notes


def _weights(pooling: str | None, output: np.ndarray, count: int) -> np.ndarray | None:
    """How much each position counts, [sequence]; None for an output that is the embedding itself."""
    chosen = pooling or ("mean" if output.ndim == 3 else "none")
    if (chosen == "none") != (output.ndim == 2):
        raise UsageError(f"pooling {chosen} does not go with an output of {output.ndim} axes")
    if chosen == "none":
        return None
    weights = np.zeros(output.shape[1])
    if chosen == "mean":
        weights[:count] = 1.0 / count
    else:
        weights[0 if chosen == "first" else count - 1] = 1.0
    return weights


def _pooled(output: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    first = output[0].astype(np.float64)
    result: np.ndarray = first if weights is None else weights @ first
    return result


def _seed(output: np.ndarray, weights: np.ndarray | None, direction: np.ndarray) -> np.ndarray:
    """The other embedding over the norms, put on the elements that make the embedding of the first sample."""
    seed = np.zeros(output.shape)
    seed[0] = direction if weights is None else weights[:, None] * direction
    return seed


def _way(
    tower: Tower, texts: tuple[Encoded, ...], output: np.ndarray, weights: np.ndarray | None, group: int, count: int
) -> Way:
    feeds, _ = tower.scout.feeds(texts)
    ids = tower.scout.inputs.ids[group]
    return Way(tower.seeded, feeds, ids, count, lambda direction: _seed(output, weights, direction))


def _pass(
    tower: Tower,
    texts: tuple[Encoded, ...],
    seed: np.ndarray,
    title: Subject,
    sequence: int | None,
    plain: tuple[str, ...],
) -> Pass:
    feeds, _ = tower.scout.feeds(texts)
    found = tower.seeded.explain(feeds, seed=seed)
    (result,) = tower.scout.passes(found, texts, Reading((), "", (title,)), plain)
    kept = [k for k, piece in enumerate(result.pieces) if sequence is None or piece.sequence == sequence]
    pieces = tuple(result.pieces[k] for k in kept)
    return replace(result, pieces=pieces, relevance=result.relevance[kept])
