"""Tree ensembles: exact path contributions, for all trees, samples and targets at once.

A sample's path is followed level by level: whether it reaches a node is whether it reaches the parent times the answer
at the split, 0 or 1. Each node that is reached gives the feature of its parent's split what the expectation changed by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Attributed, Refusal
from onnxlrp.operators.classical import ML, transformed, two_classes
from onnxlrp.operators.forest import TRANSFORMS, Forest, groups, read_forest
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register

_TREATMENT = "exact path contributions: what the expected value changed by at each split on a feature"
_COMPARISONS = {
    "BRANCH_LEQ": "LessOrEqual",
    "BRANCH_LT": "Less",
    "BRANCH_GTE": "GreaterOrEqual",
    "BRANCH_GT": "Greater",
    "BRANCH_EQ": "Equal",
    "BRANCH_NEQ": "Equal",
}


@register("TreeEnsembleRegressor TreeEnsemble", "tree", _TREATMENT, "0: a step function", domain=ML)
def tree_ensemble(at: Situation) -> Attributed | Refusal:
    x, y = at.node.inputs[0], at.y
    forest = read_forest(at.node)
    if isinstance(forest, Refusal):
        return forest
    kind = _transform(at)
    if kind != "NONE":
        return Refusal(f"its post_transform {kind} is not taken apart", "export raw scores, SOFTMAX or LOGISTIC")
    return Attributed(
        "tree",
        x,
        y,
        lambda b, m: _contributions(b, x, m, forest),
        note="the expectation at a split is the mean of its two sides"
        + ("" if forest.hits is None else ", weighed by hit rates"),
    )


# -- the path of each sample -------------------------------------------------------------------------------------


def _contributions(b: Builder, x: str, m: str, forest: Forest) -> str:
    """[samples, features]: sum over targets of m times what each feature contributed."""
    expected, levels = forest.expectation(), forest.levels()
    reached = _reached(b, x, forest, levels)
    if not reached:
        return b.zeros_like(x)
    children = np.concatenate([n for s in levels for n in (forest.yes[s], forest.no[s])])
    parents = np.concatenate([n for s in levels for n in (s, s)])
    changes = b.constant((expected[children] - expected[parents]).astype(b.numpy_type(m)))
    gained = b.op("Gemm", m, changes, transB=1)
    whole = b.op("Concat", *reached, axis=1) if len(reached) > 1 else reached[0]
    shares = b.mul(b.op("Cast", whole, to=b.dtype(m)), gained)
    column = b.op("Expand", b.integers(forest.feature[parents].tolist()), b.op("Shape", shares))
    values = b.op("Cast", shares, to=b.dtype(x)) if b.dtype(x) != b.dtype(m) else shares
    return b.op("ScatterElements", b.zeros_like(x), column, values, axis=1, reduction="add")


def _reached(b: Builder, x: str, forest: Forest, levels: Sequence[np.ndarray[Any, Any]]) -> list[str]:
    """For each level [samples, nodes]: 1 where a sample reaches the children of its splits, the yes sides first."""
    found: list[str] = []
    above: np.ndarray[Any, Any] = forest.roots
    for splits in levels:
        yes = b.op("Cast", _answers(b, x, forest, splits), to=b.dtype(x))
        no = b.sub(b.scalar(1.0, yes), yes)
        if found:
            place = {n: i for i, n in enumerate(above.tolist())}
            arrived = b.op("Gather", found[-1], b.integers([place[n] for n in splits.tolist()]), axis=1)
            yes, no = b.mul(arrived, yes), b.mul(arrived, no)
        found.append(b.op("Concat", yes, no, axis=1))
        above = np.concatenate([forest.yes[splits], forest.no[splits]])
    return found


def _answers(b: Builder, x: str, forest: Forest, splits: np.ndarray[Any, Any]) -> str:
    """[samples, splits]: whether the condition of each split holds."""
    parts = []
    for mode, start, end in groups(forest.mode[splits].tolist()):
        some = splits[start:end]
        values = b.op("Gather", x, b.integers(forest.feature[some].tolist()), axis=1)
        holds = b.op(_COMPARISONS[mode], values, b.constant(forest.threshold[some].astype(b.numpy_type(x))))
        if mode == "BRANCH_NEQ":
            holds = b.op("Not", holds)
        if forest.missing_is_yes[some].any():
            counts = b.constant(forest.missing_is_yes[some])
            holds = b.op("Or", holds, b.op("And", b.op("IsNaN", values, dtype=int(TensorProto.BOOL)), counts))
        parts.append(holds)
    return b.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]


# -- classification and transforms -------------------------------------------------------------------------------


def _transform(at: Situation) -> str:
    given = at.node.attribute("post_transform", "NONE")
    return TRANSFORMS[given] if isinstance(given, int) else str(given)


@lowers("TreeEnsembleRegressor TreeEnsemble", domain=ML)
def transformed_ensemble(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
    """The ensemble without its transform, and the transform."""
    kind = _transform(at)
    if kind == "NONE":
        return None
    attributes = {name: value for name, value in at.node.attributes.items() if name != "post_transform"}
    found = transformed(b, _ensemble(at, b, at.node.op, attributes), kind)
    return found if isinstance(found, Refusal) else (found,)


@lowers(
    "TreeEnsembleClassifier",
    domain=ML,
    treatment="taken apart: TreeEnsembleRegressor of its raw scores, and what makes probabilities of them",
)
def classifier(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    given, kind = dict(at.node.attributes), _transform(at)
    labels = given.get("classlabels_int64s") or given.get("classlabels_strings") or ()
    ids, weights = given["class_ids"], given.get("class_weights")
    one_score = len(labels) == 2 and set(ids) == {0}
    targets = 1 if one_score else len(labels)
    base = given.get("base_values") or []
    if "class_weights_as_tensor" in given or "base_values_as_tensor" in given or len(base) not in (0, targets):
        return Refusal("its weights or base values are not one float for each score", "export it with float weights")
    attributes = {name: value for name, value in given.items() if name.startswith("nodes_")}
    attributes.update({f"target_{n}": given[f"class_{n}"] for n in ("treeids", "nodeids", "ids", "weights")})
    scores = _ensemble(
        at, b, "TreeEnsembleRegressor", {**attributes, "n_targets": targets, "base_values": base or None}
    )
    if one_score:
        positive = all(w >= 0 for w in (*(weights or ()), *base))
        found = two_classes(b, scores, kind, positive)
    else:
        found = transformed(b, scores, kind)
    return found if isinstance(found, Refusal) else ("", found)


def _ensemble(at: Situation, b: Builder, op: str, attributes: Mapping[str, Any]) -> str:
    """The raw scores, of known rank."""
    raw = b.op(op, at.node.inputs[0], domain=ML, dtype=int(TensorProto.FLOAT), **attributes)
    # Shape inference does not know of trees, but of what follows.
    floats = b.op("Cast", raw, to=int(TensorProto.FLOAT))
    return b.op("Reshape", floats, b.integers([-1, int(attributes.get("n_targets", 1))]))
