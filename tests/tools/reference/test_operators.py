"""The operators that tools/reference gives to `onnx.reference` agree with onnxruntime on random attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference
from tests.support.linear_cases import CONVOLUTIONS
from tests.support.models import Net


def _pool(op: str, seed: int) -> tuple[ModelProto, np.ndarray]:
    """A pool with random attributes, on data with many ties."""
    r = np.random.default_rng(seed)
    n = int(r.integers(1, 4))
    kernel = [int(k) for k in r.integers(1, 4, n)]
    dilations = [int(d) for d in r.integers(1, 3, n)] if r.random() < 0.4 else [1] * n
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [int(s) for s in r.integers(1, 4, n)]}
    attributes["dilations"] = dilations
    if r.random() < 0.3:
        attributes["auto_pad"] = str(r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        attributes["dilations"] = [1] * n  # onnxruntime forgets the dilation when it computes the padding
    else:
        attributes["pads"] = [int(r.integers(0, k)) for k in kernel * 2]
        attributes["ceil_mode"] = int(r.random() < 0.5)
    if op == "AveragePool":
        attributes["count_include_pad"] = int(r.random() < 0.5)
    shape = (2, 3, *(int(s) for s in r.integers(5, 8, n)))
    net = Net(np.float32)
    y = net.op(op, net.input("x", shape), outputs=2 if op == "MaxPool" else 1, **attributes)
    model = net.model(y)
    if op == "MaxPool":
        model.graph.output.append(helper.make_tensor_value_info(f"{y}_1", TensorProto.INT64, [None] * (n + 2)))
    return model, np.round(r.normal(size=shape) * 2).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools(op: str, seed: int) -> None:
    model, x = _pool(op, seed)
    ours, theirs = run_reference(model, {"x": x}), run_onnxruntime(model, {"x": x}, optimised=False)
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        np.testing.assert_allclose(ours[name], expected, atol=1e-5)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str) -> None:
    model = CONVOLUTIONS[case].model(dtype=np.float32, dynamic="all")
    x = np.random.default_rng(1).normal(size=CONVOLUTIONS[case].shape).astype(np.float32)
    ours, theirs = run_reference(model, {"x": x}), run_onnxruntime(model, {"x": x}, optimised=False)
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        assert relative_l2(ours[name], expected) < 1e-6
