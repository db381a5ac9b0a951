"""Embeddings: how an output becomes one, what a seed on that output picks of it, and embeddings kept in files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.feeds import read_array_file
from onnxlrp.explain.layout import Layout

Array = np.ndarray

POOLINGS = ("mean", "first", "last", "none")
#: What an .npz of several arrays may call the embedding, the first that is there; `explained_output` is what `explain`
#: writes.
_KEYS = ("embedding", "explained_output")


@dataclass(frozen=True)
class Embedding:
    """What something is turned into by a model, [width], float64; `name` says of what, in words."""

    name: str
    vector: Array

    def cosine(self, others: Array) -> Array:
        """The cosines to vectors [samples, width]. Raises UsageError where there are none."""
        norms = self.norms(others)
        result: Array = others @ self.vector / norms
        return result

    def directions(self, others: Array) -> Array:
        """[samples, width]: what the cosine to each of the vectors is linear in while the norms stand still."""
        result: Array = self.vector / self.norms(others)[:, None]
        return result

    def norms(self, others: Array) -> Array:
        """The products of the norms, [samples]. Raises UsageError for other widths and where there is no cosine."""
        if others.shape[1] != self.vector.size:
            raise UsageError(f"embeddings of {others.shape[1]} and {self.vector.size} numbers have no cosine")
        products: Array = np.linalg.norm(others, axis=1) * float(np.linalg.norm(self.vector))
        if not products.all():
            raise UsageError("an embedding is zero, so that there is no cosine")
        return products


@dataclass(frozen=True)
class Pool:
    """How an output [batch, ...] becomes embeddings [batch, width]: a weighted sum over its positions.

    Attributes:
        axis: that of the width.
        weights: how much each position counts, [positions]; those of a map row by row.
    """

    axis: int
    weights: Array

    def vectors(self, output: Array) -> Array:
        """[batch, width], float64."""
        rows = np.moveaxis(output, self.axis, -1).astype(np.float64)
        result: Array = self.weights @ rows.reshape(len(rows), -1, rows.shape[-1])
        return result

    def seeds(self, shape: Sequence[int], directions: Array) -> Array:
        """A seed in the shape of the output that picks each sample's embedding along its direction [samples, width].

        Samples beyond these stay 0.
        """
        seed = np.zeros(shape)
        rows = np.moveaxis(seed, self.axis, -1)
        picked = self.weights[:, None] * directions[:, None, :]
        rows[: len(directions)] = picked.reshape(len(directions), *rows.shape[1:])
        return seed


def pool_for(pooling: str | None, shape: Sequence[int] | None, count: int | None = None, axis: int = 1) -> Pool:
    """How an output of that shape is pooled; without a wish vectors of positions are averaged.

    Args:
        shape: of the output; None where the model does not return it.
        count: how many positions of a sequence there are, where the rest is padding.
        axis: that of the width, of an output that is a map of four axes.

    Raises UsageError for shapes that are no embedding and a pooling that does not go with the shape.
    """
    if shape is None or len(shape) not in (2, 3, 4):
        raise UsageError(
            "an embedding is [batch, width], or [batch, positions, width] or a map [batch, width, height, width] to be "
            f"pooled; this one is {None if shape is None else list(shape)}"
        )
    chosen = pooling or ("none" if len(shape) == 2 else "mean")
    if (chosen == "none") != (len(shape) == 2) or (len(shape) == 4 and chosen != "mean"):
        raise UsageError(f"pooling {chosen} does not go with an output of {len(shape)} axes")
    if len(shape) == 2:
        return Pool(1, np.ones(1))
    axis = 2 if len(shape) == 3 else axis
    positions = math.prod(shape[1:]) // shape[axis]
    count = positions if count is None else count
    weights = np.zeros(positions)
    if chosen == "mean":
        weights[:count] = 1.0 / count
    else:
        weights[0 if chosen == "first" else count - 1] = 1.0
    return Pool(axis, weights)


def width_axis(layout: Layout) -> int:
    """The axis of the width, of a map whose model takes images in that layout."""
    return 3 if layout == "nhwc" else 1


def read_embedding(path: Path) -> Embedding:
    """The embedding in an .npy file, or in an .npz file: its only array, or `embedding`, or `explained_output`.

    Raises UsageError for files that cannot be read or hold no vector.
    """
    found = read_array_file(path)
    if isinstance(found, dict):
        key = next((key for key in _KEYS if key in found), None) if len(found) != 1 else next(iter(found))
        if key is None:
            raise UsageError(f"{path}: holds {', '.join(found)}; an embedding is called {' or '.join(_KEYS)}")
        found = found[key]
    vector = np.squeeze(found)
    if vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise UsageError(f"{path}: an embedding is one vector of numbers; this is {found.dtype} {list(found.shape)}")
    return Embedding(path.name, vector.astype(np.float64))
