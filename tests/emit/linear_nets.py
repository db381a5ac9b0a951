"""Linear networks, for which the relevance of every output element is known in closed form: x times its weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from tests.graph.written import Array, network, normal


@dataclass(frozen=True)
class LinearNet:
    """A network y = W x + b with a batch.

    Attributes:
        y: the output for `x`.
        shares: [batch, *output element, *input element], what each input element contributes to each output element.
    """

    model: onnx.ModelProto
    x: Array
    y: Array
    shares: Array

    @property
    def output_rank(self) -> int:
        return self.y.ndim

    def map_of(self, sample: int, element: tuple[int, ...]) -> Array:
        """Relevance for one output element of one sample."""
        return np.asarray(self.shares[(sample, *element)])

    def maps_of(self, elements: list[tuple[int, ...]]) -> Array:
        """Relevance for one output element per sample."""
        return np.stack([self.map_of(n, e) for n, e in enumerate(elements)])

    def seeded(self, seed: Array) -> Array:
        """Relevance of sum(seed * y), per sample."""
        axes = self.output_rank - 1
        return np.stack([np.tensordot(s, c, axes) for s, c in zip(seed, self.shares, strict=True)])


def dense(batch: str = "N") -> LinearNet:
    x, w, b = normal(3, 4, seed=6), normal(4, 5, seed=2), normal(5, seed=3)
    text = f"g (float[{batch},4] x) => (float[{batch},5] y) {{ y = Gemm(x, w, b) }}"
    return LinearNet(network(text, w=w, b=b), x, x @ w + b, np.einsum("ni,ic->nci", x, w))


def positions() -> LinearNet:
    """[N,T,5] from [N,T,3], both sizes open."""
    x, w, b = normal(3, 4, 3, seed=1), normal(3, 5, seed=2), normal(5, seed=3)
    text = "g (float[N,T,3] x) => (float[N,T,5] y) { z = MatMul(x, w) y = Add(z, b) }"
    shares = np.einsum("nui,ic,tu->ntcui", x, w, np.eye(4))
    return LinearNet(network(text, w=w, b=b), x, x @ w + b, shares)


def pixels() -> LinearNet:
    """[N,3,4,2] from [N,2,4,2]."""
    x, w, b = normal(3, 2, 4, 2, seed=1), normal(3, 2, 1, 1, seed=2), normal(3, seed=3)
    text = "g (float[N,2,4,2] x) => (float[N,3,4,2] y) { y = Conv(x, w, b) }"
    k = w[:, :, 0, 0]
    y = np.einsum("nihw,ki->nkhw", x, k) + b[:, None, None]
    shares = np.einsum("nipq,ki,hp,wq->nkhwipq", x, k, np.eye(4), np.eye(2))
    return LinearNet(network(text, w=w, b=b), x, y, shares)


NETS = {"rank 2": dense, "rank 3": positions, "rank 4": pixels}
