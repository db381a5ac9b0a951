"""A real classifier of texts, benign or prompt injection: its relevance stands on the words that the decision rests on.

The sentences are in prompts.toml. The model and its tokenizer are fetched by tools/fetch.py into models/cache; without
them this is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import onnxlrp
from onnxlrp.explain.text_tokens import Encoded, TextTokenizer, WordRelevance, word_relevance
from tests.breadth.test_models import fetched

SENTENCES: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "prompts.toml").read_text())
#: The class of each kind of sentence.
CLASSES = {"ordinary": 0, "injected": 1}
#: How many random choices of three words the three most relevant ones are compared with.
DRAWS = 10
RULES = ("epsilon", "default", "attnlrp", "cp-lrp")


@dataclass(frozen=True)
class Classifier:
    """The model by one rule table, and as it is for scores alone."""

    explainer: onnxlrp.Explainer
    plain: onnxruntime.InferenceSession
    tokenizer: TextTokenizer

    def words(self, text: str) -> tuple[int, list[WordRelevance]]:
        """The predicted class, and the words of the text with their relevance for it; special tokens left out."""
        encoded = self.tokenizer.encode(text)
        found = self.explainer.explain(feeds(encoded))
        words = word_relevance(encoded.pieces, found.relevance["input_ids"][0], (text,))
        return int(found.outputs["logits"][0].argmax()), [word for word in words if not word.special]

    def margin(self, words: Iterable[str], chosen: int) -> float:
        """By how much the logit of a class exceeds that of the other."""
        logits = self.plain.run(["logits"], feeds(self.tokenizer.encode(" ".join(words))))[0][0]
        return float(logits[chosen] - logits[1 - chosen])


def feeds(encoded: Encoded) -> dict[str, np.ndarray]:
    ids = np.array([encoded.ids])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.fixture(scope="module", params=RULES)
def classifier(request: pytest.FixtureRequest) -> Classifier:
    path = fetched("mini-semantic")
    explainer = onnxlrp.Explainer(path, rules=request.param)
    return Classifier(explainer, onnxruntime.InferenceSession(path), TextTokenizer(fetched("mini-semantic-tokenizer")))


def is_injected(sentence: str, words: Sequence[WordRelevance]) -> np.ndarray:
    """Which words stand in the brackets of a sentence."""
    text, begin, end = plain(sentence), sentence.index("["), sentence.index("]") - 1
    place, inside = 0, []
    for word in words:
        place = text.index(word.text, place)
        inside.append(begin <= place < end)
        place += len(word.text)
    return np.array(inside)


def plain(sentence: str) -> str:
    return sentence.replace("[", "").replace("]", "")


def test_there_are_forty_sentences_of_both_kinds() -> None:
    assert min(len(lines) for lines in SENTENCES.values()) >= 20
    assert sum(len(lines) for lines in SENTENCES.values()) >= 40


def test_the_injected_words_carry_most_of_the_relevance(classifier: Classifier) -> None:
    """In each sentence more than half of what speaks for an injection; on average much more than their share."""
    shares, counts = [], []
    for sentence in SENTENCES["injected"]:
        chosen, words = classifier.words(plain(sentence))
        assert chosen == CLASSES["injected"], sentence
        inside = is_injected(sentence, words)
        positive = np.maximum([word.relevance for word in words], 0)
        shares.append(positive[inside].sum() / positive.sum())
        counts.append(inside.mean())
    assert min(shares) > 0.5
    assert np.mean(shares) > 0.8 > 0.5 > np.mean(counts)


@pytest.mark.parametrize("kind", CLASSES)
def test_without_the_three_most_relevant_words_the_score_falls_more_than_without_three_others(
    classifier: Classifier, kind: str
) -> None:
    rng = np.random.default_rng(0)
    won, flipped, drops, random_drops = 0, 0, [], []
    for sentence in SENTENCES[kind]:
        chosen, words = classifier.words(plain(sentence))
        assert chosen == CLASSES[kind], sentence
        texts = [word.text for word in words]
        whole = classifier.margin(texts, chosen)
        best = np.argsort([-word.relevance for word in words])[:3]
        without = classifier.margin(np.delete(texts, best), chosen)
        others = [rng.choice(len(texts), 3, replace=False) for _ in range(DRAWS)]
        fall = whole - float(np.mean([classifier.margin(np.delete(texts, draw), chosen) for draw in others]))
        drops.append(whole - without)
        random_drops.append(fall)
        won += whole - without > fall
        flipped += without < 0
    # Three words at random are now and then the most relevant ones.
    assert won >= len(SENTENCES[kind]) - 1
    assert flipped >= len(SENTENCES[kind]) // 5
    assert np.mean(drops) > 3 * np.mean(random_drops)
