"""Small models written as text, with their weights as arrays; the shared vocabulary of the tests of the core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from onnxlrp.graph.view import Graph
from onnxlrp.read.load import load
from onnxlrp.read.prepare import Prepared, prepare
from onnxlrp.understand.facts import Facts

Array = np.ndarray[Any, Any]


def network(text: str, opset: int = 21, **weights: Any) -> onnx.ModelProto:
    """`g (inputs) => (outputs) { nodes }` as a model; floating-point weights become float32.

    A node without a name is called after its operator and its position, as in messages.
    """
    imports = f'["" : {opset}, "com.example" : 1]' if "com.example" in text else f'["" : {opset}]'
    model = parser.parse_model(f"<ir_version: 10, opset_import: {imports}> {text}")
    for name, value in weights.items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def prepared(model: onnx.ModelProto) -> Prepared:
    return prepare(load(model))


def view(model: onnx.ModelProto) -> Graph:
    ready = prepared(model)
    return Graph(ready.model, ready.inferred)


def facts(model: onnx.ModelProto, folders: tuple[Path, ...] = ()) -> Facts:
    return Facts(view(model), folders)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32 values."""
    return rng(seed).standard_normal(shape).astype(np.float32)


#: Two convolutions, a batch normalisation and a pooling before a dense layer; an image in, six logits and their
#: softmax out. The batch is open.
def classifier() -> onnx.ModelProto:
    return network(
        """g (float[N,2,8,8] image) => (float[N,6] probabilities)
        {
          a = Conv<pads = [1,1,1,1]>(image, w1, b1)
          n = BatchNormalization(a, scale, shift, mean, variance)
          r = Relu(n)
          p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r)
          c = Conv<pads = [1,1,1,1]>(p, w2)
          s = Relu(c)
          q = GlobalAveragePool(s)
          f = Flatten(q)
          logits = Gemm<transB = 1>(f, w3, b3)
          probabilities = Softmax(logits)
        }""",
        w1=normal(4, 2, 3, 3, seed=1),
        b1=normal(4, seed=2),
        scale=normal(4, seed=3),
        shift=normal(4, seed=4),
        mean=normal(4, seed=5),
        variance=np.abs(normal(4, seed=6)) + 0.5,
        w2=normal(5, 4, 3, 3, seed=7),
        w3=normal(6, 5, seed=8),
        b3=normal(6, seed=9),
    )
