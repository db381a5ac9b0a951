"""Convolutions of any geometry: the map is the transpose of what onnxruntime itself computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operators.examples import Example, expect_linear_map_in_onnxruntime
from tests.support.evaluate import relative_l2
from tests.support.explained import explain_seeded
from tests.support.models import Net

_MODES = ("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@st.composite
def convolutions(draw: st.DrawFn, op: str) -> Example:
    """Conv or ConvTranspose in one to three dimensions, each attribute at random, valid in onnxruntime."""
    n = draw(st.integers(1, 3))
    group, inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    size = [draw(st.integers(2, 6 if n < 3 else 3)) for _ in range(n)]
    kernel = [draw(st.integers(1, 3)) for _ in range(n)]
    strides = [draw(st.integers(1, 3)) for _ in range(n)]
    dilations = [draw(st.integers(1, 2)) for _ in range(n)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    auto = draw(st.sampled_from(_MODES))
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group, "kernel_shape": kernel}
    if auto == "NOTSET":
        pads = [draw(st.integers(0, 2)) for _ in range(2 * n)]
        if op == "Conv":
            pads[n:] = [p + max(r - s - b - p, 0) for p, r, s, b in zip(pads[n:], reach, size, pads[:n], strict=True)]
        else:
            # What is cut off must not be more than there is.
            whole = [s * (d - 1) + r for s, d, r in zip(strides, size, reach, strict=True)]
            pads = [min(p, (whole[i % n] - 1) // 2) for i, p in enumerate(pads)]
            extra = [draw(st.integers(0, s - 1)) for s in strides]
            attributes["output_padding"] = extra
        attributes["pads"] = pads
    else:
        attributes["auto_pad"] = auto
        if auto != "VALID":
            # onnxruntime pads automatically only where the kernel is not dilated.
            attributes["dilations"] = [1] * n
        if op == "Conv":
            attributes["strides"] = [min(s, k + 1) for s, k in zip(strides, kernel, strict=True)]
            size = [max(s, r) for s, r in zip(size, reach, strict=True)]
        else:
            attributes["kernel_shape"] = kernel = [max(k, s) for k, s in zip(kernel, strides, strict=True)]
    shape = (group * outputs, inputs, *kernel) if op == "Conv" else (group * inputs, outputs, *kernel)
    weight = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape)
    bias = draw(st.booleans())

    def build(net: Net, a: str) -> str:
        constants = [net.constant(weight), *([net.constant(np.ones(group * outputs))] if bias else [])]
        return net.op(op, a, *constants, **attributes)

    return Example((2, group * inputs, *size), build, n + 2, open_axes=(0, *range(2, n + 2)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(example=convolutions("Conv"), dynamic=st.booleans())
def test_conv(example: Example, dynamic: bool) -> None:
    expect_linear_map_in_onnxruntime(example, dynamic=dynamic)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(example=convolutions("ConvTranspose"), dynamic=st.booleans())
def test_conv_transpose(example: Example, dynamic: bool) -> None:
    expect_linear_map_in_onnxruntime(example, dynamic=dynamic)


def _by_computed_weight(op: str, computed: frozenset[str]) -> Example:
    """A layer whose weight, bias or both are made from constants in a way that hides their sizes."""
    random = np.random.default_rng(5)
    weight = random.normal(size=(4, 3, 2, 2) if op == "Conv" else (3, 4, 2, 2))
    values = {"weight": weight, "bias": random.normal(size=4)}

    def constant(net: Net, name: str) -> str:
        whole = net.constant(values[name])
        if name not in computed:
            return whole
        sizes = values[name].shape
        shape = net.op("Compress", net.constant(sizes), net.constant(np.array([True] * len(sizes))), axis=0)
        return net.op("Reshape", whole, shape)

    def build(net: Net, a: str) -> str:
        return net.op(op, a, *(constant(net, name) for name in values), kernel_shape=[2, 2], pads=[1, 0, 0, 1])

    return Example((2, 3, 4, 5), build, 4, open_axes=(0,))


@pytest.mark.parametrize("rules", ["epsilon-plus", "epsilon-alpha2-beta1", "epsilon-plus-flat", "epsilon-gamma-box"])
@pytest.mark.parametrize("computed", [{"weight"}, {"bias"}, {"weight", "bias"}], ids=lambda c: "-and-".join(sorted(c)))
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_weight_of_unknown_size_gives_the_map_of_a_constant_one(op: str, computed: set[str], rules: str) -> None:
    """Weights that are standardised when the model runs, as in NF-Nets, with biases."""
    maps = []
    for names in (frozenset(computed), frozenset[str]()):
        example = _by_computed_weight(op, names)
        maps.append(explain_seeded(example.model(dynamic=True), rules, {"a": example.data}).relevance["a"])
    assert np.abs(maps[1]).max() > 0
    assert relative_l2(*maps) < 1e-12
