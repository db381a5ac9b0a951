"""Relevance is normalised sample by sample, wherever the batch stands: a sample has one map, alone or among others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxlrp
from tests.support.evaluate import relative_l2, run_reference, to_float64

X = np.random.default_rng(0).normal(size=(3, 4, 6))
BODIES = {
    "batch first": "m = MatMul(x, w) a = Relu(m)",
    "sequence first": "t = Transpose<perm = [1, 0, 2]>(x) m = MatMul(t, w) r = Relu(m)"
    " a = Transpose<perm = [1, 0, 2]>(r)",
    "windows beside the batch": "s = Reshape(x, windows) m = MatMul(s, w) r = Relu(m) a = Reshape(r, whole)",
    "everything in one axis": "s = Reshape(x, rows) m = MatMul(s, w) r = Relu(m) a = Reshape(r, whole)",
    "heads behind the batch": "s = Reshape(x, heads) t = Transpose<perm = [2, 0, 1, 3]>(s) u = Relu(t)"
    " b = Transpose<perm = [1, 2, 0, 3]>(u) r = Reshape(b, whole) a = MatMul(r, w)",
}


def network(body: str, batch: int | str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (double[{batch},4,6] x) => (double[{batch},3] y)'
        f" {{ {body} p = ReduceMean<keepdims = 0>(a, axis) y = Gemm(p, v, c) }}"
    )
    random = np.random.default_rng(1)
    known = {
        "w": random.normal(size=(6, 6)),
        "v": random.normal(size=(6, 3)),
        "c": random.normal(size=(3,)),
        "axis": np.array([1]),
        "windows": np.array([-1, 2, 6]),
        "rows": np.array([-1, 6]),
        "whole": np.array([-1, 4, 6]),
        "heads": np.array([0, 0, 2, 3]),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in known.items() if n in used)
    return model


@pytest.mark.parametrize("batch", ["N", 3])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("rules", ["abslrp", "abslrp-intline", "relative-lrp"])
def test_a_sample_alone_and_among_others(rules: str, body: str, batch: int | str) -> None:
    together = explained(rules, BODIES[body], batch, X)
    for i in range(3):
        alone = explained(rules, BODIES[body], "N" if batch == "N" else 1, X[i : i + 1])
        assert relative_l2(together[i : i + 1], alone) < 1e-9


def explained(rules: str, body: str, batch: int | str, x: np.ndarray) -> np.ndarray:
    emitted = onnxlrp.convert(network(body, batch), rules=rules, relevance_type="float64")
    return run_reference(to_float64(emitted), {"x": x})["x_relevance"]
