"""Decision trees as arrays: read from the attributes of a node, with the expected prediction at each of their nodes.

The prediction of a tree is its expectation at the root plus what the expectation changed by at each split on the path
from root to leaf (Palczewska et al. 2013; Saabas 2014). The file holds no sample counts. Where the model states hit
rates that differ, the expectation at a split weighs its two sides by them; otherwise both sides count the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxlrp.emit.builder import Array
from onnxlrp.graph.view import Node
from onnxlrp.operators.behaviour import Refusal

LEAF = "LEAF"
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees, numbered through.

    Attributes:
        mode: the comparison x[feature] ? threshold, or LEAF.
        yes, no: the node to go on to where it holds, and where it does not; 0 at leaves.
        missing_is_yes: a missing value (NaN) counts as if it held.
        hits: how often each node is reached, in any unit; None where nothing is known.
        value: [nodes, targets] of leaves; 0 elsewhere.
        roots: one node per tree.
    """

    feature: Array
    threshold: Array
    mode: Array
    yes: Array
    no: Array
    missing_is_yes: Array
    hits: Array | None
    value: Array
    roots: Array

    def levels(self) -> tuple[Array, ...]:
        """The splits of each depth, from the roots on, those of one mode together."""
        found, here = [], self.roots
        while (splits := here[self.mode[here] != LEAF]).size:
            splits = splits[np.argsort(self.mode[splits], kind="stable")]
            found.append(splits)
            here = np.concatenate([self.yes[splits], self.no[splits]])
        return tuple(found)

    def expectation(self) -> Array:
        """[nodes, targets]: the expected prediction of its tree at each node."""
        expected = self.value.astype(np.float64)
        for splits in reversed(self.levels()):
            yes, no = self.yes[splits], self.no[splits]
            share = np.full(len(splits), 0.5)
            if self.hits is not None:
                both = self.hits[yes] + self.hits[no]
                share = np.where(both > 0, self.hits[yes] / np.where(both > 0, both, 1.0), 0.5)
            expected[splits] = share[:, None] * expected[yes] + (1.0 - share)[:, None] * expected[no]
        return expected


def read_forest(node: Node) -> Forest | Refusal:
    """The trees of a TreeEnsembleRegressor or a TreeEnsemble."""
    given = {name: _array(value) for name, value in node.attributes.items()}
    aggregate = node.attribute("aggregate_function", "SUM")
    aggregate = _AGGREGATES[aggregate] if isinstance(aggregate, int) else aggregate
    if aggregate not in ("SUM", "AVERAGE"):
        return Refusal(
            f"it takes the {aggregate} of its trees, which has no exact contributions", "use a sum or an average"
        )
    forest = _from_leaves_apart(given) if node.op == "TreeEnsemble" else _from_one_list(given)
    if np.any(forest.mode == "BRANCH_MEMBER"):
        return Refusal("its splits ask for members of a set (BRANCH_MEMBER)", "split by comparison with a number")
    if aggregate == "SUM":
        return forest
    return Forest(**{**forest.__dict__, "value": forest.value / len(forest.roots)})


def _array(value: Any) -> Array:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)


def _either(given: Mapping[str, Array], name: str) -> Array:
    """A list of numbers, given as floats or as a tensor of doubles."""
    found = given.get(f"{name}_as_tensor")
    return given[name].astype(np.float32) if found is None else found


def _from_one_list(given: Mapping[str, Array]) -> Forest:
    """TreeEnsembleRegressor: splits and leaves in one list, named by tree and number."""
    names = list(zip(given["nodes_treeids"].tolist(), given["nodes_nodeids"].tolist(), strict=True))
    number = {name: i for i, name in enumerate(names)}
    mode = given["nodes_modes"].astype(object)
    trees = given["nodes_treeids"].tolist()

    def children(which: str) -> Array:
        ids = given[which].tolist()
        found = [0 if m == LEAF else number[t, i] for t, i, m in zip(trees, ids, mode, strict=True)]
        return np.asarray(found, np.int64)

    yes, no = children("nodes_truenodeids"), children("nodes_falsenodeids")
    splits = mode != LEAF
    inner = set(yes[splits].tolist()) | set(no[splits].tolist())
    weights = _either(given, "target_weights")
    value = np.zeros((len(names), int(given.get("n_targets", np.asarray(1)))), weights.dtype)
    leaves = zip(given["target_treeids"].tolist(), given["target_nodeids"].tolist(), strict=True)
    np.add.at(value, (np.asarray([number[leaf] for leaf in leaves], np.int64), given["target_ids"]), weights)
    return Forest(
        given["nodes_featureids"],
        _either(given, "nodes_values"),
        mode,
        yes,
        no,
        _tracks(given, len(names)),
        _hits(given.get("nodes_hitrates", given.get("nodes_hitrates_as_tensor"))),
        value,
        np.asarray([i for i in range(len(names)) if i not in inner], np.int64),
    )


def _from_leaves_apart(given: Mapping[str, Array]) -> Forest:
    """TreeEnsemble: splits and leaves in two lists; leaves are numbered behind the splits here."""
    splits, leaves = len(given["nodes_featureids"]), len(given["leaf_targetids"])

    def children(side: str) -> Array:
        return np.asarray(given[f"nodes_{side}nodeids"] + splits * given[f"nodes_{side}leafs"], np.int64)

    def padded(values: Array, fill: Any) -> Array:
        return np.concatenate([values, np.full(leaves, fill, values.dtype)])

    weights = given["leaf_weights"]
    value = np.zeros((splits + leaves, int(given.get("n_targets", np.asarray(1)))), weights.dtype)
    value[splits + np.arange(leaves), given["leaf_targetids"]] = weights
    return Forest(
        padded(given["nodes_featureids"], 0),
        padded(given["nodes_splits"], 0),
        padded(np.asarray([_MODES[m] for m in given["nodes_modes"]], object), LEAF),
        padded(children("true"), 0),
        padded(children("false"), 0),
        padded(_tracks(given, splits), False),
        # Hit rates are those of splits alone here, which says nothing of their leaves.
        None,
        value,
        np.asarray(given["tree_roots"], np.int64),
    )


def _tracks(given: Mapping[str, Array], count: int) -> Array:
    found = given.get("nodes_missing_value_tracks_true")
    return np.zeros(count, bool) if found is None or not found.size else found.astype(bool)


def _hits(given: Array | None) -> Array | None:
    """Hit rates that say something: exporters write ones where they know nothing."""
    if given is None or not given.size or np.all(given == given[0]) or np.any(given < 0):
        return None
    return given.astype(np.float64)


def groups(modes: Sequence[str]) -> list[tuple[str, int, int]]:
    """Stretches of equal modes: (mode, start, end)."""
    starts = [i for i, mode in enumerate(modes) if i == 0 or mode != modes[i - 1]]
    return [(modes[i], i, end) for i, end in zip(starts, [*starts[1:], len(modes)], strict=True)]
