"""Support vector machines of ai.onnx.ml, taken apart into their kernel and a dense layer.

A linear kernel is one dense layer, whose weights are the support vectors added up. The other kernels are written out in
operators of the standard, each of which gets its own rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxlrp.emit.builder import Array, Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.classical import ML, as_floats, numbers, transformed, two_classes
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

_TREATMENT = "taken apart: a dense layer of its kernel; a linear kernel is one dense layer"


def _scores(at: Situation, b: Builder, coefficients: Array, rho: Sequence[float], supports: int) -> str:
    """coefficients [scores, support vectors] times the kernel, plus rho; without vectors they are the weights of x."""
    node, x = at.node, as_floats(b, at.node.inputs[0])
    shift = numbers(b, rho)
    kind = node.attribute("kernel_type", "LINEAR")
    if not supports:
        return b.op("Gemm", x, numbers(b, coefficients), shift, transB=1)
    vectors = np.asarray(node.attribute("support_vectors"), np.float32).reshape(supports, -1)
    if kind == "LINEAR":
        return b.op("Gemm", x, numbers(b, coefficients @ vectors), shift, transB=1)
    gamma, constant, degree = (float(v) for v in node.attribute("kernel_params"))
    if kind == "RBF":
        apart = b.sub(b.op("Unsqueeze", x, b.integers([1])), numbers(b, vectors))
        squares = b.op("ReduceSum", b.op("Pow", apart, numbers(b, 2.0)), b.integers([2]), keepdims=0)
        values = b.op("Exp", b.scale(squares, -gamma))
    else:
        inner = b.op("Gemm", x, numbers(b, gamma * vectors), numbers(b, [constant]), transB=1)
        values = b.op("Tanh", inner) if kind == "SIGMOID" else b.op("Pow", inner, numbers(b, degree))
    return b.op("Gemm", values, numbers(b, coefficients), shift, transB=1)


@lowers("SVMRegressor", domain=ML, treatment=_TREATMENT)
def svm_regressor(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    if node.attribute("one_class", 0):
        return Refusal("it answers inside or outside (one_class), not with a number", "explain another output")
    coefficients = np.asarray(node.attribute("coefficients"), np.float32)[None]
    score = _scores(at, b, coefficients, node.attribute("rho")[:1], node.attribute("n_supports", 0))
    found = transformed(b, score, node.attribute("post_transform", "NONE"))
    return found if isinstance(found, Refusal) else (found,)


@lowers("SVMClassifier", domain=ML, treatment=f"{_TREATMENT}; fitted probabilities are refused")
def svm_classifier(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """Its scores are the decisions between all pairs of classes, or -s and s for two classes."""
    node = at.node
    counts = node.attribute("vectors_per_class") or ()
    if node.attribute("prob_a"):
        return Refusal(
            "its scores are probabilities fitted to decisions between pairs of classes",
            "export the model without probabilities",
        )
    if not sum(counts):
        return Refusal("it has no support vectors", "export it as a LinearClassifier")
    kind = node.attribute("post_transform", "NONE")
    pairs = _by_pairs(np.asarray(node.attribute("coefficients"), np.float32), counts)
    scores = _scores(at, b, pairs, node.attribute("rho")[: len(pairs)], sum(counts))
    found = two_classes(b, scores, kind, kind == "SOFTMAX") if len(pairs) == 1 else transformed(b, scores, kind)
    return found if isinstance(found, Refusal) else ("", found)


def _by_pairs(given: Array, counts: Sequence[int]) -> Array:
    """[pairs of classes, support vectors]: row j - 1 of what is given is about a vector's class i < j, row i for j."""
    classes, ends = len(counts), np.cumsum(counts)
    rows = given.reshape(classes - 1, -1)
    found = []
    for i in range(classes):
        for j in range(i + 1, classes):
            pair = np.zeros(rows.shape[1], np.float32)
            for mine, row in ((i, j - 1), (j, i)):
                own = slice(ends[mine] - counts[mine], ends[mine])
                pair[own] = rows[row, own]
            found.append(pair)
    return np.stack(found)
