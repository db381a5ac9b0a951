"""Positions as a sink of relevance, on tokens with learned positions before a layer of attention."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.run.explainer import Explainer
from onnxlrp.tables import parse_table
from tests.support.gradients import distinct
from tests.support.models import Net


def _model() -> tuple[onnx.ModelProto, str]:
    """softmax((x Q) (x K)^T) (x V) of x = word[ids] + position; and the name of x."""
    net = Net(np.float32)
    ids = net.input("ids", ["batch", 3], np.int64)
    word = net.op("Gather", net.constant(distinct(7, 4)), ids, axis=0)
    x = net.op("Add", word, net.constant(distinct(1, 3, 4, seed=1)))
    q, k, v = (net.op("MatMul", x, net.constant(distinct(4, 4, seed=i))) for i in (2, 3, 4))
    weights = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    return net.model(net.op("MatMul", weights, v), ranks=[3]), x


_FEEDS = {"ids": np.array([[0, 5, 2], [6, 6, 1]])}


def test_tokens_and_positions_share_what_the_embeddings_are_given() -> None:
    model, x = _model()
    sink = Explainer(model, rules="pe-aware", target=(1, 2), relevance_of=(x,)).explain(_FEEDS)
    plain = Explainer(model, rules="attnlrp", target=(1, 2)).explain(_FEEDS)
    embedded = sink.relevance_of[x].sum(-1)
    np.testing.assert_allclose(sink.relevance["ids"], embedded, rtol=1e-5)
    np.testing.assert_allclose(sink.relevance_of["ids_position"], embedded - plain.relevance["ids"], rtol=1e-4)


def test_a_model_without_positions_has_no_such_output() -> None:
    net = Net(np.float32)
    y = net.op("MatMul", net.input("x", ["batch", 4]), net.constant(distinct(4, 4)))
    converted = onnxlrp.convert(net.model(y, ranks=[2]), rules="pe-aware")
    assert [o.name for o in converted.graph.output][1:] == ["x_relevance"]


def test_a_table_says_absorb_or_sink() -> None:
    with pytest.raises(UsageError, match="positions"):
        parse_table('positions = "keep"\n[[rule]]\nrule = "z"\n', name="mine", source="mine.toml")
