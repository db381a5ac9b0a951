"""Linear models, whose relevance is input times weight and so known without any of the code under test."""

from __future__ import annotations

import numpy as np
import onnx

from tests.graph.written import network, normal

#: With it relevance is exactly input times weight.
EXACT = "gradient-x-input"

#: Weights of `rows_model`: four features, three classes.
WEIGHTS = normal(4, 3, seed=5)


def rows_model() -> onnx.ModelProto:
    """[N,4] features to three classes."""
    return network("g (float[N,4] features) => (float[N,3] y) { y = MatMul(features, w) }", w=WEIGHTS)


def columns_model() -> onnx.ModelProto:
    """The same with an input for each column: two of floats, one of whole numbers, and a string that is passed by."""
    text = """g (float[N,1] age, float[N,1] height_cm, int64[N,1] rooms, string[N,1] town)
    => (float[N,3] y, string[N,1] same) {
      more = Cast<to = 1>(rooms)
      twice = Add(more, more)
      x = Concat<axis = 1>(age, height_cm, more, twice)
      y = MatMul(x, w)
      same = Identity(town)
    }"""
    return network(text, w=WEIGHTS)


def samples_model(length: int, classes: int = 2) -> tuple[onnx.ModelProto, np.ndarray]:
    """[N,length] samples to classes, and the weights [length, classes]."""
    w = normal(length, classes, seed=2)
    return network(f"g (float[N,{length}] samples) => (float[N,{classes}] y) {{ y = MatMul(samples, w) }}", w=w), w


def best(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Relevance of each row's largest class: x [N, F], w [F, classes]."""
    return x * w[:, (x @ w).argmax(axis=1)].T
