"""Baselines on a linear model, where each of them is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation import baselines as module
from onnxlrp.evaluation.methods import Frame, baseline_method, baselines
from onnxlrp.evaluation.sample import Layout
from tests.evaluation.subjects import Linear

RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(2, 6, 6, 3))
VALUES = RNG.normal(size=(4, 2, 6, 6))
AWAY = RNG.normal(size=(4, 2, 6, 6))
TARGETS = np.array([0, 2, 1, 2])
PICTURE = Layout(1, 2, 0)
PIXELS = np.broadcast_to(np.arange(36).reshape(6, 6), (2, 6, 6))
W = np.moveaxis(WEIGHTS[..., TARGETS], -1, 0)


def frame(baseline: np.ndarray, units: np.ndarray, layout: Layout | None = None) -> Frame:
    """A frame whose samples have the seeds 0, 1, 2 ..."""
    return Frame(baseline, units, np.arange(len(baseline), dtype=np.uint64), layout or Layout())


def linear(weights: np.ndarray) -> Linear:
    flat = weights.reshape(-1, weights.shape[-1])
    return Linear(flat, np.zeros(flat.shape[1]))


def maps(name: str, where: Frame | None = None, **settings: float) -> np.ndarray:
    made = baseline_method(name, settings, False).bind(where or frame(AWAY, PIXELS, PICTURE))
    return made(linear(WEIGHTS)).maps(VALUES, TARGETS, np.arange(4))


def test_the_gradient_of_a_linear_model_is_its_weights() -> None:
    assert np.array_equal(maps("gradient"), W)
    assert maps("smoothgrad", samples=5, noise=0.3) == pytest.approx(W, abs=1e-12)


def test_integrated_gradients_of_a_linear_model_are_weight_times_change() -> None:
    assert maps("integrated-gradients", steps=7) == pytest.approx(W * (VALUES - AWAY), abs=1e-12)


def test_occlusion_of_single_pixels_is_what_their_channels_contribute() -> None:
    found = maps("occlusion", patch=1)
    effect = (W * (VALUES - AWAY)).sum(axis=1, keepdims=True)
    assert found.sum(axis=1, keepdims=True) == pytest.approx(effect, abs=1e-12)
    assert np.array_equal(found[:, 0], found[:, 1]), "a pixel's effect is shared by its channels"


def test_occlusion_averages_windows_that_overlap() -> None:
    effect = (W * (VALUES - AWAY)).sum(axis=1)
    total, times = np.zeros((4, 6, 6)), np.zeros((6, 6))
    for top in (0, 2, 3):
        for left in (0, 2, 3):
            part = effect[:, top : top + 3, left : left + 3].sum(axis=(1, 2)) / (2 * 9)
            total[:, top : top + 3, left : left + 3] += part[:, None, None]
            times[top : top + 3, left : left + 3] += 1
    assert maps("occlusion", patch=3, stride=2)[:, 1] == pytest.approx(total / times, abs=1e-12)


def test_rise_agrees_with_a_regression_on_its_masks_in_order() -> None:
    # The softmax of a linear model is monotone in each unit's effect, so many masks put the largest effect on top.
    weights = np.zeros((8, 2))
    weights[:, 0] = np.linspace(-1, 1, 8)
    where = frame(np.zeros((1, 8)), np.arange(8))
    made = baseline_method("rise", {"masks": 4000}, False).bind(where)(linear(weights))
    found = made.maps(np.ones((1, 8)), np.array([0]), np.array([0]))[0]
    assert (np.argsort(found)[[0, -1]] == [0, 7]).all()
    assert np.corrcoef(found, weights[:, 0])[0, 1] > 0.95


def test_padding_and_special_tokens_are_never_taken_away() -> None:
    units = np.array([[-1, 0, 1, -1]])
    ids = np.array([[7, 8, 9, 0]])
    where = frame(np.full((1, 4), 5), units, Layout(is_token=True, mask_token=5))
    for name in ("random", "occlusion", "rise"):
        made = baseline_method(name, {}, True).bind(where)(linear(RNG.normal(size=(4, 2))))
        found = made.maps(ids, np.array([1]), np.array([0]))[0]
        assert (found[[0, 3]] == 0).all() and (found[[1, 2]] != 0).all(), name


@pytest.mark.parametrize("name", baselines())
def test_maps_depend_neither_on_the_block_nor_on_the_other_samples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = maps(name)
    monkeypatch.setattr(module, "_BLOCK", 200)
    assert maps(name) == pytest.approx(whole, abs=1e-12)
    made = baseline_method(name, {}, False).bind(frame(AWAY, PIXELS, PICTURE))(linear(WEIGHTS))
    one = made.maps(VALUES[2:3], TARGETS[2:3], np.array([2]))
    assert one[0] == pytest.approx(whole[2], abs=1e-12)


def test_chance_gives_another_map_to_a_value_that_is_changed() -> None:
    made = baseline_method("random", {}, False).bind(frame(AWAY, PIXELS, PICTURE))(linear(WEIGHTS))
    rows, targets = np.array([0]), np.array([0])
    first = made.maps(VALUES[:1], targets, rows)
    assert np.array_equal(first, made.maps(VALUES[:1], targets, rows))
    assert not np.allclose(first, made.maps(VALUES[:1] + 1e-6, targets, rows))


def test_what_does_not_exist_or_does_not_fit_is_named() -> None:
    with pytest.raises(UsageError, match="unknown baseline 'occlusio'; did you mean 'occlusion'"):
        baseline_method("occlusio", {}, False)
    with pytest.raises(UsageError, match="rise has no setting 'mask'; there are: masks = 256"):
        baseline_method("rise", {"mask": 3}, False)
    with pytest.raises(UsageError, match=r"smoothgrad needs numbers .* not tokens; use occlusion, random, rise"):
        baseline_method("smoothgrad", {}, True)
