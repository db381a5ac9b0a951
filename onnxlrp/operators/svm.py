"""Support vector machines of ai.onnx.ml, taken apart into their kernel and a dense layer.

A linear kernel is one dense layer, whose weights are the support vectors added up. The other kernels are written out in
operators of the standard, each of which gets its own rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.classical import ML, as_floats, numbers, transformed, two_classes
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

_TREATMENT = "taken apart: a dense layer of its kernel; a linear kernel is one dense layer"


def _score(at: Situation, b: Builder, supports: int) -> str:
    """sum of coefficient * kernel(support vector, x) + rho, [N, 1]."""
    node, x = at.node, as_floats(b, at.node.inputs[0])
    coefficients = np.asarray(node.attribute("coefficients"), np.float32)
    rho = numbers(b, node.attribute("rho")[:1])
    kind = node.attribute("kernel_type", "LINEAR")
    if not supports:
        return b.op("Gemm", x, numbers(b, coefficients[None]), rho, transB=1)
    vectors = np.asarray(node.attribute("support_vectors"), np.float32).reshape(supports, -1)
    if kind == "LINEAR":
        return b.op("Gemm", x, numbers(b, coefficients[None] @ vectors), rho, transB=1)
    gamma, constant, degree = (float(v) for v in node.attribute("kernel_params"))
    if kind == "RBF":
        apart = b.sub(b.op("Unsqueeze", x, b.integers([1])), numbers(b, vectors))
        squares = b.op("ReduceSum", b.op("Pow", apart, numbers(b, 2.0)), b.integers([2]), keepdims=0)
        values = b.op("Exp", b.scale(squares, -gamma))
    else:
        inner = b.op("Gemm", x, numbers(b, gamma * vectors), numbers(b, [constant]), transB=1)
        values = b.op("Tanh", inner) if kind == "SIGMOID" else b.op("Pow", inner, numbers(b, degree))
    return b.op("Gemm", values, numbers(b, coefficients[None]), rho, transB=1)


@lowers("SVMRegressor", domain=ML, treatment=_TREATMENT)
def svm_regressor(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    if at.node.attribute("one_class", 0):
        return Refusal("it answers inside or outside (one_class), not with a number", "explain another output")
    score = _score(at, b, at.node.attribute("n_supports", 0))
    found = transformed(b, score, at.node.attribute("post_transform", "NONE"))
    return found if isinstance(found, Refusal) else (found,)


@lowers("SVMClassifier", domain=ML, treatment=f"{_TREATMENT}; two classes without fitted probabilities")
def svm_classifier(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    labels = node.attribute("classlabels_ints") or node.attribute("classlabels_strings") or ()
    if node.attribute("prob_a"):
        return Refusal(
            "its scores are probabilities fitted to decisions between pairs of classes",
            "export the model without probabilities",
        )
    if len(labels) != 2:
        return Refusal(
            "its scores are decisions between pairs of classes", "use a model for two classes, or one class against all"
        )
    supports = sum(node.attribute("vectors_per_class") or ())
    kind = node.attribute("post_transform", "NONE")
    if not supports:
        return Refusal("it has no support vectors", "export it as a LinearClassifier")
    found = two_classes(b, _score(at, b, supports), kind, kind == "SOFTMAX")
    return found if isinstance(found, Refusal) else ("", found)
