"""Random inputs for a model, and whether its samples can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.graph.view import Graph
from onnxlrp.verification.data import has_open_batch, random_inputs
from tests.graph.written import network


def _graph(inputs: str) -> Graph:
    return Graph(network(f"g ({inputs}) => (float[1] y) {{ y = Identity(w) }}", w=np.zeros(1)))


def test_a_size_of_minus_one_is_open() -> None:
    """Some exporters write it so."""
    model = network("g (float[N,3] x) => (float[1] y) { y = Identity(w) }", w=np.zeros(1))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert random_inputs(Graph(model), 4)["x"].shape == (4, 3)


def test_inputs_have_the_declared_type_and_shape() -> None:
    graph = _graph("float[N,3] x, float16[2,T] h, int64[N,T] ids, bool[N] m, float[N,3] w")
    found = random_inputs(graph, 4)
    assert {n: (a.dtype.name, a.shape[0]) for n, a in found.items()} == {
        "x": ("float32", 4),
        "h": ("float16", 2),
        "ids": ("int64", 4),
        "m": ("bool", 4),
    }
    assert found["x"].shape == (4, 3)
    assert found["h"].shape[1] == found["ids"].shape[1], "sizes of one name are equal"
    assert set(np.unique(found["ids"])) <= {0, 1}


def test_the_same_seed_gives_the_same_numbers() -> None:
    graph = _graph("float[N,3] x")
    assert np.array_equal(random_inputs(graph, 2, seed=1)["x"], random_inputs(graph, 2, seed=1)["x"])
    assert not np.array_equal(random_inputs(graph, 2, seed=1)["x"], random_inputs(graph, 2, seed=2)["x"])


def test_an_input_of_unknown_rank_needs_data() -> None:
    model = network("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UsageError, match="input 'x' has no known rank; give data for it"):
        random_inputs(Graph(model), 2)


@pytest.mark.parametrize(
    ("inputs", "sizes", "expected"),
    [
        ("float[N,3] x", (2,), True),
        ("float[1,3] x", (1,), False),
        ("float[N,3] x, float[M] z", (2, 2), True),
        ("float[N,3] x, float[M] z", (2, 3), False),
        ("float[N,3] x, float[2] z", (2, 2), False),
    ],
)
def test_the_batch_is_open_where_every_input_has_it_first(inputs: str, sizes: tuple[int, ...], expected: bool) -> None:
    graph = _graph(inputs)
    feeds = {name: np.zeros((size, 3)) for name, size in zip(graph.inputs, sizes, strict=True)}
    assert has_open_batch(graph, feeds) == expected


def test_a_scalar_input_leaves_no_batch_to_take_apart() -> None:
    model = network("g (float[N,3] x, float z) => (float[N,3] y) { y = Mul(x, z) }")
    assert not has_open_batch(Graph(model), {"x": np.zeros((2, 3)), "z": np.zeros(())})
