"""Which pairs of parts make two things similar: BiLRP (Eberle et al. 2020).

The cosine is a sum over the numbers of the embeddings, u_m v_m / (|u| |v|). A pass through the model for each number m
shares u_m among the parts of one and v_m among those of the other; the outer products of both, added up over m and
divided by the norms, share the cosine among the pairs. Parts are the tokens of a text and the cells of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxlrp.explain.session import Explainer

Array = np.ndarray

#: Passes that are run at once, where the model takes several samples.
_AT_ONCE = 16


@dataclass(frozen=True)
class Way:
    """How the embedding of one of them is explained number by number.

    Attributes:
        seeded: the model with a seed on its output.
        feeds: of one sample, in a batch as large as the model asks for.
        input: the input whose parts get the relevance.
        parts: (relevance of that input [passes, ...]) -> that of its parts [passes, parts].
        seed: (direction) -> a seed shaped like the output that picks the first sample's embedding along `direction`.
    """

    seeded: Explainer
    feeds: Mapping[str, Array]
    input: str
    parts: Callable[[Array], Array]
    seed: Callable[[Array], Array]

    def relevance(self, numbers: Sequence[int], width: int) -> Array:
        """[numbers, parts]: each of the embedding's numbers shared among the parts."""
        shape = self.seeded.input_shapes[self.input] or (None,)
        step = 1 if isinstance(shape[0], int) else _AT_ONCE
        rows = []
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            seeds = np.concatenate([self.seed(np.eye(1, width, m)[0]) for m in part])
            feeds = {name: _repeated(value, len(part)) for name, value in self.feeds.items()}
            found = self.seeded.explain(feeds, seed=seeds)
            rows.append(self.parts(found.relevance[self.input][: len(part)]))
        return np.concatenate(rows).astype(np.float64)


def _repeated(value: Array, times: int) -> Array:
    return np.repeat(value, times, axis=0) if value.ndim else value


def pairs_of_parts(ways: tuple[Way, Way], vectors: Sequence[Array], count: int) -> Array:
    """[parts of the first, parts of the second]: what each pair adds to the cosine.

    Args:
        vectors: both embeddings.
        count: how many of their numbers are explained, those with the largest products first; 0 for all.
    """
    products = vectors[0] * vectors[1]
    largest = np.argsort(-np.abs(products), kind="stable")[: count or None]
    numbers = sorted(int(m) for m in largest)
    first, second = (way.relevance(numbers, products.size) for way in ways)
    norms = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
    return np.asarray(np.einsum("mi,mj->ij", first, second) / norms)
