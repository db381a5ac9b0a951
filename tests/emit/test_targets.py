"""However a class is chosen (index, input, seed, argmax, top:K), its map is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp.tables import parse_table
from tests.emit.linear_nets import NETS, LinearNet, dense
from tests.graph.written import Array, network, normal
from tests.support.evaluate import run_onnxruntime

#: One output element per sample, by rank of the output; different from sample to sample.
ELEMENTS = {2: [(4,), (0,), (2,)], 3: [(3, 4), (0, 0), (1, 2)], 4: [(2, 3, 1), (0, 0, 0), (1, 2, 0)]}
LRP_0 = parse_table('[[rule]]\nkind = "linear"\nrule = "z"\n', name="lrp-0", source="lrp-0.toml")
RULES = ["gradient-x-input", LRP_0]


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> LinearNet:
    return NETS[request.param]()


def relevance(
    net: LinearNet, rules: Any = "gradient-x-input", *, feeds: dict[str, Array] | None = None, **options: Any
) -> Array:
    converted = onnxlrp.convert(net.model, rules=rules, **options)
    result = run_onnxruntime(converted, {"x": net.x, **(feeds or {})})
    np.testing.assert_allclose(result["y"], net.y, rtol=1e-5, atol=1e-6)
    return result["x_relevance"]


def assert_map(actual: Array, expected: Array) -> None:
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
def test_an_index_explains_one_element_of_every_sample(net: LinearNet, rules: Any) -> None:
    for element in ELEMENTS[net.output_rank]:
        assert_map(relevance(net, rules, target=element), net.maps_of([element] * 3))


def test_a_negative_index_counts_from_the_end(net: LinearNet) -> None:
    sizes = net.y.shape[1:]
    element = ELEMENTS[net.output_rank][2]
    from_the_end = tuple(i - size for i, size in zip(element, sizes, strict=True))
    assert_map(relevance(net, target=from_the_end), net.maps_of([element] * 3))


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
@pytest.mark.parametrize("span", ["1:3", "1:", ":2", "-2:", ":-1", "0:99", ":"])
def test_a_span_explains_the_sum_of_its_elements(net: LinearNet, rules: Any, span: str) -> None:
    """Spans along every axis, and along one axis with single positions along the others."""
    axes = net.output_rank - 1
    picked = slice(*(int(end) if end else None for end in span.split(":")))
    seed = np.zeros_like(net.y)
    seed[(slice(None), *[picked] * axes)] = 1
    assert_map(relevance(net, rules, target=",".join([span] * axes)), net.seeded(seed))
    seed = np.zeros_like(net.y)
    seed[(slice(None), picked, *[1] * (axes - 1))] = 1
    assert_map(relevance(net, rules, target=(picked, *[1] * (axes - 1))), net.seeded(seed))


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
def test_a_target_rather_than_another_explains_their_difference(net: LinearNet, rules: Any) -> None:
    first, second, _ = ELEMENTS[net.output_rank]
    difference = net.maps_of([first] * 3) - net.maps_of([second] * 3)
    assert_map(relevance(net, rules, target=first, rather_than=second), difference)
    likeliest = [np.unravel_index(y.argmax(), y.shape) for y in net.y]
    assert_map(relevance(net, rules, rather_than=second), net.maps_of(likeliest) - net.maps_of([second] * 3))


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
def test_a_target_input_explains_an_element_of_its_own_in_every_sample(net: LinearNet, rules: Any) -> None:
    elements = ELEMENTS[net.output_rank]
    found = relevance(net, rules, target="input", feeds={"lrp_target": np.array(elements, np.int64)})
    assert_map(found, net.maps_of(elements))


def test_a_target_input_counts_back_and_out_of_range_explains_nothing(net: LinearNet) -> None:
    sizes = net.y.shape[1:]
    last = tuple(size - 1 for size in sizes)
    minus_one = [(-1,) * len(sizes)] * 3
    found = relevance(net, target="input", feeds={"lrp_target": np.array(minus_one, np.int64)})
    assert_map(found, net.maps_of([last] * 3))
    for axis in range(len(sizes)):
        for beyond in (sizes[axis], -sizes[axis] - 1, 2**40, -(2**40)):
            given = np.array([last, last, last], np.int64)
            given[1, axis] = beyond
            found = relevance(net, target="input", feeds={"lrp_target": given})
            assert not found[1].any()
            assert_map(found[[0, 2]], net.maps_of([last] * 3)[[0, 2]])


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
def test_a_seed_explains_the_sum_of_seed_times_output(net: LinearNet, rules: Any) -> None:
    seed = normal(*net.y.shape, seed=9)
    assert_map(relevance(net, rules, target="seed", feeds={"lrp_seed": seed}), net.seeded(seed))


def test_a_one_hot_seed_explains_its_class(net: LinearNet) -> None:
    elements = ELEMENTS[net.output_rank]
    seed = np.zeros_like(net.y)
    for n, element in enumerate(elements):
        seed[(n, *element)] = 1
    assert_map(relevance(net, target="seed", feeds={"lrp_seed": seed.astype(np.float32)}), net.maps_of(elements))


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
def test_argmax_explains_the_largest_element_of_each_sample(net: LinearNet, rules: Any) -> None:
    winners = [np.unravel_index(int(sample.argmax()), sample.shape) for sample in net.y]
    assert len(set(winners)) > 1, "the samples should differ"
    assert_map(relevance(net, rules), net.maps_of([tuple(map(int, w)) for w in winners]))


@pytest.mark.parametrize("rules", RULES, ids=["gradient", "lrp-0"])
@pytest.mark.parametrize("k", [1, 3, "all"])
def test_top_explains_the_largest_elements_in_order(net: LinearNet, rules: Any, k: Any) -> None:
    count = int(np.prod(net.y.shape[1:])) if k == "all" else k
    if k == "all" and net.output_rank == 3:
        count = 20  # both axes are 4 * 5 here, though the model leaves one open
    found = relevance(net, rules, target=f"top:{count}")
    assert found.shape == (3, count, *net.x.shape[1:])
    order = [np.argsort(-sample.reshape(-1), kind="stable")[:count] for sample in net.y]
    for place in range(count):
        elements = [tuple(map(int, np.unravel_index(o[place], net.y.shape[1:]))) for o in order]
        assert_map(found[:, place], net.maps_of(elements))


def test_argmax_along_an_axis_explains_the_largest_at_every_position(net: LinearNet) -> None:
    for axis in range(1, net.output_rank):
        hot = np.zeros_like(net.y)
        np.put_along_axis(hot, np.expand_dims(net.y.argmax(axis), axis), 1.0, axis)
        assert_map(relevance(net, axis=axis), net.seeded(hot))
        assert_map(relevance(net, axis=axis - net.output_rank), net.seeded(hot))


def test_one_number_per_sample_is_its_own_target() -> None:
    x, w = normal(3, 4, seed=1), normal(4, seed=2)
    model = network("g (float[N,4] x) => (float[N] y) { y = MatMul(x, w) }", w=w)
    found = run_onnxruntime(onnxlrp.convert(model, rules=LRP_0), {"x": x})["x_relevance"]
    assert_map(found, x * w)


def test_an_output_of_unknown_rank_can_be_explained_by_argmax_and_by_seed() -> None:
    x, w = normal(3, 4, seed=1), normal(4, 6, seed=2)
    model = network("g (float[N,4] x, int64[K] s) => (float[] y) { z = MatMul(x, w) y = Reshape(z, s) }", w=w)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": x, "s": np.array([3, 2, 3])}
    best = (x @ w).argmax(axis=1)
    found = run_onnxruntime(onnxlrp.convert(model, rules=LRP_0), feeds)["x_relevance"]
    assert_map(found, np.stack([x[n] * w[:, c] for n, c in enumerate(best)]))
    seed = normal(3, 2, 3, seed=5)
    found = run_onnxruntime(onnxlrp.convert(model, rules=LRP_0, target="seed"), {**feeds, "lrp_seed": seed})[
        "x_relevance"
    ]
    assert_map(found, x * (seed.reshape(3, 6) @ w.T))


@pytest.mark.parametrize("batch", ["2", "1"])
def test_a_fixed_batch_is_as_good_as_an_open_one(batch: str) -> None:
    """Inputs that are added carry the model's own batch size."""
    net, n = dense(batch), int(batch)
    converted = onnxlrp.convert(net.model, target="input", rules="gradient-x-input")
    added = next(v for v in converted.graph.input if v.name == "lrp_target")
    assert [d.dim_value for d in added.type.tensor_type.shape.dim] == [n, 1]
    elements = ELEMENTS[2][:n]
    found = run_onnxruntime(converted, {"x": net.x[:n], "lrp_target": np.array(elements)})["x_relevance"]
    assert_map(found, net.maps_of(elements))


def test_relevance_starts_at_the_logits_when_a_softmax_is_stepped_over() -> None:
    net = dense()
    text = "g (float[N,4] x) => (float[N,5] p) { y = Gemm(x, w, b) p = Softmax(y) }"
    weights = {t.name: np.frombuffer(t.raw_data, np.float32).reshape(t.dims) for t in net.model.graph.initializer}
    converted = onnxlrp.convert(network(text, **weights), target=2, rules=LRP_0)
    assert_map(run_onnxruntime(converted, {"x": net.x})["x_relevance"], net.maps_of([(2,)] * 3))


def test_an_intermediate_tensor_can_be_explained() -> None:
    net = dense()
    text = "g (float[N,4] x) => (float[N,5] p) { y = Gemm(x, w, b) p = Softmax(y) q = Relu(y) }"
    weights = {t.name: np.frombuffer(t.raw_data, np.float32).reshape(t.dims) for t in net.model.graph.initializer}
    converted = onnxlrp.convert(network(text, **weights), target=1, outputs=("q",), rules="gradient-x-input")
    found = run_onnxruntime(converted, {"x": net.x})["x_relevance"]
    assert_map(found, net.maps_of([(1,)] * 3) * (net.y[:, 1:2] > 0))


def test_the_input_itself_can_be_explained_from() -> None:
    net = dense()
    found = run_onnxruntime(onnxlrp.convert(net.model, rules=LRP_0, outputs=("x",), target=3), {"x": net.x})[
        "x_relevance"
    ]
    assert_map(found, net.x * np.eye(4, dtype=np.float32)[3])


@pytest.mark.parametrize("options", [{}, {"target": 1}, {"target": "top:2"}, {"axis": 1}], ids=str)
def test_a_batch_of_no_samples_gives_no_maps(options: dict[str, Any]) -> None:
    converted = onnxlrp.convert(dense().model, **options)
    found = run_onnxruntime(converted, {"x": np.zeros((0, 4), np.float32)})["x_relevance"]
    assert found.shape == ((0, 2, 4) if options.get("target") == "top:2" else (0, 4))
