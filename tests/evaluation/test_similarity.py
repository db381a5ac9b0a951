"""Correlations and structural similarity, against loops over pairs and pixels."""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.similarity import pearson, ranks, spearman, structural_similarity
from onnxlrp.evaluation.smoothing import blurred


def _slow_ssim(a: Array, b: Array) -> float:
    span = max(a.max(), b.max()) - min(a.min(), b.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = []
    for y in range(a.shape[0] - 6):
        for x in range(a.shape[1] - 6):
            p, q = a[y : y + 7, x : x + 7].ravel(), b[y : y + 7, x : x + 7].ravel()
            (vp, cov), (_, vq) = np.cov(p, q)
            top = (2 * p.mean() * q.mean() + c1) * (2 * cov + c2)
            found.append(top / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (vp + vq + c2)))
    return float(np.mean(found))


def test_structural_similarity() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 9, 11))
    b = a + 0.3 * b
    np.testing.assert_allclose(structural_similarity(a, b), [_slow_ssim(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(structural_similarity(a, a), 1)
    np.testing.assert_allclose(structural_similarity(0 * a, 0 * a), 1)
    assert np.all(np.isnan(structural_similarity(a[:, :6], b[:, :6])))


def test_ranks_of_ties_are_their_mean() -> None:
    np.testing.assert_array_equal(ranks(np.asarray([3.0, 1.0, 3.0, 2.0, 3.0])), [3, 0, 3, 1, 3])


def test_correlations() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 2, 30))
    np.testing.assert_allclose(pearson(a, b), [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])
    orders = [np.argsort(np.argsort(one, axis=-1), axis=-1) for one in (a, b)]
    np.testing.assert_allclose(spearman(a, b), [np.corrcoef(x, y)[0, 1] for x, y in zip(*orders, strict=True)])
    np.testing.assert_allclose(spearman(a, np.exp(a)), 1)
    assert np.isnan(pearson(np.ones(4), np.arange(4.0)))


def test_blur_is_the_weighted_mean_of_the_neighbours() -> None:
    image = np.random.default_rng(0).normal(size=(2, 6, 5))
    smooth = blurred(image, 0.8)
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 0.8) ** 2)
    expected, total = 0.0, 0.0
    for i, down in enumerate(range(-3, 4)):
        for j, right in enumerate(range(-3, 4)):
            y, x = min(max(4 + down, 0), 5), min(max(1 + right, 0), 4)
            expected += weights[i] * weights[j] * image[1, y, x]
            total += weights[i] * weights[j]
    np.testing.assert_allclose(smooth[1, 4, 1], expected / total)
    np.testing.assert_allclose(blurred(np.full((1, 4, 4), 2.5), 5), 2.5)
