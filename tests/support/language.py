"""A language model of few numbers: ids [batch, sequence] to logits [batch, sequence, 9], one attention head."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

VOCABULARY, WIDTH = 9, 4
_RNG = np.random.default_rng(0)
WEIGHTS = {
    "words": _RNG.normal(size=(VOCABULARY, WIDTH)),
    "w": _RNG.normal(size=(WIDTH, WIDTH)),
    "head": _RNG.normal(size=(WIDTH, VOCABULARY)),
    "bias": _RNG.normal(size=VOCABULARY),
    "half": np.array(0.5),
}
#: Each position looks at every other, so that all of them matter for the logits of each.
BODY = """
  h = MatMul(e, w) k = Transpose <perm = [0, 2, 1]> (e) s = MatMul(h, k) p = Softmax(s) c = MatMul(p, e) t = Tanh(c)
"""
HEAD = "z = MatMul(t, head) biased = Add(z, bias) logits = Mul(biased, half)"


def written(nodes: str, inputs: str = "int64[N,S] ids", output: str = "float[N,S,9] logits") -> onnx.ModelProto:
    """A model of nodes that may read the weights."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({output}) {{ {nodes} }}')
    for name, value in WEIGHTS.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


def language_model(sequence: str | int = "S") -> onnx.ModelProto:
    """With a sequence of any length, or of a fixed one."""
    return written(f"e = Gather(words, ids) {BODY} {HEAD}", f"int64[N,{sequence}] ids", f"float[N,{sequence},9] logits")
