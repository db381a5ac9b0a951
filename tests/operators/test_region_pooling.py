"""Maxima over regions: each goes to its winner, and winners of several regions add."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import onnxlrp
from tests.operators.examples import GRADIENT
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient, distinct
from tests.support.models import Net

#: Batch index and corners: the whole picture, a part of it, one beyond its border, and one that lies outside.
REGIONS = np.array([[0, 0, 0, 3, 4], [1, 1, 1, 2, 3], [0, 2, 2, 6, 6], [1, 9, 9, 11, 11]], np.float64)


def _model(scale: float, dtype: type = np.float64, height: int | str = 5) -> ModelProto:
    net = Net(dtype)
    x = net.input("a", (2, 2, height, 4))
    pooled = net.op(
        "MaxRoiPool", x, net.constant(REGIONS / [1, *[scale] * 4]), pooled_shape=[2, 3], spatial_scale=scale
    )
    return net.model(pooled, ranks=[4])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_derivatives(scale: float) -> None:
    model, a = _model(scale), distinct(2, 2, 5, 4, seed=1)
    explained = explain_seeded(model, GRADIENT, {"a": a})
    run, y = reference(to_float64(model)), model.graph.output[0].name
    gradient = central_gradient(lambda at: float((explained.seed * run(at)[y]).sum()), {"a": a}, "a")
    assert relative_l2(explained.relevance["a"], a * gradient) < 1e-9
    assert not explained.y[3].any()


@pytest.mark.parametrize("height", [5, "h"])
def test_all_goes_to_winners_in_onnxruntime(height: int | str) -> None:
    emitted = onnxlrp.convert(_model(1.0, np.float32, height), rules="epsilon", target="seed")
    a, seed = distinct(2, 2, 5, 4, seed=1), distinct(4, 2, 2, 3, seed=2)
    expected = explain_seeded(_model(1.0), "epsilon", {"a": a}, seed=seed).relevance["a"]
    found = run_onnxruntime(emitted, {"a": a.astype(np.float32), "lrp_seed": seed.astype(np.float32)})
    assert relative_l2(found["a_relevance"], expected) < 1e-5


def test_regions_receive_nothing() -> None:
    net = Net()
    x, regions = net.input("a", (2, 2, 5, 4)), net.input("rois", (4, 5))
    model = net.model(net.op("MaxRoiPool", x, regions, pooled_shape=[2, 3]), ranks=[4])
    explained = explain_seeded(model, "epsilon", {"a": distinct(2, 2, 5, 4, seed=1), "rois": REGIONS})
    assert set(explained.relevance) == {"a"}
    assert float(explained.relevance["a"].sum()) == pytest.approx(float(explained.seeded.sum()))
