"""The subject gives the model's own logits, their derivatives, and maps of rule tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from onnxlrp.evaluation.sample import Layout
from onnxlrp.evaluation.subject import Engine, OnnxSubject
from tests.support import texts
from tests.support.models import Net

MODELS = Path(__file__).parents[2] / "models"
RNG = np.random.default_rng(5)


def softmax_net() -> onnx.ModelProto:
    net = Net(np.float32)
    x = net.input("x", ["N", 3, 4])
    flat = net.op("Flatten", x)
    hidden = net.op("Tanh", net.op("MatMul", flat, net.constant(RNG.normal(size=(12, 5)))))
    return net.model(net.op("Softmax", net.op("MatMul", hidden, net.constant(RNG.normal(size=(5, 4)))), axis=-1))


def subject(model: onnx.ModelProto | str, layout: Layout | None = None, **others: np.ndarray) -> OnnxSubject:
    name = "input_ids" if others else None
    return OnnxSubject(Engine(model, input_name=name), others, {}, layout or Layout())


def test_scores_are_the_logits_before_a_softmax() -> None:
    model = softmax_net()
    values = RNG.normal(size=(3, 3, 4))
    chances = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": values.astype(np.float32)})[0]
    scores = subject(model).scores(values, np.arange(3))
    assert scores.dtype == np.float64 and scores.shape == (3, 4)
    assert np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) == pytest.approx(chances, abs=1e-6)
    assert np.abs(scores.sum(axis=1)).max() > 1e-3, "logits are not normalised"


def test_gradients_are_the_derivatives_of_the_target() -> None:
    one = subject(softmax_net())
    values, targets = RNG.normal(size=(2, 3, 4)), np.array([3, 1])
    found = one.gradients(values, targets, np.arange(2))
    expected = np.empty(values.shape)
    step = 1e-2
    for place in np.ndindex(values.shape[1:]):
        up, down = values.copy(), values.copy()
        up[(slice(None), *place)] += step
        down[(slice(None), *place)] -= step
        rise = one.scores(up, np.arange(2)) - one.scores(down, np.arange(2))
        expected[(slice(None), *place)] = rise[np.arange(2), targets] / (2 * step)
    assert found == pytest.approx(expected, abs=2e-3 * np.abs(expected).max())


def test_maps_of_a_rule_table_are_those_of_the_explainer() -> None:
    path = str(MODELS / "mnist-conv.onnx")
    values = RNG.uniform(0, 255, size=(2, 1, 28, 28))
    found = subject(path, Layout(1, 2, 0)).relevance("epsilon", values, np.array([3, 7]), np.arange(2))
    for value, target, one in zip(values, (3, 7), found, strict=True):
        explained = onnxlrp.Explainer(path, rules="epsilon", target=target).explain(value[None].astype(np.float32))
        assert one == pytest.approx(explained.relevance["Input3"][0], rel=1e-5, abs=1e-5)


def test_a_model_of_one_sample_at_a_time_takes_any_number() -> None:
    one = subject(str(MODELS / "mnist-conv.onnx"), Layout(1, 2, 0))
    assert one.engine.fixed_batch == 1
    values = RNG.uniform(0, 255, size=(3, 1, 28, 28))
    together = one.scores(values, np.arange(3))
    assert together.shape == (3, 10)
    assert np.array_equal(together[2:], one.scores(values[2:], np.array([2])))


def test_a_fixed_batch_is_filled_up() -> None:
    net = Net(np.float32)
    x = net.input("x", [2, 3])
    model = net.model(net.op("MatMul", x, net.constant(np.eye(3))))
    values = RNG.normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(subject(model).scores(values, np.arange(5)), values)
    assert np.array_equal(subject(model).gradients(values, np.full(5, 1), np.arange(5)), np.eye(3)[np.full(5, 1)])


def test_each_variant_has_the_other_inputs_of_its_own_sample() -> None:
    masks = np.array([[1, 1, 1], [1, 1, 0]])
    one = subject(texts.classifier(), Layout(is_token=True), attention_mask=masks)
    ids = np.array([[4, 5, 6], [4, 5, 6], [7, 8, 9]])
    rows = np.array([0, 1, 1])
    expected = np.einsum("kl,kld->kd", masks[rows], texts.TABLE[ids]) @ texts.MINUS["classes"]
    assert one.scores(ids, rows) == pytest.approx(expected, abs=1e-5)
    found = one.relevance("gradient-x-input", ids, np.array([2, 2, 0]), rows)
    parts = masks[rows][:, :, None] * texts.TABLE[ids] * texts.MINUS["classes"][:, [2, 2, 0]].T[:, None, :]
    assert found == pytest.approx(parts.sum(axis=2), abs=1e-5)
    with pytest.raises(UsageError, match="token ids have no gradient"):
        one.gradients(ids, np.zeros(3, np.int64), rows)


def test_values_have_their_channels_first_whatever_the_model_has() -> None:
    net = Net(np.float32)
    x = net.input("x", ["N", 4, 4, 3])
    w = RNG.normal(size=(48, 2))
    model = net.model(net.op("MatMul", net.op("Flatten", x), net.constant(w)))
    one = subject(model, Layout(0, 1, 2))
    values = RNG.normal(size=(2, 3, 4, 4))
    assert one.scores(values, np.arange(2)) == pytest.approx(values.transpose(0, 2, 3, 1).reshape(2, -1) @ w, abs=1e-5)
    gradient = one.gradients(values, np.array([1, 1]), np.arange(2))
    assert gradient[0] == pytest.approx(w[:, 1].reshape(4, 4, 3).transpose(2, 0, 1), abs=1e-6)


def test_an_output_of_several_axes_is_laid_out_flat() -> None:
    net = Net(np.float32)
    x = net.input("x", ["N", 2, 3])
    model = net.model(net.op("Mul", x, net.constant(np.arange(6.0).reshape(2, 3))))
    one = subject(model)
    values = RNG.normal(size=(2, 2, 3))
    assert one.scores(values, np.arange(2)).shape == (2, 6)
    expected = np.zeros((2, 6))
    expected[0, 4], expected[1, 5] = 4.0, 5.0
    assert one.gradients(values, np.array([4, 5]), np.arange(2)).reshape(2, 6) == pytest.approx(expected)


def test_randomised_copies_have_other_weights_and_are_the_same_for_the_same_seed() -> None:
    one = subject(str(MODELS / "mnist-conv.onnx"), Layout(1, 2, 0))
    assert one.layers == 3
    values = RNG.uniform(0, 255, size=(1, 1, 28, 28))
    scores = [s.scores(values, np.arange(1)) for s in (one, one.randomised(1, 0), one.randomised(1, 0))]
    assert not np.allclose(scores[0], scores[1]) and np.array_equal(scores[1], scores[2])


def test_the_digest_changes_with_the_weights_and_with_what_is_explained() -> None:
    net = Net(np.float32)
    x = net.input("x", ["N", 3])
    hidden = net.op("MatMul", x, net.constant(np.eye(3), "w"))
    model = net.model(net.op("Relu", hidden), hidden)
    engines = [Engine(model, output=output) for output in (None, None, hidden)]
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(2 * np.eye(3, dtype=np.float32), "w"))
    digests = [engine.digest for engine in (*engines, Engine(changed))]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_converted_model_is_refused() -> None:
    with pytest.raises(UsageError, match="give the original model"):
        Engine(onnxlrp.convert(softmax_net()))


def test_copies_of_a_model_hold_few_rule_tables_at_a_time() -> None:
    copy = Engine(softmax_net(), tables=2)
    first = copy.explainer("epsilon")
    assert copy.explainer("epsilon") is first
    copy.explainer("default")
    assert copy.explainer("epsilon") is first, "it was used last"
    copy.explainer("gradient")
    assert copy.explainer("epsilon") is first
    copy.explainer("default")
    copy.explainer("gradient")
    assert copy.explainer("epsilon") is not first
