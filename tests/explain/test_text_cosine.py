"""The cosine between two embeddings, shared among the tokens of both texts; for sums of rows it can be told by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.similar import SimilarTo
from onnxlrp.explain.text import TextOptions, TextResult, explain_texts
from tests.support.texts import SECOND, TABLE, word_pieces, written

Array = np.ndarray
SIZE = "int64[N,S]"
FIRST, OTHER = [2, 5, 6, 7, 3], [2, 9, 10, 11, 3]
#: A table that the embeddings are sums of, and one that they are averages of.
SUMMED = "e = Gather(table, input_ids) embedding = ReduceSum <keepdims = 0> (e, axis)"


@pytest.fixture
def options(tmp_path: Path) -> TextOptions:
    return TextOptions(word_pieces(tmp_path), similar_to=SimilarTo("weather is fine"))


def explained(tmp_path: Path, model: Any, options: TextOptions, text: str = "all rules", **asked: Any) -> TextResult:
    (result,) = explain_texts(model, [text], options=options, rules="epsilon", out_dir=tmp_path / "out", **asked)
    return result


def pooled(options: TextOptions, pooling: str | None) -> TextOptions:
    return replace(options, similar_to=SimilarTo("weather is fine", pooling=pooling))


def in_pairs(options: TextOptions, numbers: int) -> TextOptions:
    return replace(options, similar_to=SimilarTo("weather is fine", pairs=numbers))


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
    result = explained(tmp_path, model, pooled(options, pooling))
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
        explained(tmp_path, model, pooled(options, "mean"))
    for stated in ({"rather_than": 1}, {"target": 0}, {"position": "last"}):
        with pytest.raises(UsageError, match="leave pairs, targets, positions and generate out"):
            explained(tmp_path, model, options, **stated)
    with pytest.raises(UsageError, match="leave target, axis, position and rather-than out"):
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
    result = explained(tmp_path, model, in_pairs(options, numbers))
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
    wanted = in_pairs(options, 0)
    result = explained(tmp_path, model, wanted, outputs=["u", "v"])
    assert np.array(result.pairs).shape == (5, 5)
    assert np.array(result.pairs).sum() == pytest.approx(result.maps[0].total, rel=1e-4)
    np.testing.assert_allclose(np.array(result.pairs).sum(1), relevance(result, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.array(result.pairs).sum(0), relevance(result, 1), rtol=1e-4, atol=1e-6)


def test_a_text_and_an_embedding_that_is_there_already(tmp_path: Path, options: TextOptions) -> None:
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    other = np.array([0.5, -1.0, 2.0, 0.25])
    np.save(tmp_path / "other.npy", other)
    np.savez(tmp_path / "other.npz", explained_output=other[None], unrelated=np.zeros(3))
    expected = shared(TABLE[FIRST], np.ones(5), other)
    for what in (other, str(tmp_path / "other.npy"), tmp_path / "other.npz"):
        result = explained(tmp_path, model, replace(options, similar_to=SimilarTo(what)))
        assert len(result.maps) == 1 and result.pair is None
        np.testing.assert_allclose(relevance(result, 0), expected, rtol=1e-4, atol=1e-5)
        with np.load(result.files[1]) as saved:
            np.testing.assert_allclose(saved["cosine"], expected.sum(), rtol=1e-4)
            np.testing.assert_allclose(saved["embeddings"], [TABLE[FIRST].sum(0), other], rtol=1e-5)
    assert result.maps[0].target == "cosine to other.npz"


@pytest.mark.parametrize("pooled_by_other", [False, True])
def test_towers_in_two_files(tmp_path: Path, options: TextOptions, pooled_by_other: bool) -> None:
    """The second text goes through a model of its own, whose vectors of tokens are averaged if it has these."""
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    nodes, kind = ("v = Gather(second, input_ids)", "float[N,S,4] v") if pooled_by_other else (
        "e = Gather(second, input_ids) v = ReduceSum <keepdims = 0> (e, axis)", "float[N,4] v")  # fmt: skip
    (tmp_path / "other.onnx").write_bytes(written(nodes, f"{SIZE} input_ids", kind).SerializeToString())
    similar = SimilarTo("weather is fine", tmp_path / "other.onnx", tokenizer=options.tokenizer)
    result = explained(tmp_path, model, replace(options, similar_to=similar))
    expected = shared(TABLE[FIRST], np.ones(5), SECOND[OTHER].sum(0))
    np.testing.assert_allclose(relevance(result, 0), expected, rtol=1e-4, atol=1e-5)
    assert result.maps[0].target == "cosine to 'weather is fine'"


@pytest.mark.parametrize(
    ("similar", "message"),
    [
        (SimilarTo(np.ones(3)), "embeddings of 4 and 3 numbers have no cosine"),
        (SimilarTo("photo.png"), "photo.png needs another model that embeds it"),
        (SimilarTo("none.npy"), "none.npy: cannot be read"),
        (SimilarTo("a b", output="v"), "the other output is one of the other model"),
        (SimilarTo(np.ones(4), model="x.onnx"), "is an embedding already: leave the other model out"),
        (SimilarTo("a b", model="none.onnx"), "none.onnx"),
        (
            SimilarTo(np.ones(4), pairs=0),
            "pairs are those of two texts that one model embeds; the given embedding is none",
        ),
        (SimilarTo("a b", model="none.onnx", pairs=0), "pairs are those of two texts that one model embeds"),
    ],
)
def test_what_nothing_can_be_compared_with(
    tmp_path: Path, options: TextOptions, similar: SimilarTo, message: str
) -> None:
    model = written(SUMMED, f"{SIZE} input_ids", "float[N,4] embedding")
    with pytest.raises(OnnxLrpError, match=message):
        explained(tmp_path, model, replace(options, similar_to=similar))
    assert not (tmp_path / "out").exists()
