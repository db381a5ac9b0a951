"""Decision trees written as nested values, walked one sample and one split at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

Array = np.ndarray
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


@dataclass(frozen=True)
class Leaf:
    """What a sample that ends here adds to the targets."""

    value: Array
    hits: float = 1.0


@dataclass(frozen=True)
class Split:
    """`yes` where x[feature] <mode> threshold, or where it is missing and `missing` says so."""

    feature: int
    threshold: float
    yes: Split | Leaf
    no: Split | Leaf
    mode: str = "BRANCH_LEQ"
    missing: bool = False
    hits: float = 1.0

    def side(self, x: Array) -> Split | Leaf:
        v, t = x[self.feature], np.float32(self.threshold)
        if np.isnan(v):
            return self.yes if self.missing or self.mode == "BRANCH_NEQ" else self.no
        holds = {
            "BRANCH_LEQ": v <= t,
            "BRANCH_LT": v < t,
            "BRANCH_GTE": v >= t,
            "BRANCH_GT": v > t,
            "BRANCH_EQ": v == t,
            "BRANCH_NEQ": v != t,
        }
        return self.yes if holds[self.mode] else self.no


Tree = Split | Leaf


def grown(
    rng: np.random.Generator, depth: int, features: int, targets: int, modes: Sequence[str] = ("BRANCH_LEQ",)
) -> Tree:
    """A tree of random shape; thresholds are halves, so that equality can hold."""
    if depth == 0 or rng.random() < 0.15:
        return Leaf(rng.normal(size=targets))
    return Split(
        int(rng.integers(features)),
        float(rng.integers(-3, 4)) / 2,
        grown(rng, depth - 1, features, targets, modes),
        grown(rng, depth - 1, features, targets, modes),
        str(rng.choice(modes)),
        bool(rng.random() < 0.5),
    )


def expected(tree: Tree, weighted: bool = False) -> Array:
    """The expectation of the prediction: the mean of both sides at each split, or weighed by hits."""
    if isinstance(tree, Leaf):
        return tree.value
    yes, no = expected(tree.yes, weighted), expected(tree.no, weighted)
    if not weighted:
        return (yes + no) / 2
    return (tree.yes.hits * yes + tree.no.hits * no) / (tree.yes.hits + tree.no.hits)


def contributions(trees: Sequence[Tree], x: Array, targets: int, weighted: bool = False) -> Array:
    """[samples, features, targets], by walking down."""
    found = np.zeros((*x.shape, targets))
    for sample, row in enumerate(x):
        for tree in trees:
            here = tree
            while isinstance(here, Split):
                following = here.side(row)
                found[sample, here.feature] += expected(following, weighted) - expected(here, weighted)
                here = following
    return found


def predictions(trees: Sequence[Tree], x: Array) -> Array:
    """[samples, targets]: the sum of the leaves that are reached."""
    found = []
    for row in x:
        leaves = []
        for tree in trees:
            here = tree
            while isinstance(here, Split):
                here = here.side(row)
            leaves.append(here.value)
        found.append(np.sum(leaves, axis=0))
    return np.asarray(found)


# -- as attributes -----------------------------------------------------------------------------------------------


def listed(trees: Sequence[Tree], kind: str = "target") -> Mapping[str, Any]:
    """Attributes of TreeEnsembleRegressor (`kind` target) or TreeEnsembleClassifier (class)."""
    rows: list[dict[str, Any]] = []
    leaves: list[tuple[int, int, int, float]] = []
    counts: dict[int, int] = {}

    def add(tree: Tree, number: int) -> int:
        mine: dict[str, Any] = {"treeids": number, "nodeids": counts.get(number, 0)}
        counts[number] = mine["nodeids"] + 1
        rows.append(mine)
        mine["hitrates"] = float(tree.hits)
        if isinstance(tree, Leaf):
            mine.update(featureids=0, values=0.0, modes="LEAF", truenodeids=0, falsenodeids=0)
            mine["missing_value_tracks_true"] = 0
            leaves.extend((number, mine["nodeids"], k, float(v)) for k, v in enumerate(tree.value))
        else:
            mine.update(featureids=tree.feature, values=tree.threshold, modes=tree.mode)
            mine["missing_value_tracks_true"] = int(tree.missing)
            mine["truenodeids"], mine["falsenodeids"] = add(tree.yes, number), add(tree.no, number)
        return mine["nodeids"]

    for number, tree in enumerate(trees):
        add(tree, number)
    found: dict[str, Any] = {f"nodes_{key}": [row[key] for row in rows] for key in rows[0]}
    for position, name in enumerate(("treeids", "nodeids", "ids", "weights")):
        found[f"{kind}_{name}"] = [leaf[position] for leaf in leaves]
    return found


def apart(trees: Sequence[Split]) -> Mapping[str, Any]:
    """Attributes of TreeEnsemble, whose leaves stand in a list of their own and have one target each."""
    splits: list[dict[str, int | float]] = []
    leaves: list[tuple[int, float]] = []

    def add(tree: Tree) -> tuple[int, int]:
        """(position, whether it is a leaf)."""
        if isinstance(tree, Leaf):
            (target,) = np.flatnonzero(tree.value)
            leaves.append((int(target), float(tree.value[target])))
            return len(leaves) - 1, 1
        mine: dict[str, int | float] = {"f": tree.feature, "t": tree.threshold, "m": MODES.index(tree.mode)}
        mine["missing"] = int(tree.missing)
        place = len(splits)
        splits.append(mine)
        (mine["yes"], mine["yl"]), (mine["no"], mine["nl"]) = add(tree.yes), add(tree.no)
        return place, 0

    roots = [add(tree)[0] for tree in trees]
    column = lambda key: [row[key] for row in splits]  # noqa: E731
    return {
        "tree_roots": roots,
        "nodes_featureids": column("f"),
        "nodes_splits": numpy_helper.from_array(np.asarray(column("t"), np.float32)),
        "nodes_modes": numpy_helper.from_array(np.asarray(column("m"), np.uint8)),
        "nodes_truenodeids": column("yes"),
        "nodes_trueleafs": column("yl"),
        "nodes_falsenodeids": column("no"),
        "nodes_falseleafs": column("nl"),
        "nodes_missing_value_tracks_true": column("missing"),
        "leaf_targetids": [target for target, _ in leaves],
        "leaf_weights": numpy_helper.from_array(np.asarray([w for _, w in leaves], np.float32)),
    }
