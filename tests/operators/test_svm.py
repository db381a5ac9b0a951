"""Support vector machines against their formula in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.operators.test_classical import X, expect
from tests.support.classical import labels, ml_model, ml_node, scores
from tests.support.evaluate import relative_l2, run_onnxruntime

Array = np.ndarray
VECTORS = np.array([[1.0, 0.5, -1.0], [0.0, 2.0, 0.25], [-0.5, 1.0, 1.5]])
COEFFICIENTS = np.array([0.7, -0.4, 1.2])
RHO = 0.15
KERNELS: dict[str, tuple[list[float], Callable[[Array], Array]]] = {
    "LINEAR": ([0.0, 0.0, 0.0], lambda x: x @ VECTORS.T),
    "RBF": ([0.5, 0.0, 0.0], lambda x: np.exp(-0.5 * ((x[:, None] - VECTORS) ** 2).sum(axis=2))),
    "POLY": ([0.5, 0.2, 3.0], lambda x: (0.5 * x @ VECTORS.T + 0.2) ** 3),
    "SIGMOID": ([0.5, 0.2, 0.0], lambda x: np.tanh(0.5 * x @ VECTORS.T + 0.2)),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_regression(kernel: str) -> None:
    parameters, function = KERNELS[kernel]
    node = ml_node(
        "SVMRegressor",
        "x",
        "y",
        kernel_type=kernel,
        kernel_params=parameters,
        n_supports=3,
        support_vectors=VECTORS.ravel().tolist(),
        coefficients=COEFFICIENTS.tolist(),
        rho=[RHO],
    )
    model = ml_model(node, width=3)
    whole = lambda x: (function(x) @ COEFFICIENTS + RHO)[:, None]  # noqa: E731
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], whole(X)) < 1e-5, "what onnxruntime computes"
    expect(model, whole)


def test_regression_without_support_vectors_is_linear() -> None:
    linear = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0], "n_supports": 0}
    node = ml_node("SVMRegressor", "x", "y", coefficients=[1.0, -2.0, 0.5], rho=[RHO], **linear)
    expect(ml_model(node, width=3), lambda x: (x @ [1.0, -2.0, 0.5])[:, None] + RHO)


def _classifier(kernel: str, kind: str, **more: object) -> ModelProto:
    given = {
        "classlabels_ints": [0, 1],
        "vectors_per_class": [2, 1],
        "support_vectors": VECTORS.ravel().tolist(),
        "coefficients": COEFFICIENTS.tolist(),
        "rho": [RHO],
        "post_transform": kind,
        **more,
    }
    node = ml_node("SVMClassifier", "x", "label y", kernel_type=kernel, kernel_params=KERNELS[kernel][0], **given)
    return ml_model(node, width=3, outputs=(labels(), scores()))


@pytest.mark.parametrize("kind", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("kernel", ["LINEAR", "RBF"])
def test_two_classes(kernel: str, kind: str) -> None:
    model, function = _classifier(kernel, kind), KERNELS[kernel][1]

    def raw(x: Array) -> Array:
        s = function(x) @ COEFFICIENTS + RHO
        return np.stack([1 - s if kind == "SOFTMAX" else -s, s], axis=1)

    shown = 1 / (1 + np.exp(-raw(X))) if kind == "LOGISTIC" else raw(X)
    assert relative_l2(run_onnxruntime(model, {"x": X})["y"], shown) < 1e-5, "what onnxruntime computes"
    expect(model, raw)


def test_several_classes_are_decided_pair_by_pair() -> None:
    """The rows of coefficients are those of libsvm: for a vector of class i, row j - 1 is about j > i and row j about
    j < i.
    """
    rng = np.random.default_rng(0)
    counts, vectors, rows = [2, 1, 3], rng.normal(size=(6, 3)), rng.normal(size=(2, 6))
    made = _classifier(
        "LINEAR",
        "NONE",
        classlabels_ints=[0, 1, 2],
        vectors_per_class=counts,
        support_vectors=vectors.ravel().tolist(),
        coefficients=rows.ravel().tolist(),
        rho=[0.1, 0.2, 0.3],
    )
    owner = np.repeat([0, 1, 2], counts)

    def pairs(x: Array) -> Array:
        kernel, found = x @ vectors.T, []
        for rho, (i, j) in zip([0.1, 0.2, 0.3], [(0, 1), (0, 2), (1, 2)], strict=True):
            found.append(kernel @ (rows[j - 1] * (owner == i) + rows[i] * (owner == j)) + rho)
        return np.stack(found, axis=1)

    assert relative_l2(run_onnxruntime(made, {"x": X})["y"], pairs(X)) < 1e-5, "what onnxruntime computes"
    expect(made, pairs)


def test_fitted_probabilities_are_refused() -> None:
    made = _classifier("LINEAR", "NONE", prob_a=[-1.0], prob_b=[0.1])
    with pytest.raises(ConversionError, match="probabilities fitted to decisions"):
        onnxlrp.convert(made, rules="epsilon")
