"""Relevance of hidden tensors, and relevance conditioned on their channels (Achtibat et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.emit.ledger import COLUMNS
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64
from tests.support.models import Dim, Net
from tests.support.replicas import dense, propagate

Array = np.ndarray
RNG = np.random.default_rng(5)
KERNEL, BIAS = RNG.normal(size=(4, 2, 3, 3)), RNG.normal(size=4)
SECOND, WEIGHT = RNG.normal(size=(3, 4, 3, 3)), RNG.normal(size=(3, 5))
X = RNG.normal(size=(2, 2, 6, 6))
HIDDEN = "relu1"
RULES = ["epsilon", "epsilon-plus", "epsilon-alpha2-beta1", "gradient-x-input", "default"]


def network(batch: Dim = "n", dtype: type = np.float64) -> onnx.ModelProto:
    """conv -> relu (the hidden tensor) -> conv -> relu -> mean -> dense; the hidden one also goes around by a sum."""
    net = Net(dtype)
    x = net.input("x", [batch, 2, 6, 6])
    hidden = net.op("Relu", net.op("Conv", x, net.constant(KERNEL), net.constant(BIAS)))
    assert hidden == HIDDEN
    second = net.op("Relu", net.op("Conv", hidden, net.constant(SECOND), pads=[1] * 4))
    around = net.op("Add", second, net.op("ReduceMean", hidden, net.constant([1]), keepdims=1))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", around))
    return net.model(net.op("MatMul", pooled, net.constant(WEIGHT)))


def run(model: onnx.ModelProto, feeds: dict[str, Array], **options: Any) -> dict[str, Array]:
    emitted = onnxlrp.convert(model, **options)
    onnx.checker.check_model(emitted, full_check=True)
    return run_reference(to_float64(emitted), feeds)


def cut_behind(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part behind the hidden tensor, which is its input."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.input[:], part.graph.node[:]
    part.graph.node.extend(model.graph.node[2:])
    part.graph.input.append(onnx.helper.make_tensor_value_info(HIDDEN, onnx.TensorProto.DOUBLE, ["n", 4, 4, 4]))
    return part


@pytest.mark.parametrize("rules", RULES)
def test_relevance_of_a_hidden_tensor_is_that_of_an_input_of_the_part_behind_it(rules: str) -> None:
    model = network()
    found = run(model, {"x": X}, rules=rules, target=2, relevance_of=[HIDDEN])
    hidden = np.maximum(dense_conv(X), 0)
    behind = run(cut_behind(model), {HIDDEN: hidden}, rules=rules, target=2)
    assert relative_l2(found[f"{HIDDEN}_relevance"], behind[f"{HIDDEN}_relevance"]) < 1e-9
    usual = run(model, {"x": X}, rules=rules, target=2)
    assert np.array_equal(found["x_relevance"], usual["x_relevance"])


def dense_conv(x: Array) -> Array:
    return np.stack([convolution()(sample) for sample in x])


def convolution() -> Any:
    def forward(x: Array) -> Array:
        patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return np.einsum("cijkl,ockl->oij", patches, KERNEL) + BIAS[:, None, None]

    return dense(forward, (2, 6, 6))


def test_a_conditional_map_is_the_first_layers_rule_on_the_masked_relevance() -> None:
    """Against the textbook rule on the dense matrix of the first layer."""
    mask = RNG.uniform(size=(2, 4))
    fed = {"x": X, f"{HIDDEN}_mask": mask}
    found = run(network(), fed, rules="epsilon", target=2, relevance_of=[HIDDEN], mask_at=[HIDDEN])
    whole = run(network(), {"x": X}, rules="epsilon", target=2, relevance_of=[HIDDEN])
    masked = whole[f"{HIDDEN}_relevance"] * mask[:, :, None, None]
    assert relative_l2(found[f"{HIDDEN}_relevance"], masked) < 1e-12
    for i in range(2):
        expected = propagate(convolution(), "epsilon", {"epsilon": 1e-6}, X[i], masked[i])
        assert relative_l2(found["x_relevance"][i], expected) < 1e-9


@pytest.mark.parametrize("rules", [*RULES, "epsilon-plus-flat"])
def test_the_maps_of_single_channels_add_up_to_the_whole(rules: str) -> None:
    model = network()
    usual = run(model, {"x": X}, rules=rules, target=2)["x_relevance"]
    ones = run(model, {"x": X, f"{HIDDEN}_mask": np.ones((2, 4))}, rules=rules, target=2, mask_at=[HIDDEN])
    assert relative_l2(ones["x_relevance"], usual) < 1e-12
    parts = [
        run(model, {"x": X, f"{HIDDEN}_mask": np.tile(one, (2, 1))}, rules=rules, target=2, mask_at=[HIDDEN])
        for one in np.eye(4)
    ]
    assert relative_l2(sum(part["x_relevance"] for part in parts), usual) < 1e-9


@pytest.mark.parametrize("rules", ["abslrp", "relative-lrp"])
def test_where_relevance_is_normalised_ones_change_nothing_and_zeros_leave_nothing(rules: str) -> None:
    usual = run(network(), {"x": X}, rules=rules, target=2)["x_relevance"]
    for value, expected in ((1.0, usual), (0.0, 0 * usual)):
        fed = {"x": X, f"{HIDDEN}_mask": np.full((2, 4), value)}
        found = run(network(), fed, rules=rules, target=2, mask_at=[HIDDEN])["x_relevance"]
        assert relative_l2(found, expected) < 1e-7


def test_each_sample_has_a_mask_of_its_own() -> None:
    fed = {"x": X[[0, 0]], f"{HIDDEN}_mask": np.eye(4)[[1, 3]]}
    both = run(network(), fed, rules="epsilon", target=2, mask_at=[HIDDEN])["x_relevance"]
    for i, channel in enumerate((1, 3)):
        alone = {"x": X[:1], f"{HIDDEN}_mask": np.eye(4)[[channel]]}
        assert (
            relative_l2(both[i], run(network(), alone, rules="epsilon", target=2, mask_at=[HIDDEN])["x_relevance"][0])
            < 1e-12
        )


def test_masks_at_several_tensors_compose() -> None:
    """A channel behind and a channel before: what runs through both; all pairs add up to the whole."""
    behind = "relu3"
    total = 0.0
    for one in np.eye(4):
        for other in np.eye(3):
            fed = {"x": X, f"{HIDDEN}_mask": np.tile(one, (2, 1)), f"{behind}_mask": np.tile(other, (2, 1))}
            total += run(network(), fed, rules="epsilon", target=2, mask_at=[HIDDEN, behind])["x_relevance"]
    through = run(network(), {"x": X, "relu3_mask": np.ones((2, 3))}, rules="epsilon", target=2, mask_at=[behind])
    usual = run(network(), {"x": X}, rules="epsilon", target=2)
    assert relative_l2(through["x_relevance"], usual["x_relevance"]) < 1e-12
    # What went around the layer has no channel behind, so it is in each of the three maps.
    around = {"x": X, f"{behind}_mask": np.zeros((2, 3))}
    bypass = run(network(), around, rules="epsilon", target=2, mask_at=[behind])["x_relevance"]
    assert relative_l2(total - 2 * bypass, usual["x_relevance"]) < 1e-9


@pytest.mark.parametrize("axis", [2, -2])
def test_a_mask_goes_along_any_axis_but_the_batch(axis: int) -> None:
    rows = np.eye(4)
    asked = f"{HIDDEN}:{axis}"
    usual = run(network(), {"x": X}, rules="epsilon", target=2, relevance_of=[HIDDEN])[f"{HIDDEN}_relevance"]
    fed = {"x": X, f"{HIDDEN}_mask": np.tile(rows[1], (2, 1))}
    found = run(network(), fed, rules="epsilon", target=2, mask_at=[asked], relevance_of=[HIDDEN])
    expected = np.zeros_like(usual)
    expected[:, :, 1] = usual[:, :, 1]
    assert relative_l2(found[f"{HIDDEN}_relevance"], expected) < 1e-12


def test_the_explained_output_itself_takes_a_mask() -> None:
    """Behind a seed of ones, a mask on the classes is a target."""
    mask, model = np.eye(5)[[2, 2]], network()
    output = model.graph.output[0].name
    fed = {"x": X, f"{output}_mask": mask, "lrp_seed": np.ones((2, 5))}
    found = run(model, fed, rules="epsilon", target="seed", mask_at=[output])
    assert relative_l2(found["x_relevance"], run(model, {"x": X}, rules="epsilon", target=2)["x_relevance"]) < 1e-9


def test_of_the_k_likeliest_each_has_its_relevance_and_is_masked() -> None:
    fed = {"x": X, f"{HIDDEN}_mask": np.eye(4)[[0, 2]]}
    best = run(network(), fed, rules="epsilon", target="top:2", mask_at=[HIDDEN], relevance_of=[HIDDEN])
    assert best[f"{HIDDEN}_relevance"].shape == (2, 2, 4, 4, 4)
    likeliest = run(network(), fed, rules="epsilon", mask_at=[HIDDEN], relevance_of=[HIDDEN])
    for name in ("x_relevance", f"{HIDDEN}_relevance"):
        assert relative_l2(best[name][:, 0], likeliest[name]) < 1e-9


def test_on_demand_and_in_onnxruntime() -> None:
    model = network(dtype=np.float32)
    options: dict[str, Any] = {"rules": "epsilon", "target": 2, "mask_at": [HIDDEN], "relevance_of": [HIDDEN]}
    fed = {"x": X.astype(np.float32), f"{HIDDEN}_mask": np.eye(4, dtype=np.float32)[[1, 3]]}
    plain = run_onnxruntime(onnxlrp.convert(model, **options), fed)
    switched = onnxlrp.convert(model, on_demand=True, **options)
    found = run_onnxruntime(switched, {**fed, "lrp_explain": np.ones((2, 1), bool)})
    nothing = run_onnxruntime(switched, {**fed, "lrp_explain": np.zeros((2, 1), bool)})
    for name in ("x_relevance", f"{HIDDEN}_relevance"):
        assert relative_l2(found[name], plain[name]) < 1e-4
        assert nothing[name].shape == plain[name].shape and not nothing[name].any()
    original = run_onnxruntime(model, {"x": fed["x"]})
    assert np.allclose(plain[model.graph.output[0].name], original[model.graph.output[0].name], rtol=1e-5)


def test_several_explained_outputs_share_the_masks() -> None:
    model = network()
    output = model.graph.output[0].name
    fed = {"x": X, f"{HIDDEN}_mask": np.eye(4)[[1, 1]]}
    both = run(model, fed, rules="epsilon", outputs=[output, "relu3"], mask_at=[HIDDEN], relevance_of=[HIDDEN])
    for name in (output, "relu3"):
        alone = run(model, fed, rules="epsilon", outputs=[name], mask_at=[HIDDEN], relevance_of=[HIDDEN])
        for x in ("x", HIDDEN):
            assert relative_l2(both[f"{x}_relevance_{name}"], alone[f"{x}_relevance"]) < 1e-9


def test_heads_of_attention_are_a_mask_along_the_axis_that_holds_them() -> None:
    net = Net(np.float64)
    x = net.input("x", ["n", 3, 4])
    made = {}
    for name in ("q", "k", "v"):
        rows = net.op("Reshape", net.op("MatMul", x, net.constant(RNG.normal(size=(4, 4)))), net.constant([0, 0, 2, 2]))
        made[name] = net.op("Transpose", rows, perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])
    weights = net.op("Softmax", net.op("MatMul", made["q"], made["k"]), axis=-1)
    heads = net.op("MatMul", weights, made["v"])
    merged = net.op("Reshape", net.op("Transpose", heads, perm=[0, 2, 1, 3]), net.constant([0, 0, 4]))
    pooled = net.op("ReduceMean", net.op("MatMul", merged, net.constant(RNG.normal(size=(4, 3)))), net.constant([1]))
    model = net.model(net.op("Flatten", pooled))
    values = {"x": RNG.normal(size=(2, 3, 4))}
    usual = run(model, values, rules="attnlrp", target=1)["x_relevance"]
    parts = [
        run(model, {**values, f"{heads}_mask": np.tile(one, (2, 1))}, rules="attnlrp", target=1, mask_at=[heads])
        for one in np.eye(2)
    ]
    assert relative_l2(sum(part["x_relevance"] for part in parts), usual) < 1e-9
    assert relative_l2(parts[0]["x_relevance"], usual) > 1e-2


def test_the_ledger_counts_what_a_mask_takes_away() -> None:
    mask = np.array([[0.0, 1.0, 0.25, 1.0]])
    fed = {"x": X[:1], f"{HIDDEN}_mask": mask}
    options: dict[str, Any] = {"rules": "epsilon", "target": 2, "mask_at": [HIDDEN]}
    rows = run(network(), fed, ledger=True, **options)["lrp_ledger"]
    whole = run(network(), {"x": X[:1]}, rules="epsilon", target=2, relevance_of=[HIDDEN])[f"{HIDDEN}_relevance"]
    steps = onnxlrp.plan(network(), **options).steps
    at = next(i for i, step in enumerate(steps) if step.nodes[-1] == f"node_{HIDDEN}")
    row = dict(zip(COLUMNS, rows[at], strict=True))
    taken = (whole * (1 - mask[:, :, None, None])).sum()
    assert np.isclose(row["other"], taken) and np.isclose(row["arrived"], row["sent"] + taken)
    assert np.isclose(row["arrived"], whole.sum())


def test_verify_proves_a_model_with_masks() -> None:
    emitted = onnxlrp.convert(network(dtype=np.float32), rules="epsilon", mask_at=[HIDDEN], relevance_of=[HIDDEN])
    report = onnxlrp.verify(emitted)
    assert report.passed, report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevance_of": ["relu7"]}, "no tensor 'relu7'; did you mean 'relu"),
        ({"relevance_of": ["nowhere"]}, "no tensor 'nowhere'; tensors that have are, from the target on, "),
        ({"relevance_of": ["x"]}, "'x' is an explained input"),
        ({"relevance_of": ["c0"]}, "'c0' has no relevance"),
        ({"mask_at": ["x"]}, "'x' is an explained input"),
        ({"mask_at": [f"{HIDDEN}:4"]}, "axis 4 is out of range for a mask at tensor 'relu1' of rank 4"),
        ({"mask_at": [f"{HIDDEN}:0"]}, "axis 0 of tensor 'relu1' is the batch"),
        ({"mask_at": [HIDDEN, f"{HIDDEN}:2"]}, "tensor 'relu1' has one mask only"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(options: dict[str, Any], message: str) -> None:
    with pytest.raises(onnxlrp.UsageError) as error:
        onnxlrp.convert(network(), rules="epsilon", **options)
    assert message in str(error.value)


def test_a_tensor_inside_a_merged_layer_is_refused_with_the_layers_output() -> None:
    net = Net(np.float64)
    conv = net.op("Conv", net.input("x", ["n", 2, 6, 6]), net.constant(KERNEL))
    norm = net.op("BatchNormalization", conv, *(net.constant(np.ones(4) + i) for i in range(4)))
    model = net.model(net.op("Flatten", net.op("GlobalAveragePool", norm)))
    with pytest.raises(onnxlrp.UsageError, match=r"inside Conv\+BatchNormalization.*ask for its output 'batchnorm"):
        onnxlrp.convert(model, rules="epsilon", relevance_of=[conv])


def test_a_tensor_inside_a_body_is_refused() -> None:
    body = onnx.parser.parse_graph("b () => (double[n,3] inner) { inner = Relu(h) }")
    other = onnx.parser.parse_graph("o () => (double[n,3] outer) { outer = Identity(h) }")
    net = Net(np.float64)
    x = net.input("x", ["n", 3])
    net._nodes.append(onnx.helper.make_node("MatMul", [x, net.constant(RNG.normal(size=(3, 3)))], ["h"], name="dense"))
    choice = net.op("If", net.constant(np.asarray(True)), then_branch=body, else_branch=other)
    model = net.model(net.op("Relu", choice), ranks=[2])
    with pytest.raises(onnxlrp.UsageError, match="'inner' stands inside the body of an If, Loop or Scan"):
        onnxlrp.convert(model, rules="epsilon", relevance_of=["inner"])
