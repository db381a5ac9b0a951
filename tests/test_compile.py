"""The stages together: networks whose relevance is known from a few lines of numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.compile import compile_model
from onnxlrp.request import Request
from onnxlrp.tables import parse_table
from tests.graph.written import Array, network, normal, prepared
from tests.support.evaluate import run_onnxruntime, run_reference, to_float64

LRP_0 = parse_table('[[rule]]\nkind = "linear"\nrule = "z"\n', name="lrp-0", source="lrp-0.toml")
EPSILON = parse_table(
    '[[rule]]\nkind = "linear"\nrule = "epsilon"\nepsilon = 0.25\n', name="epsilon", source="epsilon.toml"
)

W1, B1 = normal(5, 7, seed=1).astype(np.float64), normal(7, seed=2).astype(np.float64)
W2, B2 = normal(7, 4, seed=3).astype(np.float64), normal(4, seed=4).astype(np.float64)
X: Array = normal(3, 5, seed=5).astype(np.float64)


def perceptron() -> onnx.ModelProto:
    text = "g (float[N,5] x) => (float[N,4] y) { a = Gemm(x, w1, b1) h = Relu(a) y = Gemm(h, w2, b2) }"
    weights = {"w1": W1, "b1": B1, "w2": W2, "b2": B2}
    return network(text, **{n: v.astype(np.float32) for n, v in weights.items()})


def _layer(x: Array, w: Array, b: Array, r: Array, epsilon: float) -> Array:
    """The textbook: R_i = sum_j x_i w_ij / (z_j + eps sign z_j) R_j."""
    z = x @ w + b
    z = z + epsilon * np.where(z >= 0, 1.0, -1.0)
    return np.asarray(np.einsum("ni,ij,nj->ni", x, w, r / z))


def _float64(model: onnx.ModelProto, **options: object) -> Array:
    converted = to_float64(onnxlrp.convert(model, **options))  # type: ignore[arg-type]
    return run_reference(converted, {"x": X})["x_relevance"].astype(np.float64)


@pytest.mark.parametrize(("rules", "epsilon"), [(LRP_0, 0.0), (EPSILON, 0.25)], ids=["lrp-0", "epsilon"])
@pytest.mark.parametrize("target", [0, 3])
def test_a_perceptron_is_explained_as_the_textbook_does(
    rules: onnxlrp.tables.RuleTable, epsilon: float, target: int
) -> None:
    h = np.maximum(X @ W1 + B1, 0)
    y = h @ W2 + B2
    top = np.zeros_like(y)
    top[:, target] = y[:, target]
    hidden = _layer(h, W2, B2, top, epsilon)
    expected = _layer(X, W1, B1, hidden, epsilon)
    np.testing.assert_allclose(_float64(perceptron(), rules=rules, target=target), expected, rtol=1e-9, atol=1e-12)


def test_lrp_0_is_gradient_times_input_on_a_relu_network() -> None:
    """The gradient from finite differences."""

    def y(x: Array) -> Array:
        return np.maximum(x @ W1 + B1, 0) @ W2 + B2

    step = 1e-6
    gradient = np.stack([(y(X + step * e) - y(X - step * e))[:, 2] / (2 * step) for e in np.eye(5)], axis=1)
    np.testing.assert_allclose(_float64(perceptron(), rules=LRP_0, target=2), X * gradient, rtol=1e-6)
    np.testing.assert_allclose(_float64(perceptron(), rules="gradient-x-input", target=2), X * gradient, rtol=1e-6)


def test_a_residual_addition_does_not_double_relevance() -> None:
    """Eight blocks deep the sum of the map is still the output (no bias)."""
    lines = [f"a{i} = MatMul(x{i}, w) r{i} = Relu(a{i}) x{i + 1} = Add(x{i}, r{i})" for i in range(8)]
    text = f"g (float[N,5] x) => (float[N,5] y) {{ x0 = Identity(x) {' '.join(lines)} y = Neg(x8) }}"
    model = network(text, w=normal(5, 5, seed=1) * 0.3)
    converted = to_float64(onnxlrp.convert(model, rules=LRP_0, target=1))
    found = run_reference(converted, {"x": X})
    np.testing.assert_allclose(found["x_relevance"].sum(axis=1), found["y"][:, 1], rtol=1e-4)


def test_every_use_of_a_tensor_and_of_a_weight_counts() -> None:
    """Linear, so the relevance is x times the derivative, to which each use contributes."""
    text = """g (float[N,5] x) => (float[N,5] y)
    { a = MatMul(x, w) b = MatMul(a, w) c = Add(a, b) d = Sub(c, x) y = Add(d, a) }"""
    w = normal(5, 5, seed=6).astype(np.float64)
    model = network(text, w=w.astype(np.float32))
    derivative = (2 * w + w @ w - np.eye(5))[:, 3]
    np.testing.assert_allclose(
        _float64(model, rules="gradient-x-input", target=3), X * derivative, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    "rules",
    ["default", "epsilon", "epsilon-plus", "epsilon-gamma-box", "epsilon-alpha2-beta1", "gradient-x-input"],
)
def test_relevance_is_linear_in_the_seed_and_samples_are_independent(rules: str) -> None:
    converted = onnxlrp.convert(perceptron(), rules=rules, target="seed")

    def maps(x: Array, seed: Array) -> Array:
        feeds = {"x": x.astype(np.float32), "lrp_seed": seed.astype(np.float32)}
        return run_onnxruntime(converted, feeds)["x_relevance"].astype(np.float64)

    s, t = normal(3, 4, seed=8), normal(3, 4, seed=9)
    together = maps(X, 2 * s - 3 * t)
    np.testing.assert_allclose(together, 2 * maps(X, s) - 3 * maps(X, t), rtol=1e-3, atol=1e-4)
    one_by_one = np.concatenate([maps(X[i : i + 1], s[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(maps(X, s), one_by_one, rtol=1e-4, atol=1e-6)


def test_a_branch_of_the_network_beside_the_way_changes_nothing() -> None:
    plain = perceptron()
    more = perceptron()
    more.graph.node.append(onnx.helper.make_node("Neg", ["h"], ["side"]))
    more.graph.output.append(onnx.helper.make_tensor_value_info("side", onnx.TensorProto.FLOAT, ["N", 7]))
    np.testing.assert_array_equal(_float64(plain, target=1), _float64(more, target=1))


def test_one_more_output_inside_a_merged_layer_changes_nothing() -> None:
    text = "g (float[N,5] x) => (float[N,7] y) { a = MatMul(x, w) c = Add(a, b) y = Relu(c) }"
    plain, more = (network(text, w=W1.astype(np.float32), b=B1.astype(np.float32)) for _ in range(2))
    more.graph.output.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["N", 7]))
    np.testing.assert_array_equal(_float64(plain, target=1, outputs=("y",)), _float64(more, target=1, outputs=("y",)))


def test_the_relevance_of_a_request_is_told_by_input() -> None:
    converted = compile_model(prepared(perceptron()), Request(outputs=("y", "h"), target="seed"))
    assert converted.relevance == {"x": "x_relevance_y"}
    assert {o.name for o in converted.model.graph.output} == {"y", "x_relevance_y", "x_relevance_h"}
    assert converted.plan.explained_outputs == ("y", "h")


def _chain(length: int) -> onnx.ModelProto:
    nodes = [
        onnx.helper.make_node("Relu" if i % 2 else "MatMul", [f"t{i}"] if i % 2 else [f"t{i}", "w"], [f"t{i + 1}"])
        for i in range(length)
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "chain",
        [value("t0", onnx.TensorProto.FLOAT, ["N", 4])],
        [value(f"t{length}", onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def _ladder(length: int) -> onnx.ModelProto:
    """Each tensor is read by all of the following few: relevance of many consumers is summed."""
    nodes = [
        onnx.helper.make_node("Sum", [f"t{j}" for j in range(max(0, i - 3), i + 1)], [f"t{i + 1}"])
        for i in range(length)
    ]
    model = _chain(1)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.output[0].name = f"t{length}"
    return model


@pytest.mark.parametrize("build", [_chain, _ladder])
def test_long_networks_need_no_deep_recursion(build: Callable[[int], onnx.ModelProto]) -> None:
    converted = onnxlrp.convert(build(1500), rules="gradient-x-input", target=0)
    assert len(converted.graph.node) > 3000
