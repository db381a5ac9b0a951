"""The cosine between the embedding of an image and another one; for linear models it can be told by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.explain.embedding import pool_for, read_embedding
from onnxlrp.explain.images import explain_images
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.similar import SimilarTo
from tests.explain.linear import EXACT
from tests.explain.test_images import quadrant
from tests.graph.written import network, normal
from tests.support.texts import SECOND, word_pieces, written

Array = np.ndarray
OTHER = np.array([0.5, -1.0, 2.0, 0.25])
W, K = normal(256, 4, seed=1), normal(4, 1, 3, 3, seed=2)
DENSE = "g (float[N,1,16,16] photo) => (float[N,4] y) { f = Flatten(photo) y = MatMul(f, w) }"
MAP = "g (float[N,1,16,16] photo) => (float[N,4,16,16] y) { y = Conv <pads = [1, 1, 1, 1]> (photo, k) }"
TOKENS = """g (float[N,1,16,16] photo) => (float[N,16,4] y)
<int64[3] shape = {0, 16, 16}> { r = Reshape(photo, shape) y = MatMul(r, rows) }"""
ROWS = normal(16, 4, seed=3)


def explained(tmp_path: Path, model: Any, similar: SimilarTo, count: int = 1, **asked: Any) -> list[Any]:
    return explain_images(
        model,
        [quadrant(tmp_path / f"{k}.png", k) for k in range(count)],
        options=ImageOptions(preset="unit"),
        similar_to=similar,
        rules=EXACT,
        out_dir=tmp_path / "out",
        **asked,
    )


def seen(result: Any) -> dict[str, Array]:
    with np.load(result.files[-1]) as saved:
        return dict(saved)


def cosine_gradient(matrix: Array, image: Array, other: Array) -> tuple[Array, float]:
    """Input times the gradient of the cosine, norms held, of an embedding image @ matrix; and the cosine."""
    vector = image.ravel() @ matrix
    norms = np.linalg.norm(vector) * np.linalg.norm(other)
    return image.ravel() * (matrix @ other) / norms, float(vector @ other / norms)


def averaged(convolution: Array) -> Array:
    """[256, 4]: what the mean over a padded convolution with a 3 x 3 kernel is, pixel by pixel."""
    matrix = np.zeros((16, 16, 4))
    for y in range(16):
        for x in range(16):
            for i in range(3):
                for j in range(3):
                    if 0 <= y - i + 1 < 16 and 0 <= x - j + 1 < 16:
                        matrix[y, x] += convolution[:, 0, i, j] / 256
    return matrix.reshape(256, 4)


@pytest.mark.parametrize(
    ("text", "weights", "matrix"),
    [
        (DENSE, {"w": W}, W),
        (MAP, {"k": K}, averaged(K)),
        (TOKENS, {"rows": ROWS}, np.tile(ROWS, (16, 1)) / 16),
    ],
    ids=["vector", "map", "tokens"],
)
def test_images_and_an_embedding(tmp_path: Path, text: str, weights: dict[str, Array], matrix: Array) -> None:
    """Each image of a batch has its own norm."""
    results = explained(tmp_path, network(text, **weights), SimilarTo(OTHER), count=3)
    for result in results:
        found = seen(result)
        expected, cosine = cosine_gradient(matrix, found["input"], OTHER)
        np.testing.assert_allclose(found["relevance"].ravel(), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["relevance"].sum(), cosine, rtol=1e-4)
        assert result.target == "cosine to the given embedding" and not result.top
        assert result.detail == f"cosine {cosine:.4f}"


def test_the_first_of_the_vectors_of_tokens(tmp_path: Path) -> None:
    (result,) = explained(tmp_path, network(TOKENS, rows=ROWS), SimilarTo(OTHER, pooling="first"))
    found = seen(result)
    expected, _ = cosine_gradient(ROWS, found["input"][0, 0], OTHER)
    np.testing.assert_allclose(found["relevance"][0, 0], expected, rtol=1e-4, atol=1e-6)
    assert not found["relevance"][0, 1:].any()


def test_two_images_through_one_model(tmp_path: Path) -> None:
    other = quadrant(tmp_path / "other.png", 3)
    (result,) = explained(tmp_path, network(DENSE, w=W), SimilarTo(other))
    (itself,) = explain_images(network(DENSE, w=W), [other], options=ImageOptions(preset="unit"), out_dir=tmp_path)
    expected, _ = cosine_gradient(W, seen(result)["input"], seen(itself)["explained_output"])
    np.testing.assert_allclose(seen(result)["relevance"].ravel(), expected, rtol=1e-4, atol=1e-6)
    assert result.target == "cosine to other.png"
    assert result.files[0].name == "0.gradient-x-input.cosine-other.png"
    (again,) = explained(tmp_path, network(DENSE, w=W), SimilarTo(itself.files[-1]))  # what explain writes serves too
    np.testing.assert_allclose(seen(again)["relevance"], seen(result)["relevance"], rtol=1e-5, atol=1e-7)


def test_an_image_and_a_text_with_a_file_for_each_tower(tmp_path: Path) -> None:
    nodes = "e = Gather(second, input_ids) u = Identity(table) v = ReduceSum <keepdims = 0> (e, axis)"
    onnx.save(written(nodes, "int64[N,S] input_ids", "float[40,4] u, float[N,4] v"), tmp_path / "text.onnx")
    similar = SimilarTo("weather is fine", tmp_path / "text.onnx", "v", word_pieces(tmp_path))
    (result,) = explained(tmp_path, network(DENSE, w=W), similar)
    expected, _ = cosine_gradient(W, seen(result)["input"], SECOND[[2, 9, 10, 11, 3]].sum(0))
    np.testing.assert_allclose(seen(result)["relevance"].ravel(), expected, rtol=1e-4, atol=1e-6)
    assert result.target == "cosine to 'weather is fine'"


def test_which_output_of_another_model_is_the_embedding_is_not_guessed(tmp_path: Path) -> None:
    """The vectors of tokens before they are projected are often as wide as the embedding."""
    nodes = "h = Gather(table, input_ids) v = ReduceMean <keepdims = 0> (h, axis)"
    onnx.save(written(nodes, "int64[N,S] input_ids", "float[N,S,4] h, float[N,4] v"), tmp_path / "text.onnx")
    similar = SimilarTo("weather is fine", tmp_path / "text.onnx", tokenizer=word_pieces(tmp_path))
    with pytest.raises(UsageError, match=r"2 outputs made of floats: h \[1, 5, 4\], v \[1, 4\]; name the one"):
        explained(tmp_path, network(DENSE, w=W), similar)


@pytest.mark.parametrize(
    ("similar", "asked", "message"),
    [
        (SimilarTo(OTHER), {"target": 1}, "what is explained is the cosine: leave target"),
        (SimilarTo(OTHER), {"mask": "mask.png"}, "a mask and a cosine are both what is explained"),
        (SimilarTo(OTHER[:3]), {}, "embeddings of 4 and 3 numbers have no cosine"),
        (SimilarTo("a fine text"), {}, "the model takes images: name another model that embeds the text 'a fine text'"),
        (SimilarTo("none.png"), {}, "none.png"),
        (SimilarTo(np.zeros(4)), {}, "an embedding is zero"),
        (SimilarTo(OTHER, pooling="mean"), {}, "pooling mean does not go with an output of 2 axes"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, similar: SimilarTo, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explained(tmp_path, network(DENSE, w=W), similar, **asked)
    assert not (tmp_path / "out").exists()


def test_the_cosine_needs_the_original_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the cosine needs the original model"):
        explain_images(
            onnxlrp.convert(network(DENSE, w=W)), [quadrant(tmp_path / "a.png", 0)], similar_to=SimilarTo(OTHER)
        )


def test_a_map_of_channels_last_is_pooled_over_its_places() -> None:
    output = normal(2, 3, 5, 4)
    np.testing.assert_allclose(pool_for(None, output.shape, axis=3).vectors(output), output.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(pool_for(None, output.shape, axis=1).vectors(output), output.mean((2, 3)), rtol=1e-6)


def test_a_seed_on_the_output_picks_the_embedding_along_a_direction() -> None:
    for shape, axis in (((2, 4), 1), ((2, 5, 4), 1), ((2, 4, 3, 5), 1), ((2, 3, 5, 4), 3)):
        output, directions = normal(*shape, seed=4).astype(np.float64), normal(2, 4, seed=5)
        pool = pool_for(None, shape, axis=axis)
        picked = (pool.seeds(shape, directions) * output).reshape(2, -1).sum(1)
        np.testing.assert_allclose(picked, (pool.vectors(output) * directions).sum(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones(2), "b": np.ones(2)}, "an embedding is called embedding or explained_output"),
        ({"a": np.ones((2, 2))}, r"an embedding is one vector of numbers; this is float64 \[2, 2\]"),
    ],
)
def test_files_that_hold_no_embedding(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        read_embedding(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("what", "kind"),
    [("a b.png", "text"), ("b.png", "image"), ("b.npy", "embedding"), ("node.js", "text"), (Path("x"), "image")],
)
def test_what_ends_like_a_file_without_spaces_is_one(what: str | Path, kind: str) -> None:
    assert SimilarTo(what).kind == kind
