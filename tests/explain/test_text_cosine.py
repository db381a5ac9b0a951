"""The cosine between two embeddings, shared among the tokens of both texts; for sums of rows it can be told by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.explain.text import TextOptions, TextResult, explain_texts
from tests.support.texts import SECOND, TABLE, word_pieces, written

Array = np.ndarray
SIZE = "int64[N,S]"
FIRST, OTHER = [2, 5, 6, 7, 3], [2, 9, 10, 11, 3]
#: A table that the embeddings are sums of, and one that they are averages of.
SUMMED = "e = Gather(table, input_ids) embedding = ReduceSum <keepdims = 0> (e, axis)"


@pytest.fixture
def options(tmp_path: Path) -> TextOptions:
    return TextOptions(word_pieces(tmp_path), similar_to="weather is fine")


def explained(tmp_path: Path, model: Any, options: TextOptions, text: str = "all rules", **asked: Any) -> TextResult:
    (result,) = explain_texts(model, [text], options=options, rules="epsilon", out_dir=tmp_path / "out", **asked)
    return result


def relevance(result: TextResult, k: int) -> Array:
    return np.array([token.relevance for token in result.maps[k].tokens])


def shared(rows: Array, weights: Array, other: Array) -> Array:
    """What each row adds to the cosine between the weighted sum of all rows and another vector."""
    norms = np.linalg.norm(weights @ rows) * np.linalg.norm(other)
    return (rows * weights[:, None]) @ other / norms


def assert_shares(result: TextResult, first: Array, other: Array, weights: Array) -> None:
    u, v = weights @ first, weights @ other
    for k, (rows, against) in enumerate(((first, v), (other, u))):
        np.testing.assert_allclose(relevance(result, k), shared(rows, weights, against), rtol=1e-4, atol=1e-5)
        cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        assert result.maps[k].total == pytest.approx(cosine, rel=1e-4)
        assert result.maps[k].detail == f"cosine {cosine:.4f}"


def test_one_embedding_of_each_text(tmp_path: Path, options: TextOptions) -> None:
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    result = explained(tmp_path, model, options)
    assert_shares(result, TABLE[FIRST], TABLE[OTHER], np.ones(5))
    assert [one.target for one in result.maps] == ["cosine to 'weather is fine'", "cosine to 'all rules'"]
    assert [word.text for word in result.maps[1].words] == ["[CLS]", "weather", "is", "fine", "[SEP]"]
    assert [file.name for file in result.files] == ["text.epsilon.cosine.html", "text.epsilon.cosine.npz"]


@pytest.mark.parametrize("sequence", ["S", 9])
@pytest.mark.parametrize(
    ("pooling", "weights"),
    [(None, np.full(5, 0.2)), ("mean", np.full(5, 0.2)), ("first", np.eye(5)[0]), ("last", np.eye(5)[4])],
)
def test_vectors_of_tokens_are_pooled(
    tmp_path: Path, options: TextOptions, pooling: str | None, weights: Array, sequence: str | int
) -> None:
    model = written("h = Gather(table, input_ids)", f"int64[N,{sequence}] input_ids", f"float[N,{sequence},4] h")
    result = explained(tmp_path, model, replace(options, pooling=pooling))
    assert_shares(result, TABLE[FIRST], TABLE[OTHER], weights)


def test_two_towers_in_one_model(tmp_path: Path, options: TextOptions) -> None:
    nodes = """
      a = Gather(table, a_input_ids) u = ReduceSum <keepdims = 0> (a, axis)
      b = Gather(second, b_input_ids) v = ReduceSum <keepdims = 0> (b, axis)
    """
    model = written(nodes, f"{SIZE} a_input_ids, int64[N,D] b_input_ids", "float[N,4] u, float[N,4] v")
    result = explained(tmp_path, model, options, outputs=["u", "v"])
    assert_shares(result, TABLE[FIRST], SECOND[OTHER], np.ones(5))
    assert [word.text for word in result.maps[1].words] == ["[CLS]", "weather", "is", "fine", "[SEP]"]
    with pytest.raises(UsageError, match="takes 2 texts and 1 embeddings were named"):
        explained(tmp_path, model, options, outputs=["u"])


def test_what_has_no_cosine(tmp_path: Path, options: TextOptions) -> None:
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    with pytest.raises(UsageError, match="needs the original model"):
        explained(tmp_path, onnxlrp.convert(model, rules="epsilon"), options)
    with pytest.raises(UsageError, match="pooling mean does not go with an output of 2 axes"):
        explained(tmp_path, model, replace(options, pooling="mean"))
    for stated in ({"rather_than": 1}, {"target": 0}, {"position": "last"}):
        with pytest.raises(UsageError, match="leave pairs, targets, positions and generate out"):
            explained(tmp_path, model, options, **stated)
    with pytest.raises(UsageError, match="leave the axis out"):
        explained(tmp_path, model, options, axis=1)
    with pytest.raises(UsageError, match="3 outputs were named"):
        explained(tmp_path, model, options, outputs=["a", "b", "c"])
    nothing = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding", table=np.zeros((40, 4)))
    with pytest.raises(UsageError, match="an embedding is zero"):
        explained(tmp_path, nothing, options)
    number = written(f"{SUMMED} y = ReduceSum <keepdims = 0> (embedding, axis)", f"{SIZE} input_ids", "float[N] y")
    with pytest.raises(UsageError, match=r"this one is \[1\]"):
        explained(tmp_path, number, options)


@pytest.mark.parametrize("numbers", [0, 2])
def test_pairs_of_tokens_share_the_cosine(tmp_path: Path, options: TextOptions, numbers: int) -> None:
    """Without layers between, R_ij = x_i . y_j / (|u| |v|), over the numbers that are explained."""
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    result = explained(tmp_path, model, replace(options, pairs_of_tokens=numbers))
    first, other = TABLE[FIRST], TABLE[OTHER]
    u, v = first.sum(0), other.sum(0)
    kept = np.argsort(-np.abs(u * v))[: numbers or None]
    expected = first[:, kept] @ other[:, kept].T / np.linalg.norm(u) / np.linalg.norm(v)
    np.testing.assert_allclose(np.array(result.pairs), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.load(result.files[1])["pairs"], expected, rtol=1e-4, atol=1e-6)
    assert "Pairs of tokens" in result.files[0].read_text("utf-8")


def test_pairs_of_tokens_of_two_towers_add_up_to_the_cosine(tmp_path: Path, options: TextOptions) -> None:
    nodes = """
      a = Gather(table, a_input_ids) u = ReduceSum <keepdims = 0> (a, axis)
      b = Gather(second, b_input_ids) v = ReduceSum <keepdims = 0> (b, axis)
    """
    model = written(nodes, f"{SIZE} a_input_ids, int64[N,D] b_input_ids", "float[N,4] u, float[N,4] v")
    wanted = replace(options, pairs_of_tokens=0)
    result = explained(tmp_path, model, wanted, outputs=["u", "v"])
    assert np.array(result.pairs).shape == (5, 5)
    assert np.array(result.pairs).sum() == pytest.approx(result.maps[0].total, rel=1e-4)
    np.testing.assert_allclose(np.array(result.pairs).sum(1), relevance(result, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.array(result.pairs).sum(0), relevance(result, 1), rtol=1e-4, atol=1e-6)


def test_pairs_of_tokens_need_a_second_text(tmp_path: Path, options: TextOptions) -> None:
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    with pytest.raises(UsageError, match="similar"):
        explained(tmp_path, model, replace(options, similar_to=None, pairs_of_tokens=0))
