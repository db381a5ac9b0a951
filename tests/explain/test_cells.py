"""Pairs of cells of two images; for a linear model each pair's share of the cosine can be told by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.explain.cells import CellPairs, in_cells, pairs_picture, strongest
from onnxlrp.explain.images import explain_images
from onnxlrp.explain.load import read_photo
from onnxlrp.explain.page import Caption
from onnxlrp.explain.preprocess import Frame, ImageOptions, Prepared
from onnxlrp.explain.similar import SimilarTo
from tests.explain.linear import EXACT
from tests.graph.written import network, normal

Array = np.ndarray
W, V = normal(256, 4, seed=1), normal(2, 4, seed=2)
DENSE = "g (float[{batch},1,16,16] photo) => (float[{batch},4] y) {{ f = Flatten(photo) y = MatMul(f, w) }}"
WITH_MORE = """g (float[N,1,16,16] photo, float[N,2] more) => (float[N,4] y)
{ f = Flatten(photo) a = MatMul(f, w) b = MatMul(more, v) y = Add(a, b) }"""


def photo(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def cells(values: Array) -> Array:
    """[256, ...] summed over 8 x 8 cells of 2 x 2 pixels: [64, ...]."""
    return values.reshape(8, 2, 8, 2, -1).sum((1, 3)).reshape(64, -1)


@pytest.mark.parametrize("batch", ["N", 1, 2])
@pytest.mark.parametrize("numbers", [0, 2])
def test_pairs_of_cells_share_the_cosine(tmp_path: Path, batch: str | int, numbers: int) -> None:
    results = explain_images(
        network(DENSE.format(batch=batch), w=W),
        [photo(tmp_path / f"{k}.png", k) for k in range(3)],
        options=ImageOptions(preset="unit"),
        similar_to=SimilarTo(photo(tmp_path / "other.png", 9), pairs=numbers),
        rules=EXACT,
        out_dir=tmp_path,
    )
    y = np.asarray(Image.open(tmp_path / "other.png"), np.float64).ravel() / 255
    for k, result in enumerate(results):
        with np.load(result.files[-1]) as saved:
            x, found = saved["input"].ravel().astype(np.float64), saved["pairs"]
        u, v = x @ W, y @ W
        kept = np.argsort(-np.abs(u * v))[: numbers or None]
        first, other = cells(x[:, None] * W[:, kept]), cells(y[:, None] * W[:, kept])
        expected = first @ other.T / np.linalg.norm(u) / np.linalg.norm(v)
        assert found.shape == (8, 8, 8, 8)
        np.testing.assert_allclose(found.reshape(64, 64), expected, rtol=1e-3, atol=1e-5)
        assert [f.name.removeprefix(f"{k}.gradient-x-input.cosine-other.") for f in result.files] == [
            "png", "overlay.png", "heatmap.png", "pairs.png", "npz",
        ]  # fmt: skip


def test_other_inputs_go_with_both_images(tmp_path: Path) -> None:
    more = normal(1, 2, seed=3)
    (result,) = explain_images(
        network(WITH_MORE, w=W, v=V),
        [photo(tmp_path / "a.png", 1)],
        options=ImageOptions(preset="unit"),
        similar_to=SimilarTo(photo(tmp_path / "b.png", 2), pairs=0),
        data={"more": more},
        rules=EXACT,
        out_dir=tmp_path,
    )
    x, y = (np.asarray(Image.open(tmp_path / name), np.float64).ravel() / 255 for name in ("a.png", "b.png"))
    u, v = x @ W + more[0] @ V, y @ W + more[0] @ V
    with np.load(result.files[-1]) as saved:
        found = saved["pairs"].reshape(64, 64)
    expected = cells(x[:, None] * W) @ cells(y[:, None] * W).T / np.linalg.norm(u) / np.linalg.norm(v)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_pairs_need_two_images_of_one_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pairs are those of two images that one model embeds; the given embedding"):
        explain_images(
            network(DENSE.format(batch="N"), w=W),
            [photo(tmp_path / "a.png", 1)],
            similar_to=SimilarTo(np.ones(4), pairs=0),
        )


def test_cells_of_uneven_sizes_hold_every_pixel_once() -> None:
    maps = normal(2, 19, 5)
    found = in_cells(maps)
    assert found.shape == (2, 8, 5)
    np.testing.assert_allclose(found.sum((1, 2)), maps.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 0, 0], maps[:, :2, 0].sum(1), rtol=1e-6)


def test_the_strongest_pairs_are_those_of_the_largest_size() -> None:
    values = np.zeros((2, 2, 1, 2))
    values[0, 1, 0, 0], values[1, 1, 0, 1] = -3.0, 2.0
    assert strongest(values, 3) == [(0, 1, 0, 0), (1, 1, 0, 1)]


def test_lines_run_between_the_cells_in_their_colours(tmp_path: Path) -> None:
    """A line of the picture crosses the gap between both photos where the cells say, red or blue."""
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    frame = Frame((16, 16), (16, 16), (16, 16), 0, 0)
    prepared = Prepared(read_photo(tmp_path / "a.png"), np.zeros((1, 16, 16)), frame)
    for sign, strong in ((1.0, 0), (-1.0, 2)):
        values = np.zeros((2, 2, 2, 2))
        values[0, 0, 0, 1], values[1, 0, 1, 0] = sign, 0.5 * sign
        made = np.asarray(pairs_picture(prepared, CellPairs(prepared, values), Caption("x"))).astype(int)
        gap = made[:, 40 + 448 + 60]  # halfway between the photos
        coloured = np.flatnonzero(np.ptp(gap, axis=1) > 60)
        assert (gap[coloured].argmax(1) == strong).all()
        rows = np.split(coloured, np.flatnonzero(np.diff(coloured) > 1) + 1)
        assert len(rows) == 2
        middle = [float(np.mean(r)) for r in rows]
        assert middle[1] - middle[0] == pytest.approx(224, abs=3)
        assert len(rows[0]) > len(rows[1])
    nothing = pairs_picture(prepared, CellPairs(prepared, np.zeros((2, 2, 2, 2))), Caption("x"))
    assert nothing.size[0] == made.shape[1]
