"""What is constant, and which values are known before any input is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxlrp.graph.view import Graph
from onnxlrp.read.load import load
from onnxlrp.understand.facts import UNBOUNDED, Facts, Range
from tests.graph.written import Array, facts, network, normal


def test_what_depends_on_no_input_is_constant() -> None:
    known = facts(
        network(
            """g (float[2,3] x) => (float[2,3] z)
            { k = Constant<value_float = 2.0>() v = Mul(w, k) u = Add(x, v) z = Relu(u) }""",
            w=np.ones(3),
        )
    )
    assert {t for t in ("x", "w", "k", "v", "u", "z") if known.is_constant(t)} == {"w", "k", "v"}


def test_the_shape_of_a_tensor_is_constant_where_it_is_static() -> None:
    text = "g (float[{},3] x) => (int64[2] z, int64 n) {{ z = Shape(x) n = Size(x) }}"
    static, dynamic = facts(network(text.format(2))), facts(network(text.format("N")))
    assert static.is_constant("z") and static.is_constant("n")
    assert static.integers("z") == (2, 3)
    assert not dynamic.is_constant("z") and dynamic.value("z") is None


def test_random_numbers_are_never_constant() -> None:
    known = facts(network("g (float[2] x) => (float[2] z) { r = RandomNormal<shape = [2]>() z = Add(x, r) }"))
    assert not known.is_constant("r")


def test_what_a_branch_computes_is_not_constant() -> None:
    text = """g (float[2] x) => (float[2] z)
    { c = Constant<value = bool {1}>()
      i = If(c) <then_branch = t () => (float[2] p) { p = Relu(x) }, else_branch = e () => (float[2] q) { q = Neg(x) }>
      z = Add(x, i) }"""
    assert not facts(network(text)).is_constant("i")


#: Chains as exporters write them around a reshape, with the value that they must have.
CHAINS = {
    "shape": ("z = Shape(x)", [2, 3, 4]),
    "part of a shape": ("z = Shape<start = 1, end = 3>(x)", [3, 4]),
    "from the end": ("z = Shape<start = -1>(x)", [4]),
    "gather and concat": (
        "s = Shape(x) i = Constant<value_int = 0>() g = Gather(s, i) a = Constant<value_ints = [0]>()"
        " u = Unsqueeze(g, a) r = Constant<value_ints = [-1]>() z = Concat<axis = 0>(u, r)",
        [2, -1],
    ),
    "arithmetic": (
        "s = Shape<start = 1>(x) p = ReduceProd<keepdims = 0>(s) t = Constant<value = int64 {2}>() z = Div(p, t)",
        [6],
    ),
    "slice": (
        "s = Shape(x) b = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(s, b, e)",
        [3, 4],
    ),
    "cast": (
        "s = Shape(x) f = Cast<to = 1>(s) h = Constant<value_float = 0.5>() m = Mul(f, h) z = Cast<to = 7>(m)",
        [1, 1, 2],
    ),
    "of a constant": ("z = Shape(w)", [5]),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_chains_of_shape_arithmetic_have_their_value(chain: str) -> None:
    nodes, expected = CHAINS[chain]
    known = facts(network(f"g (float[2,3,4] x) => (int64[] z) {{ {nodes} }}", w=np.ones(5)))
    assert known.integers("z") == tuple(expected)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("value = float[2] {1.5, 2.5}", [1.5, 2.5]),
        ("value_float = 1.5", 1.5),
        ("value_int = 3", 3),
        ("value_floats = [1.5, 2.5]", [1.5, 2.5]),
        ("value_ints = [3, 4]", [3, 4]),
    ],
)
def test_a_constant_node_has_its_value_in_every_notation(attribute: str, expected: object) -> None:
    known = facts(network(f"g (float[2] x) => (float[] k) {{ k = Constant<{attribute}>() }}"))
    value = known.value("k")
    assert value is not None
    np.testing.assert_array_equal(value, expected)


def test_a_scalar_is_a_constant_with_one_element() -> None:
    known = facts(network("g (float[2] x) => (float[2] z) { z = Add(x, w) }", w=[[2.5]], v=[1.0, 2.0]))
    assert (known.scalar("w"), known.scalar("v"), known.scalar("x"), known.scalar("")) == (2.5, None, None, None)


def test_large_expressions_are_left_to_the_runtime_and_large_weights_are_not_read() -> None:
    known = facts(
        network("g (float[300,300] x) => (float[300,300] z) { v = Neg(w) z = Add(x, v) }", w=np.ones((300, 300)))
    )
    assert known.is_constant("v") and known.value("v") is None
    assert known.range("w") == UNBOUNDED


def test_what_is_left_to_the_runtime_is_not_even_read(tmp_path: Path) -> None:
    """Weights may be gigabytes in a file; the file here is a folder, which nobody can read."""
    model = network("g (float[300,300] x) => (float[300,300] z) { v = Neg(w) s = ReduceMax(v) z = Clip(x, s) }")
    tensor = model.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[300, 300])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=".")
    known = Facts(Graph(model), (tmp_path,))
    assert known.value("v") is None and known.value("s") is None and known.range("z") == Range()


def test_a_long_chain_of_constants_is_folded() -> None:
    chain = " ".join(f"c{i + 1} = Neg(c{i})" for i in range(1201))
    known = facts(network(f"g (float[2] x) => (float[2] z) {{ {chain} z = Mul(x, c1201) }}", c0=2.0))
    assert known.scalar("c1201") == -2.0


def test_a_relu_and_a_clip_from_zero_vanish_below_zero() -> None:
    known = facts(
        network(
            "g (float[2] x) => (float[2] z)"
            " { a = Relu(x) b = Clip(x, o, s) c = Clip(x, s) d = Abs(x) z = Sum(a, b, c, d) }",
            o=0.0,
            s=6.0,
        )
    )
    assert [known.vanishes_below_zero(t, "x") for t in ("a", "b", "c", "d", "x")] == [True, True, False, False, False]


def test_what_the_evaluator_cannot_fold_is_unknown() -> None:
    known = facts(network("g (float[2] x) => (float[2] z) { v = com.example.Odd(w) z = Add(x, v) }", w=np.ones(2)))
    assert known.is_constant("v") and known.value("v") is None


def _with_external_weight(folder: Path, constant_node: bool) -> Facts:
    model = network("g (float[3] x) => (float[3] z) { z = Add(x, w) }")
    if constant_node:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=onnx.TensorProto()))
        tensor = model.graph.node[0].attribute[0].t
    else:
        tensor = model.graph.initializer.add(name="w")
    tensor.CopyFrom(onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3]))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (folder / "weights.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return Facts(Graph(load(path).model), (folder,))


@pytest.mark.parametrize("constant_node", [False, True], ids=["initializer", "constant node"])
def test_external_values_are_read_from_their_folder(tmp_path: Path, constant_node: bool) -> None:
    known = _with_external_weight(tmp_path, constant_node)
    value = known.value("w")
    assert value is not None and value.tolist() == [1, 2, 3]
    assert known.range("w") == Range(1, 3)
    assert Facts(known.graph).value("w") is None


def test_values_agree_with_the_reference_evaluator_on_a_chain_of_float_constants() -> None:
    model = network(
        """g (float[2,3] x) => (float[2,3] z, float[3] v)
        { s = Sqrt(w) t = Tanh(s) v = Sub(w, t) z = Add(x, v) }""",
        w=np.abs(normal(3)),
    )
    x: Array = normal(2, 3)
    expected = ReferenceEvaluator(model).run(["v"], {"x": x})
    np.testing.assert_array_equal(facts(model).value("v"), expected[0])


def test_only_a_relu_stands_in_for_its_input() -> None:
    known = facts(
        network("g (float[2] x) => (float[2] z) { a = Relu(x) b = Relu(a) c = Abs(x) d = Add(b, c) z = LeakyRelu(d) }")
    )
    assert known.stands_in("a", "x")
    assert not known.stands_in("b", "x"), "it is the Relu of something else"
    assert not known.stands_in("c", "x") and not known.stands_in("z", "d")
    assert not known.stands_in("x", "x")
