"""The builder: names, types, shared nodes and constants, and shapes that are known beforehand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxlrp.emit import assemble
from onnxlrp.emit.builder import Builder
from onnxlrp.graph.surgeon import constant_proto
from tests.graph.written import Array, network, normal, view


def builder(text: str = "g (float[N,3,4] x) => (float[N,3,4] y) { y = Relu(x) }") -> Builder:
    return Builder(view(network(text)))


def evaluate(b: Builder, tensor: str, feeds: dict[str, Array]) -> Array:
    """The value of an emitted tensor, run in the model that the builder's graph belongs to."""
    constants = {n: constant_proto(n, v) for n, v in b.constants.items()}
    output = helper.make_tensor_value_info("found", TensorProto.UNDEFINED, None)
    nodes = [*assemble.protos(b.nodes), helper.make_node("Identity", [tensor], ["found"])]
    model = onnx.ModelProto()
    model.CopyFrom(b.graph.proto)
    assemble.overlay(model, nodes, constants, [], [output], [])
    return np.asarray(ReferenceEvaluator(model).run(["found"], feeds)[0])


def test_nodes_are_named_after_the_forward_node_they_belong_to() -> None:
    b = builder()
    with b.scope("layer"):
        first, second = b.op("Neg", "x"), b.op("Neg", "y")
        with b.scope("inner"):
            third = b.op("Abs", "x")
        fourth = b.op("Abs", "y")
    assert [first, second, third, fourth] == ["lrp/layer/Neg", "lrp/layer/Neg_1", "lrp/inner/Abs", "lrp/layer/Abs"]
    assert [n.scope for n in b.nodes] == ["layer", "layer", "inner", "layer"]


def test_an_equal_node_is_made_once_and_a_different_one_again() -> None:
    b = builder()
    assert b.op("Softmax", "x", axis=1) == b.op("Softmax", "x", axis=1)
    assert len({b.op("Softmax", "x", axis=1), b.op("Softmax", "x", axis=2), b.op("Softmax", "y", axis=1)}) == 3
    assert b.ops("Split", "x", outputs=3, axis=1) == b.ops("Split", "x", outputs=3, axis=1)
    assert len(b.nodes) == 4


def test_equal_constants_are_one_and_types_tell_them_apart() -> None:
    b = builder()
    b.declare("h", TensorProto.DOUBLE)
    assert b.integers([1, 2]) == b.integers((1, 2))
    assert b.scalar(1.0, "x") == b.scalar(1.0, "y") != b.scalar(1.0, "h")
    assert b.integers([0]) != b.constant_int(0), "one is a vector"
    assert b.constant(np.asarray(0.0)) != b.constant(np.asarray(-0.0))


def test_missing_inputs_at_the_end_and_missing_attributes_are_left_out() -> None:
    b = builder()
    b.op("Clip", "x", b.scalar(0.0, "x"), "", reduction=None)
    (node,) = b.nodes
    assert (len(node.inputs), dict(node.attributes)) == (2, {})


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "kind"),
    [
        ("Neg", ("h",), {}, TensorProto.DOUBLE),
        ("Shape", ("h",), {}, TensorProto.INT64),
        ("Greater", ("h", "h"), {}, TensorProto.BOOL),
        ("Cast", ("h",), {"to": TensorProto.BOOL}, TensorProto.BOOL),
        ("Where", ("flag", "h", "h"), {}, TensorProto.DOUBLE),
        ("OneHot", ("i", "i", "h"), {}, TensorProto.DOUBLE),
        ("ConstantOfShape", ("i",), {}, TensorProto.FLOAT),
    ],
)
def test_the_element_type_of_a_new_tensor_is_known(
    op: str, inputs: tuple[str, ...], attributes: dict, kind: int
) -> None:
    b = builder()
    b.declare("h", TensorProto.DOUBLE)
    b.declare("i", TensorProto.INT64)
    assert b.dtype(b.op(op, *inputs, **attributes)) == kind


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_narrow_tensor_is_read_as_float32_through_one_cast(kind: int) -> None:
    b = builder()
    b.declare("h", kind)
    assert b.dtype("h") == TensorProto.FLOAT and b.own_dtype("h") == kind
    found = b.mul("h", b.add("h", b.scalar(1.0, "h")))
    assert b.dtype(found) == TensorProto.FLOAT
    b.op("Shape", "h")
    assert [(n.op, n.inputs) for n in b.nodes] == [
        ("Cast", ("h",)),
        ("Add", ("lrp/target/Cast", "lrp/const_0")),
        ("Mul", ("lrp/target/Cast", "lrp/target/Add")),
        ("Shape", ("h",)),
    ]
    assert b.constants["lrp/const_0"].dtype == np.float32


def test_a_part_of_the_model_computes_in_the_models_type_and_is_widened_afterwards() -> None:
    b = builder()
    b.declare("h", TensorProto.FLOAT16)
    with b.in_model_type():
        made = b.add("h", b.scalar(1.0, "h"))
        assert b.dtype(made) == TensorProto.FLOAT16
    b.op("Neg", made)
    assert [n.op for n in b.nodes] == ["Add", "Cast", "Neg"]
    assert b.constants["lrp/const_0"].dtype == np.float16


def test_a_tensor_of_the_wanted_type_needs_no_cast() -> None:
    b = builder()
    assert b.cast("x", TensorProto.FLOAT) == b.cast_down("x", TensorProto.FLOAT) == "x"
    assert not b.nodes


def test_what_a_smaller_type_cannot_hold_becomes_its_largest_number() -> None:
    b = builder()
    x = np.array([1e30, -1e30, 1.0, 70000.0], np.float32)
    found = evaluate(b, b.cast_down("x", TensorProto.FLOAT16), {"x": x})
    np.testing.assert_array_equal(found, np.array([65504, -65504, 1, 65504], np.float16))
    np.testing.assert_array_equal(evaluate(b, b.cast_down("x", TensorProto.DOUBLE), {"x": x}), x.astype(np.float64))


def test_the_shape_of_a_static_tensor_is_a_constant() -> None:
    static = builder("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    assert static.constants[static.shape_of("x")].tolist() == [2, 3]
    assert not static.nodes
    dynamic = builder()
    dynamic.shape_of("x")
    assert [n.op for n in dynamic.nodes] == ["Shape"]


def test_one_open_size_needs_no_shape_node_to_reshape() -> None:
    b = builder()
    found = evaluate(b, b.reshape_like(b.op("Flatten", "x"), "x"), {"x": normal(2, 3, 4)})
    np.testing.assert_array_equal(found, normal(2, 3, 4))
    assert "Shape" not in [n.op for n in b.nodes]
    two = builder("g (float[N,T,4] x) => (float[N,T,4] y) { y = Relu(x) }")
    found = evaluate(two, two.reshape_like(two.op("Flatten", "x"), "x"), {"x": normal(2, 3, 4)})
    np.testing.assert_array_equal(found, normal(2, 3, 4))


#: Shapes of two tensors as declared, and as they are at run time.
BROADCASTS = [
    ("[2,3]", "[3]", (2, 3), (3,)),
    ("[2,3]", "[1,3]", (2, 3), (1, 3)),
    ("[2,3]", "[2,1]", (2, 3), (2, 1)),
    ("[2,3,4]", "[3,1]", (2, 3, 4), (3, 1)),
    ("[N,3]", "[N,3]", (2, 3), (2, 3)),
    ("[N,3]", "[M,3]", (2, 3), (1, 3)),
    ("[N,3]", "[M,3]", (2, 3), (2, 3)),
    ("[N,3]", "[N,1]", (2, 3), (2, 1)),
    ("[N,?,4]", "[?,4]", (2, 3, 4), (3, 4)),
    ("[N,?,4]", "[?,4]", (2, 3, 4), (1, 4)),
    ("[N,K]", "[1]", (2, 3), (1,)),
    ("[N,1]", "[1,1]", (2, 1), (1, 1)),
    ("[N,1]", "[1,1]", (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("large", "small", "large_shape", "small_shape"), BROADCASTS)
def test_what_was_broadcast_is_summed_back(large: str, small: str, large_shape: tuple, small_shape: tuple) -> None:
    b = builder(f"g (float{large} x, float{small} s) => (float[] y) {{ y = Add(x, s) }}")
    x, s = normal(*large_shape), normal(*small_shape, seed=1)
    found = evaluate(b, b.sum_to("x", "x", "s"), {"x": x, "s": s})
    missing = tuple(range(len(large_shape) - len(small_shape)))
    expected = x.sum(axis=missing)
    stretched = tuple(i for i, (a, c) in enumerate(zip(expected.shape, small_shape, strict=True)) if a != c)
    np.testing.assert_allclose(found, expected.sum(axis=stretched, keepdims=True), rtol=1e-6)
    assert found.shape == small_shape


def test_nothing_is_summed_where_nothing_was_broadcast() -> None:
    b = builder("g (float[N,3] x, float[N,3] s) => (float[N,3] y) { y = Add(x, s) }")
    assert b.sum_to("x", "x", "s") == "x"
    assert not b.nodes


def test_an_empty_tensor_is_reshaped_to_an_empty_one() -> None:
    b = builder("g (float[3,0,4] x, float[0,4,3] s) => (float[3,0,4] y) { y = Relu(x) }")
    found = evaluate(b, b.reshape_like("s", "x"), {"x": normal(3, 0, 4), "s": normal(0, 4, 3)})
    assert found.shape == (3, 0, 4)


@pytest.mark.parametrize("overlapping", [True, False])
def test_values_are_scattered_to_flat_positions(overlapping: bool) -> None:
    b = builder("g (float[2,3] x, int64[2,2] at, float[2,2] v) => (float[2,3] y) { y = Relu(x) }")
    at = np.array([[0, 5], [2, 0]]) if overlapping else np.array([[0, 5], [2, 1]])
    v = np.array([[1, 2], [3, 4]], np.float32)
    found = evaluate(b, b.scatter_flat("x", "at", "v", overlapping), {"x": normal(2, 3), "at": at, "v": v})
    expected = np.zeros(6)
    np.add.at(expected, at.reshape(-1), v.reshape(-1))
    np.testing.assert_array_equal(found, expected.reshape(2, 3))


@pytest.mark.parametrize("declared", ["[2,3,4]", "[N,3,4]", "[N,K,4]"])
@pytest.mark.parametrize("axes", [(1,), (0, 2), None])
def test_a_fraction_is_one_over_the_number_of_elements(declared: str, axes: tuple[int, ...] | None) -> None:
    b = builder(f"g (float{declared} x) => (float[] y) {{ y = Relu(x) }}")
    found = evaluate(b, b.fraction("x", axes), {"x": normal(2, 3, 4)})
    np.testing.assert_allclose(found, 1 / np.prod([(2, 3, 4)[a] for a in (axes or (0, 1, 2))]), rtol=1e-6)


def test_arithmetic_reads_as_it_computes() -> None:
    b, x = builder(), normal(2, 3, 4)
    cases = {
        b.scale("x", 1.0): x,
        b.scale("x", 2.0): 2 * x,
        b.positive("x"): np.maximum(x, 0),
        b.negative("x"): np.minimum(x, 0),
        b.square("x"): x * x,
        b.mask(b.is_positive("x"), "x"): np.maximum(x, 0),
        b.where(b.is_positive("x"), "x", b.scalar(7.0, "x")): np.where(x > 0, x, 7),
        b.zeros_like("x"): 0 * x,
        b.expand_like(b.scalar(2.0, "x"), "x"): np.full_like(x, 2),
        b.sum(["x", "x", "x"]): 3 * x,
    }
    for tensor, expected in cases.items():
        np.testing.assert_allclose(evaluate(b, tensor, {"x": x}), expected, rtol=1e-6)


def test_a_quotient_is_zero_where_its_divisor_is_and_never_infinite() -> None:
    b = builder("g (float[4] x, float[4] d) => (float[4] y) { y = Add(x, d) }")
    x, d = np.array([6, 5, 0, 1e30], np.float32), np.array([3, 0, 0, -1e-40], np.float32)
    with np.errstate(over="ignore"):
        found = evaluate(b, b.quotient("x", "d"), {"x": x, "d": d})
    np.testing.assert_array_equal(found, np.array([2, 0, 0, -(2.0**100)], np.float32))


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
@pytest.mark.parametrize("bound", [0.0, 6.0, -1.5, 2.0**-9, 1e4])
def test_a_step_tells_a_bound_from_its_neighbours_in_every_type(kind: str, bound: float) -> None:
    b = builder(f"g ({kind}[7] x) => ({kind}[7] y) {{ y = Relu(x) }}")
    dtype = b.numpy_type("x").type
    middle = dtype(bound)
    # Beside zero lie numbers so small that no network tells them from it.
    beside = [dtype(s * 2.0**-14) if bound == 0 else np.nextafter(middle, dtype(s * np.inf)) for s in (-1, 1)]
    limits = [np.finfo(dtype).min, np.finfo(dtype).max]
    x = np.array([*limits, *beside, middle, dtype(bound - 1), dtype(bound + 1)], dtype)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(evaluate(b, b.above("x", bound), {"x": x}), (x > middle).astype(dtype))
        np.testing.assert_array_equal(evaluate(b, b.below("x", bound), {"x": x}), (x < middle).astype(dtype))


def test_the_sign_of_zero_is_one() -> None:
    b, x = builder("g (float[4] x) => (float[4] y) { y = Relu(x) }"), np.array([-2, 0, -0.0, 1e-20], np.float32)
    np.testing.assert_array_equal(evaluate(b, b.sign("x"), {"x": x}), np.array([-1, 1, 1, 1], np.float32))
