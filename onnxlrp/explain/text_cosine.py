"""Why two texts are similar: relevance of the cosine between their embeddings.

The cosine u v / (|u| |v|) is linear in u while the norms stand still, which is the usual rule for normalisations. So
one pass through the model of each text, seeded with the embedding of the other over both norms, shares the cosine among
its tokens. `pairs` goes on to pairs of tokens. Of a text and an embedding that is there already, one pass does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.answer import Reading, Subject
from onnxlrp.explain.embedding import Embedding, Pool, pool_for
from onnxlrp.explain.feeds import Value
from onnxlrp.explain.job import Job
from onnxlrp.explain.pairs import Way, pairs_of_parts
from onnxlrp.explain.session import Asked, Explainer, Model, open_seeded
from onnxlrp.explain.text_model import TextModel
from onnxlrp.explain.text_results import Found, Pass
from onnxlrp.explain.text_tokens import Encoded, TextTokenizer


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
        pools = [pool_for(self.pooling, array.shape, len(own.ids)) for array, own in zip(raw, encoded, strict=True)]
        vectors = [pool.vectors(array)[0] for pool, array in zip(pools, raw, strict=True)]
        others = [Embedding(repr(plain[1 - k]), vectors[1 - k]) for k in (0, 1)]
        cosine = float(others[0].cosine(vectors[0][None])[0])
        passes: list[Pass] = []
        for k, (tower, texts) in enumerate(ways):
            seed = pools[k].seeds(raw[k].shape, others[k].directions(vectors[k][None]))
            title = _title(others[k], cosine)
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
            pairs = pairs_of_parts((first_way, second_way), vectors, self.numbers)
        arrays = {"cosine": np.asarray(cosine), "embeddings": np.stack(vectors).astype(np.float32)}
        said = tuple(note for found in notes for note in found)
        return Found(text, other, tuple(passes), arrays=arrays, notes=said, pairs=pairs)


@dataclass(frozen=True)
class Lone:
    """The way of a text to its embedding, and another embedding that is there already."""

    tower: Tower
    other: Embedding
    pooling: str | None

    @property
    def job(self) -> Job:
        return replace(self.tower.scout.job, part="cosine")

    def explain(self, text: str) -> Found:
        """The cosine shared among the tokens of the text."""
        encoded = self.tower.scout.tokenizer.encode(text)
        raw, notes = _output(self.tower, (encoded,))
        pool = pool_for(self.pooling, raw.shape, len(encoded.ids))
        vector = pool.vectors(raw)[:1]
        cosine = float(self.other.cosine(vector)[0])
        seed = pool.seeds(raw.shape, self.other.directions(vector))
        passes = (_pass(self.tower, (encoded,), seed, _title(self.other, cosine), None, (text,)),)
        both = np.concatenate([vector, self.other.vector[None]]).astype(np.float32)
        arrays = {"cosine": np.asarray(cosine), "embeddings": both}
        return Found(text, None, passes, arrays=arrays, notes=notes)


@dataclass(frozen=True)
class Embedder:
    """A model of texts that makes embeddings, and how texts go into it; see `TextOptions`."""

    model: Model
    asked: Asked
    top: int
    tokenizer: TextTokenizer
    feed: Mapping[str, str]
    data: Mapping[str, Value]

    def towers(self, pooling: str | None, numbers: int | None = None) -> Towers:
        """One embedding for both texts, or two outputs, each the embedding of the text of its own inputs.

        Raises UsageError for a converted model and for more outputs than two.
        """
        outputs = self.asked.get("outputs") or ()
        if len(outputs) > 2:
            raise UsageError(f"a cosine is between two embeddings; {len(outputs)} outputs were named")
        towers = [self._tower((output,)) for output in outputs] or [self._tower()]
        groups = len(towers[0].scout.inputs.groups)
        if groups != len(towers):
            raise UsageError(
                f"the model takes {groups} texts and {len(towers)} embeddings were named: with two inputs of token ids "
                "name both embeddings, --output A --output B, with a single one just one"
            )
        return Towers(towers[0], towers[-1], pooling, numbers)

    def lone(self, pooling: str | None, other: Embedding) -> Lone:
        """One embedding, and what the text is compared with.

        Raises UsageError for a converted model and one that takes more texts.
        """
        tower = self._tower(self.asked.get("outputs", ()))
        if len(tower.scout.inputs.groups) != 1:
            raise UsageError("a model that takes two texts has no embedding of one to compare with something else")
        return Lone(tower, other, pooling)

    def _tower(self, outputs: Sequence[str] = ()) -> Tower:
        asked: Asked = {**self.asked, "outputs": outputs}
        scout, seeded, job = open_seeded(self.model, asked, None, self.top, "the cosine")
        return Tower(TextModel.of(scout, job, self.tokenizer, self.feed, self.data), seeded)


def _output(tower: Tower, texts: tuple[Encoded, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    found, notes = tower.scout.run(texts)
    if found.explained_output is None:
        raise UsageError("the model does not return the embedding; name an output of it")
    return found.explained_output, notes


def _title(other: Embedding, cosine: float) -> Subject:
    return Subject(f"cosine to {other.name}", f"cosine {cosine:.4f}")


def _way(tower: Tower, texts: tuple[Encoded, ...], output: np.ndarray, pool: Pool, group: int, count: int) -> Way:
    feeds, _ = tower.scout.feeds(texts)
    ids = tower.scout.inputs.ids[group]
    return Way(
        tower.seeded,
        feeds,
        ids,
        lambda relevance: relevance[:, :count],
        lambda direction: pool.seeds(output.shape, direction[None]),
    )


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
