"""Quantised networks: relevance passes straight through, as if the real numbers had never been rounded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxlrp
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime
from tests.support.gradients import central_gradient
from tests.support.quantised import FORMATS, SHAPE, float_network, quantise, straight

Array = np.ndarray
DATA = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)
SEED = np.random.default_rng(8).normal(size=(1, 5)).astype(np.float32)


@pytest.fixture(scope="module", params=FORMATS)
def quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return quantise(float_network(), request.param, tmp_path_factory.mktemp(request.param))


def _relevance(model: onnx.ModelProto, rules: str) -> Array:
    emitted = onnxlrp.convert(model, rules=rules, target="seed")
    return run_onnxruntime(emitted, {"x": DATA, "lrp_seed": SEED})["x_relevance"]


def test_the_derivative_is_that_of_the_network_with_its_rounding_held_constant(quantised: onnx.ModelProto) -> None:
    replica = straight(quantised, DATA)
    gradient = central_gradient(lambda at: float((SEED * replica(at["x"])).sum()), {"x": DATA.astype(float)}, "x")
    assert relative_l2(_relevance(quantised, "gradient-x-input"), DATA * gradient) < 1e-5


@pytest.mark.parametrize("rules", ["gradient-x-input", "default", "epsilon-plus"])
def test_relevance_is_close_to_that_of_the_float_network(quantised: onnx.ModelProto, rules: str) -> None:
    assert cosine(_relevance(quantised, rules), _relevance(float_network(), rules)) > 0.99


@pytest.mark.parametrize("rules", ["gradient-x-input", "epsilon", "default"])
def test_the_ledger_closes(quantised: onnx.ModelProto, rules: str) -> None:
    report = onnxlrp.verify(quantised, {"x": DATA}, rules=rules)
    checks = {check.name: check for check in report.checks}
    assert checks["ledger"].passed, report
    assert all(check.passed for name, check in checks.items() if name.startswith("forward"))
