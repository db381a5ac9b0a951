"""Movement whose parameters are known only at run time, or are unusual: relevance follows each value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.operators.examples import Example, at_run_time, expect_linear_map, one
from tests.support.models import Net


def _split(sizes: list[int], *, axis: int = 1, keep: tuple[int, ...]) -> Example:
    """Only the parts in `keep` are used."""

    def build(net: Net, a: str) -> str:
        first = net.op("Split", a, net.constant(sizes), outputs=len(sizes), axis=axis)
        return net.op("Concat", *(f"{first}_{i}" if i else first for i in keep), axis=axis)

    return Example((2, sum(sizes)), build, 2, open_axes=(0,))


def _split_by_number(net: Net, a: str) -> str:
    """Seven into three: 3, 3 and a last one that is shorter."""
    first = net.op("Split", a, outputs=3, axis=-1, num_outputs=3)
    return net.op("Concat", f"{first}_2", f"{first}_1", axis=-1)


def _split_at_run_time(net: Net, a: str) -> str:
    first = net.op("Split", a, "sizes", outputs=2, axis=0)
    return net.op("Identity", f"{first}_1")


def _windowed(net: Net, a: str) -> str:
    """A window whose end is computed from the size of the data."""
    size = net.op("Shape", a, start=1, end=2)
    end = net.op("Sub", size, net.constant([1]))
    return net.op("Slice", a, net.constant([1]), end, net.constant([1]))


def _reshaped_by_shape(net: Net, a: str) -> str:
    rows = net.op("Shape", a, start=0, end=1)
    return net.op("Reshape", a, net.op("Concat", rows, net.constant([-1]), axis=0))


def _constant_where(net: Net, a: str) -> str:
    chosen = net.op("Greater", a, net.constant(np.array(0.0)))
    return net.op("Where", chosen, a, net.constant(np.array(0.25)))


def _gathered_elements(net: Net, a: str) -> str:
    return net.op("GatherElements", a, net.constant([[0, -1, 1], [1, 0, 0]]), axis=1)


CASES: Mapping[str, Example] = {
    "slice-at-run-time": at_run_time("Slice", (3, 5), starts=[1, -4], ends=[9, -1], axes=[0, 1]),
    "slice-steps-at-run-time": at_run_time("Slice", (4, 5), starts=[3, 0], ends=[-9, 5], axes=[0, 1], steps=[-2, 3]),
    "slice-strided": one("Slice", (2, 7, 6), [0, 1], [7, 6], [1, 2], [2, 3]),
    "slice-strided-from-the-end": one("Slice", (2, 7), [-2], [0], [-1], [-3]),
    "slice-empty-axis-list": one("Slice", (3, 4), [1, 0], [3, 2]),
    "slice-beyond-the-ends": one("Slice", (3, 4), [-100, 2], [100, 100], [0, 1]),
    "slice-computed-from-shape": Example((2, 5), _windowed, 2),
    "pad-at-run-time": at_run_time("Pad", (2, 3), pads=[1, 0, 0, 2]),
    "pad-axes-at-run-time": at_run_time("Pad", (2, 3, 2), pads=[2, 1], value=None, axes=[1]),
    "pad-negative-at-run-time": at_run_time("Pad", (3, 5), pads=[0, -2, 1, -1]),
    "pad-reflect-at-run-time": at_run_time(
        "Pad", (1, 1, 3, 4), None, {"mode": "reflect"}, pads=[0, 0, 1, 2, 0, 0, 2, 3]
    ),
    "pad-edge-axes": one("Pad", (2, 3, 4), [1, 2, 0, 3], None, [1, -1], mode="edge"),
    "pad-edge-beside-a-value": one("Pad", (2, 3), [1, 1, 0, 0], 0.5, mode="edge"),
    "pad-negative-and-positive": one("Pad", (4, 4), [-1, 2, 2, -3], 0.5),
    "pad-negative-axis": one("Pad", (2, 3), [1, 2], 0.5, [-2]),
    "pad-negative-reflect": one("Pad", (2, 6), [0, -2, 0, 2], mode="reflect"),
    "pad-nothing": one("Pad", (2, 3), [0, 0, 0, 0]),
    "reshape-at-run-time": at_run_time("Reshape", (2, 6), 3, shape=[0, 3, -1]),
    "reshape-allow-zero": one("Reshape", (2, 6), [3, 4], rank=2, allowzero=1),
    "reshape-by-own-shape": Example((2, 3, 2), _reshaped_by_shape, 2),
    "expand-at-run-time": at_run_time("Expand", (3, 1), 3, shape=[2, 1, 4]),
    "tile-at-run-time": at_run_time("Tile", (2, 3), repeats=[3, 2]),
    "tile-one-axis": one("Tile", (2, 1, 3), [1, 4, 1]),
    "gather-at-run-time": at_run_time("Gather", (4, 3), 3, indices=[[1, -1], [1, 0]]),
    "gather-last-axis": one("Gather", (2, 4), [-1, 0, -1, 2], axis=-1),
    "gather-one-negative": one("Gather", (2, 4, 2), np.array(-2), rank=2, axis=1),
    "gather-one-in-brackets": one("Gather", (2, 4, 2), [[-2]], rank=4, axis=1),
    "gather-scalar-at-run-time": at_run_time("Gather", (2, 4), 1, {"axis": 1}, index=np.array(-1)),
    "gather-elements": Example((2, 3), _gathered_elements, 2),
    "gather-elements-at-run-time": at_run_time("GatherElements", (3, 2), None, {"axis": 0}, at=[[2, 2], [-1, 0]]),
    "gather-nd": one("GatherND", (2, 3, 2), [[0, 1], [1, -1], [0, 1]], rank=2),
    "gather-nd-batched": one("GatherND", (2, 3, 2), [[1], [-1]], rank=2, batch_dims=1),
    "split-uneven": _split([1, 4, 2], keep=(0, 2)),
    "split-first-axis": _split([3], axis=1, keep=(0,)),
    "split-by-number-uneven": Example((2, 7), _split_by_number, 2, open_axes=(0,)),
    "split-sizes-at-run-time": Example((5, 2), _split_at_run_time, 2, {"sizes": np.array([2, 3])}),
    "transpose-of-five": one("Transpose", (1, 2, 3, 1, 2), perm=[4, 0, 3, 2, 1]),
    "squeeze-negative": one("Squeeze", (1, 3, 1, 2), [-2, 0], rank=2),
    "unsqueeze-negative": one("Unsqueeze", (2, 3), [-1, 1], rank=4),
    "flatten-axis-0": one("Flatten", (2, 3), rank=2, axis=0),
    "flatten-negative-axis": one("Flatten", (2, 3, 2), rank=2, axis=-1),
    "depth-to-space-crd": Example(
        (1, 12, 2, 1), lambda net, a: net.op("DepthToSpace", a, blocksize=2, mode="CRD"), 4, open_axes=(0, 2, 3)
    ),
    "space-to-depth-3": one("SpaceToDepth", (1, 1, 3, 6), blocksize=3),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "open"])
@pytest.mark.parametrize("case", CASES)
def test_the_map_is_the_transpose(case: str, dynamic: bool) -> None:
    expect_linear_map(CASES[case], dynamic=dynamic)
