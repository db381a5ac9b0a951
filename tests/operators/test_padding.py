"""Padding along some axes in the relevance pass, which onnxruntime's optimiser must not misread.

Its optimiser (1.32) moves a Transpose behind a Pad and then takes the pads of the input `axes` for those of all axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import onnxlrp
from tests.operators.examples import Example, expect_linear_map
from tests.support.models import Net


def _between_transposes(op: str, *names: str) -> Callable[[Net, str], str]:
    """The relevance of the operator comes from one Transpose and goes into another: both could be left out."""

    def build(net: Net, a: str) -> str:
        moved = net.op("Transpose", a, perm=[0, 2, 1])
        return net.op("Transpose", net.op(op, moved, *names), perm=[0, 2, 1])

    return build


def _of_unknown_rank(op: str, *names: str) -> Callable[[Net, str], str]:
    def build(net: Net, a: str) -> str:
        whole = net.op("Reshape", a, net.op("Slice", "shape", "from", "to"))
        return net.op("Reshape", net.op(op, whole, *names), net.constant([-1]))

    return build


SLICE = {"starts": np.array([1]), "ends": np.array([-1]), "axes": np.array([-1])}
PAD = {"pads": np.array([1, 2]), "axes": np.array([-2])}
SHAPE = {"shape": np.array([9, 2, 5, 3]), "from": np.array([1]), "to": np.array([4])}

CASES: Mapping[str, Example] = {
    "slice": Example((2, 5, 3), _between_transposes("Slice", *SLICE), 3, SLICE),
    "pad": Example((2, 5, 3), _between_transposes("Pad", "pads", "", "axes"), 3, PAD),
    "slice-of-unknown-rank": Example((2, 5, 3), _of_unknown_rank("Slice", *SLICE), 1, {**SLICE, **SHAPE}),
    "pad-of-unknown-rank": Example((2, 5, 3), _of_unknown_rank("Pad", "pads", "", "axes"), 1, {**PAD, **SHAPE}),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", [name for name in CASES if name != "pad"])
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(CASES[case], dynamic=dynamic)


@pytest.mark.parametrize("case", CASES)
def test_no_pad_with_axes_is_added(case: str) -> None:
    """The model's own Pad between Transposes fails in onnxruntime by itself: there the graph is looked at."""
    emitted = onnxlrp.convert(CASES[case].model(dynamic=True), rules="gradient-x-input", inputs=("a",))
    added = [n for n in emitted.graph.node if n.op_type == "Pad" and n.name.startswith("lrp/")]
    assert added
    assert all(len(n.input) < 4 for n in added)
