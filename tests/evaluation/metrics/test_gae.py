"""GAE against numbers of the authors' released code, and where its parts are known by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array, Case
from onnxlrp.evaluation.metrics.gae import gae
from onnxlrp.evaluation.registry import Parts
from tests.evaluation import subjects

LIKELY = {"likely": 1.0}
DRAWN = {"likely": 0.0}
FIXTURES = Path(__file__).parent.parent / "fixtures"


class Network:
    """gae.onnx in float64: convolution, ReLU, pairs of maxima, convolution, ReLU, means, a linear layer."""

    layers = 3

    def __init__(self, path: Path) -> None:
        tensors = [numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(path).graph.initializer]
        self.w1, self.b1, self.w2, self.b2, self.w3, self.b3 = tensors

    def scores(self, values: Array, rows: Array) -> Array:
        return self._forward(values)[-1]

    def gradients(self, values: Array, targets: Array, rows: Array) -> Array:
        first, pooled, second, _ = self._forward(values)
        back = self.w3[targets].reshape(len(values), -1, 2, 2).repeat(4, 2).repeat(4, 3) / 16
        back = _convolved_back(back * (second > 0), self.w2)
        windows = first.reshape(*first.shape[:2], 8, 2, 8, 2).transpose(0, 1, 2, 4, 3, 5).reshape(*pooled.shape, 4)
        won = np.eye(4)[windows.argmax(axis=-1)] * back[..., None]
        won = won.reshape(*pooled.shape, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(first.shape)
        return _convolved_back(won * (first > 0), self.w1)

    def randomised(self, layers: int, seed: int) -> Network:
        raise NotImplementedError

    def _forward(self, values: Array) -> tuple[Array, Array, Array, Array]:
        first = np.maximum(_convolved(values, self.w1) + self.b1[:, None, None], 0)
        pooled = first.reshape(*first.shape[:2], 8, 2, 8, 2).max(axis=(3, 5))
        second = np.maximum(_convolved(pooled, self.w2) + self.b2[:, None, None], 0)
        means = second.reshape(*second.shape[:2], 2, 4, 2, 4).mean(axis=(3, 5)).reshape(len(values), -1)
        return first, pooled, second, means @ self.w3.T + self.b3


def _convolved(values: Array, weights: Array) -> Array:
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, weights, optimize=True))


def _convolved_back(values: Array, weights: Array) -> Array:
    return _convolved(values, weights[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    with np.load(FIXTURES / "gae.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(FIXTURES / "gae.onnx")


def _case(known: dict[str, Any], network: Network, name: str) -> Case:
    weighted = subjects.Attributes(lambda values, targets, rows: values * known["pattern"])
    make = subjects.gradient_x_input if name == "gradient_x_input" else lambda subject: weighted
    return subjects.make_case(known["images"].astype(np.float64), network, make, labels=known["labels"])


def _numbers(parts: Parts, name: str) -> Array:
    """Those of the mosaics, which stand at their positive samples."""
    numbers = parts[name]
    assert np.all((~np.isnan(numbers)).reshape(-1, 4).sum(axis=1) == 1)
    return numbers[~np.isnan(numbers)]


def test_the_network_of_the_test_has_the_right_gradient(known: dict[str, Any], network: Network) -> None:
    values, rows = known["images"][:2].astype(np.float64), np.arange(2)
    gradient = network.gradients(values, np.asarray([1, 4]), rows)
    direction = np.random.default_rng(0).normal(size=values.shape)
    ahead, behind = (network.scores(values + step * direction, rows)[rows, [1, 4]] for step in (1e-6, -1e-6))
    np.testing.assert_allclose((ahead - behind) / 2e-6, np.sum(gradient * direction, axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("name", ["gradient_x_input", "fixed_pattern"])
def test_numbers_of_the_released_code(known: dict[str, Any], network: Network, name: str) -> None:
    parts = gae(_case(known, network, name), LIKELY)
    for part in ("local-consistency", "contrastiveness", "gae"):
        expected = known[f"{name}_{part.replace('-', '_')}"]
        np.testing.assert_allclose(_numbers(parts, part), expected, rtol=1e-5, err_msg=part)


def test_a_map_that_never_changes_is_not_robust(known: dict[str, Any], network: Network) -> None:
    """Scores change while elements are masked and the map does not: the distance of the two is 1."""
    pattern = np.broadcast_to(np.abs(known["pattern"]), known["images"].shape)
    case = replace(_case(known, network, "fixed_pattern"), method=subjects.constant(pattern)(network))
    parts = gae(case, LIKELY)
    np.testing.assert_allclose(_numbers(parts, "robustness"), -1)
    assert np.all(_numbers(parts, "gae") == 0)
    assert np.all(np.abs(_numbers(parts, "faithfulness")) <= 1)


def test_a_mosaic_does_not_depend_on_its_neighbours(known: dict[str, Any], network: Network) -> None:
    case = _case(known, network, "gradient_x_input")
    for settings in (LIKELY, DRAWN):
        whole = gae(case, settings)
        last = gae(subjects.part_of(case, slice(8, 16)), settings)
        for name, numbers in whole.items():
            np.testing.assert_allclose(numbers[8:], last[name], rtol=1e-9, err_msg=name)


def test_the_positive_image_is_drawn_by_the_sample_s_seed(known: dict[str, Any], network: Network) -> None:
    case = _case(known, network, "gradient_x_input")
    drawn = [
        tuple(np.flatnonzero(~np.isnan(gae(replace(case, seeds=case.seeds + run), DRAWN)["gae"])))
        for run in (0, 0, 5, 10, 15)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_without_labels_cells_are_scored_by_the_predictions(known: dict[str, Any], network: Network) -> None:
    case = _case(known, network, "gradient_x_input")
    predicted = network.scores(case.values, case.rows).argmax(axis=1)
    by_prediction = gae(replace(case, labels=predicted), LIKELY)["gae"]
    np.testing.assert_array_equal(gae(replace(case, labels=None), LIKELY)["gae"], by_prediction)
    np.testing.assert_array_equal(gae(replace(case, labels=np.full(16, -1)), LIKELY)["gae"], by_prediction)


@pytest.mark.filterwarnings("error")
def test_a_label_without_any_probability_cannot_be_scored() -> None:
    steep = subjects.Linear(np.asarray([[1e6, -1e6]]).repeat(64, axis=0), np.zeros(2))
    values = np.abs(subjects.images(4, channels=1, size=8))
    parts = gae(subjects.make_case(values, steep, labels=np.ones(4, np.int64)), LIKELY)
    assert np.isnan(parts["gae"]).all()
    assert not np.isnan(parts["local-consistency"]).all()


def test_images_of_odd_size() -> None:
    values = subjects.images(4, channels=1, size=5)
    parts = gae(subjects.make_case(values, subjects.two_layer(25)), LIKELY)
    assert np.all(np.isfinite(_numbers(parts, "gae")))


def test_what_it_cannot_judge() -> None:
    network = subjects.linear(12)
    with pytest.raises(UsageError, match="needs images"):
        gae(subjects.make_case(np.ones((4, 12)), network), LIKELY)
    with pytest.raises(UsageError, match="groups of 4, not 3"):
        gae(subjects.make_case(np.ones((3, 3, 2, 2)), network), LIKELY)
    with pytest.raises(UsageError, match="real numbers"):
        gae(subjects.make_case(np.ones((4, 6), np.int64), subjects.Tokens(np.ones((2, 3)))), LIKELY)
