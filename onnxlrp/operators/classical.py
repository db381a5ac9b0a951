"""Operators of ai.onnx.ml around linear models: scaling, assembling features, linear regression and classification.

They are taken apart into operators of the standard. Integer columns are read as floats first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Array, Builder
from onnxlrp.operators.behaviour import Attributed, Refusal, Selection, Stop
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register

ML = "ai.onnx.ml"
_FLOAT = int(TensorProto.FLOAT)


# -- what the models share ---------------------------------------------------------------------------------------


def as_floats(b: Builder, tensor: str) -> str:
    """The tensor as float32, which is what these operators compute in."""
    return tensor if b.dtype(tensor) == _FLOAT else b.op("Cast", tensor, to=_FLOAT)


def numbers(b: Builder, values: float | Sequence[float] | Array) -> str:
    """A float32 constant."""
    return b.constant(np.asarray(values, np.float32))


def transformed(b: Builder, scores: str, kind: str) -> str | Refusal:
    """Raw scores after `post_transform`."""
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return b.op("Sigmoid", scores)
    if kind == "SOFTMAX":
        return b.op("Softmax", scores, axis=-1)
    return Refusal(
        f"its post_transform {kind} is not taken apart", "export the model with raw scores, SOFTMAX or LOGISTIC"
    )


def two_classes(b: Builder, score: str, kind: str, complementary: bool) -> str | Refusal:
    """The scores [N, 2] that onnxruntime makes of one score [N, 1] for the second of two classes.

    Args:
        complementary: unless a sigmoid follows, the first class gets 1 - s rather than -s. (A softmax never follows.)
    """
    if kind in ("NONE", "SOFTMAX"):
        first = b.sub(b.scalar(1.0, score), score) if complementary else b.op("Neg", score)
        return b.op("Concat", first, score, axis=1)
    return transformed(b, b.op("Concat", b.op("Neg", score), score, axis=1), kind)


# -- linear models -----------------------------------------------------------------------------------------------

_LINEAR = "taken apart: a dense layer, and what makes probabilities of its scores"


@lowers("LinearRegressor", domain=ML, treatment=_LINEAR)
def linear_regressor(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    targets = at.node.attribute("targets", 1)
    found = transformed(b, _dense(at, b, targets), at.node.attribute("post_transform", "NONE"))
    return found if isinstance(found, Refusal) else (found,)


@lowers("LinearClassifier", domain=ML, treatment=f"{_LINEAR}; relevance of the label ends")
def linear_classifier(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    node = at.node
    labels = node.attribute("classlabels_ints") or node.attribute("classlabels_strings") or ()
    kind = node.attribute("post_transform", "NONE")
    rows = len(node.attribute("intercepts") or labels)
    raw = _dense(at, b, rows)
    found = two_classes(b, raw, kind, True) if rows == 1 and len(labels) == 2 else transformed(b, raw, kind)
    return found if isinstance(found, Refusal) else ("", found)


def _dense(at: Situation, b: Builder, rows: int) -> str:
    weight = np.asarray(at.node.attribute("coefficients"), np.float32).reshape(rows, -1)
    given = at.node.attribute("intercepts")
    bias = numbers(b, given) if given else ""
    return b.op("Gemm", as_floats(b, at.node.inputs[0]), numbers(b, weight), bias, transB=1)


# -- features ----------------------------------------------------------------------------------------------------


@lowers("Scaler", domain=ML, treatment="taken apart: an affine step, merged into the dense layer that follows")
def scaler(at: Situation, b: Builder) -> Sequence[str]:
    x = as_floats(b, at.node.inputs[0])
    offset, scale = (np.asarray(at.node.attribute(name), np.float32) for name in ("offset", "scale"))
    shape = at.graph.shape(at.node.inputs[0])
    width = shape[1] if shape is not None and len(shape) == 2 else None
    if not isinstance(width, int):
        return (b.mul(b.sub(x, numbers(b, offset)), numbers(b, scale)),)
    offset, scale = (np.broadcast_to(v, (width,)) for v in (offset, scale))
    zeros, ones = np.zeros(width), np.ones(width)
    parameters = (numbers(b, v) for v in (scale, -offset * scale, zeros, ones))
    return (b.op("BatchNormalization", x, *parameters, epsilon=0.0),)


@lowers("Normalizer", domain=ML, treatment="taken apart: divided by a norm, which is held constant")
def normalizer(at: Situation, b: Builder) -> Sequence[str]:
    x, last = as_floats(b, at.node.inputs[0]), b.integers([-1])
    kind = at.node.attribute("norm", "MAX")
    if kind == "MAX":
        size = b.op("ReduceMax", x, last, keepdims=1)
    elif kind == "L1":
        size = b.op("ReduceSum", b.op("Abs", x), last, keepdims=1)
    else:
        size = b.op("Sqrt", b.op("ReduceSum", b.square(x), last, keepdims=1))
    zero = b.op("Equal", size, b.scalar(0.0, size))
    return (b.div(x, b.where(zero, b.scalar(1.0, size), size)),)


@register(
    "Imputer", "movement", "exact; what was filled in keeps its relevance", "1 where nothing is filled in", domain=ML
)
def imputer(at: Situation) -> Attributed | Refusal:
    x, y = at.node.inputs[0], at.y
    if not at.graph.is_float(x):
        return Refusal("its input is made of integers", "give the features as floats")
    absent = float(at.node.attribute("replaced_value_float", 0.0))

    def contributions(b: Builder, m: str) -> str:
        missing = b.op("IsNaN", x) if np.isnan(absent) else b.op("Equal", x, b.scalar(absent, x))
        return b.where(missing, b.scalar(0.0, m), b.mul(m, y))

    return Attributed("movement", x, y, contributions, contributions)


@lowers("FeatureVectorizer", domain=ML, treatment="taken apart: Concat")
def feature_vectorizer(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    widths = at.node.attribute("inputdimensions") or ()
    parts = []
    for x, width in zip(at.node.inputs, widths, strict=False):
        shape = at.graph.shape(x)
        if shape is None or len(shape) != 2 or shape[1] != width:
            return Refusal(f"its input {x} is not known to have {width} columns", "give it a static shape")
        parts.append(as_floats(b, x))
    if len(parts) != len(at.node.inputs):
        return Refusal("it does not say how many columns each input has", "state inputdimensions")
    return (b.op("Concat", *parts, axis=1),)


@register(
    "ArrayFeatureExtractor", "movement", "exact: relevance follows each value", "scattered to the columns", domain=ML
)
def array_feature_extractor(at: Situation) -> Selection | Stop | Refusal:
    x, columns, y = at.node.inputs[0], at.node.inputs[1], at.y
    if not at.graph.is_float(x):
        return Stop("picks labels, not numbers")
    rank = at.graph.rank(x)
    if rank is None or rank < 2:
        return Refusal("its input is not known to have rows and columns", "give it a static rank of 2")

    def adjoint(b: Builder, r: str) -> str:
        wide = b.op("Expand", b.op("Reshape", columns, b.integers([-1])), b.op("Shape", r))
        return b.op("ScatterElements", b.zeros_like(x), wide, r, axis=-1, reduction="add")

    return Selection("movement", (x,), (y,), lambda b, given: {x: adjoint(b, given[y])})


# -- where relevance ends ----------------------------------------------------------------------------------------


@register("Binarizer", "stop", "relevance ends: a yes-or-no answer", "0", data=(), domain=ML)
def binarizer(at: Situation) -> Stop:
    return Stop("a yes-or-no answer")


@register(
    "OneHotEncoder LabelEncoder CategoryMapper CastMap DictVectorizer",
    "stop",
    "relevance ends: categories, not numbers; explain the columns behind it",
    "0",
    data=(),
    domain=ML,
)
def categories(at: Situation) -> Stop:
    return Stop("categories, not numbers")


@register("ZipMap", "stop", "names the scores before it; as the last operator stepped over", "0", data=(), domain=ML)
def zip_map(at: Situation) -> Stop:
    return Stop("a map from names to scores")
