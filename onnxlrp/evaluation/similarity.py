"""How alike are two maps?"""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.smoothing import filtered

#: Of the structural similarity (Wang et al. 2004, section III.B): the two constants, by the range of the values, and
#: the side of the window.
_K1, _K2, _WINDOW = 0.01, 0.03, 7


def pearson(a: Array, b: Array) -> Array:
    """The correlation of two arrays along the last axis; NaN where one of them is constant."""
    a, b = (one - one.mean(axis=-1, keepdims=True) for one in (a, b))
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.asarray(np.divide((a * b).sum(axis=-1), size, out=np.full(size.shape, np.nan), where=size > 0))


def spearman(a: Array, b: Array) -> Array:
    """The rank correlation along the last axis, ties at their mean rank; NaN where one of them is constant."""
    return pearson(*(np.apply_along_axis(ranks, -1, one) for one in (a, b)))


def ranks(values: Array) -> Array:
    """The rank of each of some numbers, [k], from 0; ties have their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[index.reshape(-1)])


def structural_similarity(a: Array, b: Array) -> Array:
    """SSIM of pairs of images [..., height, width], mean over the pixels whose window of 7 x 7 lies inside (Wang et
    al. 2004; uniform windows, sample variances, the range of both images together).

    Returns:
        [...]; 1 where both are the same constant; NaN where an image is smaller than the window.
    """
    if min(a.shape[-2:]) < _WINDOW:
        return np.full(a.shape[:-2], np.nan)
    span = np.maximum(a, b).max(axis=(-2, -1)) - np.minimum(a, b).min(axis=(-2, -1))
    span = np.where(span > 0, span, 1)[..., None, None]
    uniform = np.full(_WINDOW, 1 / _WINDOW)

    def mean(values: Array) -> Array:
        inside = _WINDOW // 2
        return filtered(values, uniform)[..., inside:-inside, inside:-inside]

    ma, mb = mean(a), mean(b)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    va, vb, cov = (
        unbiased * (mean(x * y) - mx * my) for x, y, mx, my in ((a, a, ma, ma), (b, b, mb, mb), (a, b, ma, mb))
    )
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    map_of = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return np.asarray(map_of.mean(axis=(-2, -1)))
