"""Which nodes are treated as one linear layer, and that this layer is the same function as its nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxlrp.emit import assemble
from onnxlrp.emit.builder import Builder
from onnxlrp.graph.surgeon import constant_proto
from onnxlrp.graph.view import Graph
from onnxlrp.operators.behaviour import Linear, Weighted
from onnxlrp.operators.registry import Situation
from onnxlrp.rules.recipe import run
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.regions import Region, describe_region, find_regions
from tests.graph.written import Array, network, normal, prepared
from tests.support.evaluate import run_reference, to_float64

BN = {
    "k": normal(4, seed=11),
    "c": normal(4, seed=12),
    "m": normal(4, seed=13),
    "v": np.abs(normal(4, seed=14)) + 0.3,
}
IMAGE = "g (float[2,4,6,6] x) => (float[?,?,?,?] y)"
TABLE = "g (float[3,5] x) => (float[?,?] y)"
SEQUENCE = "g (float[2,3,5] x) => (float[?,?,?] y)"
KERNEL = normal(4, 4, 3, 3, seed=1)
BIAS = normal(4, seed=2)
DENSE = normal(5, 4, seed=3)


def regions_of(model: onnx.ModelProto, *pinned: str, merge: bool = True) -> list[str]:
    ready = prepared(model)
    graph = Graph(ready.model, ready.inferred)
    found = find_regions(graph, Facts(graph), frozenset(pinned), merge)
    return sorted({region.name for region in found.values()})


def net(head: str, nodes: str, **weights: Any) -> onnx.ModelProto:
    return network(f"{head} {{ {nodes} }}", **BN, **weights)


#: What is merged: name -> (model, the nodes of the region, in order).
MERGED: dict[str, tuple[onnx.ModelProto, str]] = {
    "conv, batch norm": (
        net(IMAGE, "a = Conv<pads = [1,1,1,1]>(x, w, b) y = BatchNormalization(a, k, c, m, v)", w=KERNEL, b=BIAS),
        "Conv+BatchNormalization",
    ),
    "conv without bias, batch norm": (
        net(IMAGE, "a = Conv(x, w) y = BatchNormalization<epsilon = 0.1>(a, k, c, m, v)", w=KERNEL),
        "Conv+BatchNormalization",
    ),
    "grouped conv, batch norm": (
        net(
            IMAGE,
            "a = Conv<group = 2, strides = [2,2]>(x, w, b) y = BatchNormalization(a, k, c, m, v)",
            w=normal(4, 2, 3, 3, seed=4),
            b=BIAS,
        ),
        "Conv+BatchNormalization",
    ),
    "transposed conv, batch norm": (
        net(
            IMAGE,
            "a = ConvTranspose<strides = [2,2]>(x, w, b) y = BatchNormalization(a, k, c, m, v)",
            w=normal(4, 4, 3, 3, seed=4),
            b=BIAS,
        ),
        "ConvTranspose+BatchNormalization",
    ),
    "grouped transposed conv, batch norm": (
        net(
            IMAGE,
            "a = ConvTranspose<group = 2>(x, w) y = BatchNormalization(a, k, c, m, v)",
            w=normal(4, 2, 3, 3, seed=4),
        ),
        "ConvTranspose+BatchNormalization",
    ),
    "conv, several steps": (
        net(
            IMAGE,
            "a = Conv(x, w, b) d = Mul(a, s) e = Add(t, d) f = BatchNormalization(e, k, c, m, v) h = Sub(f, s)"
            " y = Div(h, u)",
            w=KERNEL,
            b=BIAS,
            s=normal(1, 4, 1, 1, seed=5),
            t=normal(4, 1, 1, seed=6),
            u=np.abs(normal(4, 1, 1, seed=7)) + 0.5,
        ),
        "Conv+Mul+Add+BatchNormalization+Sub+Div",
    ),
    "batch norm, padded conv": (
        net(IMAGE, "a = BatchNormalization(x, k, c, m, v) y = Conv<pads = [1,2,0,1]>(a, w, b)", w=KERNEL, b=BIAS),
        "BatchNormalization+Conv",
    ),
    "batch norm, grouped padded conv, batch norm, add": (
        net(
            IMAGE,
            "a = BatchNormalization(x, k, c, m, v) d = Conv<group = 2, pads = [1,1,1,1]>(a, w)"
            " e = BatchNormalization(d, c, k, m, v) y = Add(e, t)",
            w=normal(4, 2, 3, 3, seed=4),
            t=normal(4, 1, 1, seed=6),
        ),
        "BatchNormalization+Conv+BatchNormalization+Add",
    ),
    "batch norm, conv, scalar": (
        net(
            IMAGE,
            "a = BatchNormalization(x, k, c, m, v) d = Conv<pads = [1,1,1,1]>(a, w) e = Add(d, t) y = Mul(e, t)",
            w=KERNEL,
            t=0.7,
        ),
        "BatchNormalization+Conv+Add+Mul",
    ),
    "batch norm, transposed conv": (
        net(
            IMAGE,
            "a = BatchNormalization(x, k, c, m, v) y = ConvTranspose<pads = [1,1,1,1], group = 2>(a, w, b)",
            w=normal(4, 2, 3, 3, seed=4),
            b=BIAS,
        ),
        "BatchNormalization+ConvTranspose",
    ),
    "batch norm, gemm": (
        net(
            "g (float[3,4] x) => (float[?,?] y)",
            "a = BatchNormalization(x, k, c, m, v) y = Gemm<transB = 1>(a, w, b)",
            w=DENSE,
            b=normal(5),
        ),
        "BatchNormalization+Gemm",
    ),
    "batch norm, matmul, add": (
        net(
            "g (float[3,4] x) => (float[?,?] y)",
            "a = BatchNormalization(x, k, c, m, v) d = MatMul(a, w) y = Add(d, b)",
            w=normal(4, 6),
            b=normal(6),
        ),
        "BatchNormalization+MatMul+Add",
    ),
    "matmul, add": (net(TABLE, "a = MatMul(x, w) y = Add(b, a)", w=DENSE, b=BIAS), "MatMul+Add"),
    "matmul, add of a plane": (
        net(TABLE, "a = MatMul(x, w) y = Sub(a, b)", w=DENSE, b=normal(3, 4)),
        "MatMul+Sub",
    ),
    "matmul of rank 3": (
        net(SEQUENCE, "a = MatMul(x, w) d = Mul(a, s) y = Add(d, b)", w=DENSE, s=normal(4, seed=9), b=BIAS),
        "MatMul+Mul+Add",
    ),
    "matmul of rank 3, add of positions": (
        net(SEQUENCE, "a = MatMul(x, w) y = Add(a, b)", w=DENSE, b=normal(3, 4)),
        "MatMul+Add",
    ),
    "batched weight, add": (
        net(SEQUENCE, "a = MatMul(x, w) y = Add(a, b)", w=normal(2, 5, 4), b=BIAS),
        "MatMul+Add",
    ),
    "gemm, batch norm": (
        net(
            TABLE,
            "a = Gemm<alpha = 0.5, beta = 2.0>(x, w, b) y = BatchNormalization(a, k, c, m, v)",
            w=DENSE,
            b=BIAS,
        ),
        "Gemm+BatchNormalization",
    ),
    "gemm with transposed weight, mul, add": (
        net(
            TABLE,
            "a = Gemm<transB = 1>(x, w, b) d = Mul(a, s) y = Add(d, s)",
            w=normal(4, 5),
            b=BIAS,
            s=normal(4, seed=9),
        ),
        "Gemm+Mul+Add",
    ),
    "gemm with a bias per sample, mul": (
        net(
            "g (float[3,5] x) => (float[3,4] y)",
            "a = Gemm(x, w, b) y = Mul(a, s)",
            w=DENSE,
            b=normal(3, 1),
            s=normal(1, 4, seed=9),
        ),
        "Gemm+Mul",
    ),
}
#: Per-channel constants of every shape that exporters use, behind a convolution with and without a bias.
for _shape in [(), (1,), (1, 1, 1), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1)]:
    for _bias in ("", ", b"):
        for _op in ("Add", "Sub", "Mul", "Div"):
            MERGED[f"conv{_bias}, {_op} {list(_shape)}"] = (
                net(IMAGE, f"a = Conv(x, w{_bias}) y = {_op}(a, t)", w=KERNEL, b=BIAS, t=normal(*_shape, seed=8) + 2),
                f"Conv+{_op}",
            )


@pytest.mark.parametrize("case", MERGED)
def test_a_layer_and_its_affine_steps_are_one(case: str) -> None:
    model, name = MERGED[case]
    assert regions_of(model) == [name]


def _described(model: onnx.ModelProto) -> tuple[Graph, Region, Linear]:
    ready = prepared(model)
    graph = Graph(ready.model, ready.inferred)
    facts = Facts(graph)
    (region,) = {id(r): r for r in find_regions(graph, facts, frozenset()).values()}.values()
    last = region.nodes[-1]
    active = frozenset({"x"} | {o for n in region.nodes for o in n.outputs})
    found = describe_region(region, Situation(last, graph, facts, active), lambda node: active)
    assert isinstance(found, Linear)
    return graph, region, found


def _with_merged(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what the merged layer gives, without its bias too, and its transpose applied to `probe`."""
    graph, _, op = _described(model)
    b = Builder(graph)
    (term,) = op.terms
    assert isinstance(term.map, Weighted)
    layer = term.map.with_weight(term.map.weight(b))
    z = run(b, op, [(layer, term.x)], op.bias(b) if op.bias else None)
    unbiased = layer.forward(b, term.x, None)
    b.declare("probe", TensorProto.DOUBLE)
    back = layer.adjoint(b, "probe")
    named = {"merged": z, "unbiased": unbiased, "transposed": back}
    if op.bias is not None and op.bias_size is not None:
        named["bias"] = op.bias(b)
    nodes = assemble.protos(b.nodes) + [helper.make_node("Identity", [t], [n]) for n, t in named.items()]
    shape = [None] * len(graph.shape(op.y) or ())
    result = onnx.ModelProto()
    result.CopyFrom(model)
    assemble.overlay(
        result,
        nodes,
        {n: constant_proto(n, v) for n, v in b.constants.items()},
        [helper.make_tensor_value_info("probe", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in named],
        [],
    )
    return result


@pytest.mark.parametrize("case", MERGED)
def test_the_merged_layer_is_the_same_function_as_its_nodes(case: str) -> None:
    model = to_float64(MERGED[case][0])
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x: Array = normal(*dims, seed=21).astype(np.float64)
    y = run_reference(model, {"x": x})["y"]
    s = normal(*y.shape, seed=22).astype(np.float64)
    found = run_reference(_with_merged(model), {"x": x, "probe": s})
    np.testing.assert_allclose(found["merged"], y, rtol=1e-12, atol=1e-12)
    if "bias" in found and not case.startswith(("gemm", "matmul")):
        assert found["bias"].shape == (y.shape[1],), "a convolution takes a bias of one number per channel only"
    # The transpose belongs to the same weights: <W x, s> = <x, W^T s>.
    np.testing.assert_allclose((found["unbiased"] * s).sum(), (x * found["transposed"]).sum(), rtol=1e-10)


#: What must stay apart, with the reason as the name.
APART: dict[str, onnx.ModelProto] = {
    "two readers": net(
        IMAGE, "a = Conv(x, w) n = BatchNormalization(a, k, c, m, v) r = Relu(a) y = Add(n, r)", w=KERNEL
    ),
    "a branch that reads it": net(
        "g (float[2,4,6,6] x, bool q) => (float[?,?,?,?] y)",
        "a = Conv(x, w) n = BatchNormalization(a, k, c, m, v)"
        " i = If(q) <then_branch = t () => (float[2,4,4,4] p) { p = Relu(a) },"
        " else_branch = e () => (float[2,4,4,4] o) { o = Neg(n) }> y = Neg(i)",
        w=KERNEL,
    ),
    "a factor that differs from place to place": net(IMAGE, "a = Conv(x, w) y = Mul(a, t)", w=KERNEL, t=normal(4, 4)),
    "a shift that differs from place to place": net(IMAGE, "a = Conv(x, w) y = Add(a, t)", w=KERNEL, t=normal(4, 4)),
    "a factor along the wrong axis": net(IMAGE, "a = Conv(x, w) y = Mul(a, t)", w=KERNEL, t=normal(4)),
    "a factor that enlarges the output": net(
        IMAGE, "a = Conv(x, w) y = Mul(a, t)", w=normal(1, 4, 3, 3), t=normal(1, 4, 1, 1)
    ),
    "a shift that adds an axis": net(
        "g (float[3,5] x) => (float[?,?,?] y)", "a = MatMul(x, w) y = Add(a, t)", w=DENSE, t=normal(1, 1, 4)
    ),
    "a constant divided by it": net(IMAGE, "a = Conv(x, w) y = Div(t, a)", w=KERNEL, t=normal(1)),
    "a constant less it": net(IMAGE, "a = Conv(x, w) y = Sub(t, a)", w=KERNEL, t=normal(1)),
    "data added": net(IMAGE, "a = Conv<pads = [1,1,1,1]>(x, w) y = Add(a, x)", w=KERNEL),
    "it is added to itself": net(IMAGE, "a = Conv(x, w) y = Add(a, a)", w=KERNEL),
    "a function between": net(IMAGE, "a = Conv(x, w) r = Relu(a) y = BatchNormalization(r, k, c, m, v)", w=KERNEL),
    "statistics that depend on data": net(
        IMAGE, "a = Conv(x, w) t = ReduceMean<keepdims = 0>(x, o) y = BatchNormalization(a, k, t, m, v)",
        w=KERNEL, o=np.array([0, 2, 3]),
    ),
    "weights that depend on data": net(
        IMAGE, "t = Slice(x, o, o, o) u = Concat<axis = 0>(x, t) a = Conv(x, u) y = Add(a, f)",
        o=np.array([0]), f=normal(1),
    ),
    "a factor behind a batched weight": net(
        SEQUENCE, "a = MatMul(x, w) y = Mul(a, t)", w=normal(2, 5, 4), t=normal(4)
    ),
    "a product that is a single number": net("g (float[5] x) => (float y)", "a = MatMul(x, w) y = Add(a, t)",
        w=normal(5), t=1.0),
    "batch norm before two layers, one of which cannot take it": net(
        IMAGE, "a = BatchNormalization(x, k, c, m, v) d = Conv(a, w) r = GlobalAveragePool(a) y = Add(d, r)", w=KERNEL
    ),
    "batch norm before a gemm that transposes it": net(
        "g (float[4,4] x) => (float[?,?] y)", "a = BatchNormalization(x, k, c, m, v) y = Gemm<transA = 1>(a, w)",
        w=normal(4, 6),
    ),
    "another domain": net(IMAGE, "a = Conv(x, w) y = com.example.Add(a, t)", w=KERNEL, t=normal(1)),
}  # fmt: skip


@pytest.mark.parametrize("case", APART)
def test_what_stays_apart(case: str) -> None:
    assert regions_of(APART[case]) == []


def test_a_tensor_that_is_explained_or_explained_from_stays_visible() -> None:
    forward, _ = MERGED["conv, batch norm"]
    assert regions_of(forward, "a") == []
    backward, _ = MERGED["batch norm, padded conv"]
    assert regions_of(backward, "a") == []
    assert regions_of(forward, "x", "y") == ["Conv+BatchNormalization"]


def test_an_output_in_between_does_not_keep_nodes_apart() -> None:
    """Only what relevance reads counts: one more output must not change the map."""
    for case in ("conv, batch norm", "batch norm, padded conv"):
        model, name = MERGED[case]
        more = onnx.ModelProto()
        more.CopyFrom(model)
        more.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
        assert regions_of(more) == [name]


def test_batch_norms_stay_apart_where_the_table_says_so_and_other_steps_do_not() -> None:
    model, _ = MERGED["conv, several steps"]
    assert regions_of(model, merge=False) == ["Conv+Mul+Add"]
    assert regions_of(MERGED["batch norm, padded conv"][0], merge=False) == []


def test_one_batch_norm_is_merged_into_every_layer_that_reads_it() -> None:
    model = net(
        IMAGE,
        "a = BatchNormalization(x, k, c, m, v) d = Conv(a, w) e = Conv(a, u, b) h = Add(e, t) y = Mul(d, h)",
        w=KERNEL,
        u=normal(4, 4, 3, 3, seed=6),
        b=BIAS,
        t=normal(1),
    )
    assert regions_of(model) == ["BatchNormalization+Conv", "BatchNormalization+Conv+Add"]


def test_a_batch_norm_between_two_layers_goes_to_the_first() -> None:
    model = net(
        IMAGE, "a = Conv(x, w) n = BatchNormalization(a, k, c, m, v) y = Conv(n, u)", w=KERNEL,
        u=normal(4, 4, 3, 3, seed=6),
    )  # fmt: skip
    assert regions_of(model) == ["Conv+BatchNormalization"]


def test_who_asks_for_a_shape_only_does_not_keep_nodes_apart() -> None:
    """TorchScript writes shapes that way."""
    layer = "n = BatchNormalization(x, k, c, m, v) s = Shape(n) a = Conv(n, w) t = Shape(a)"
    pointwise, offset = normal(4, 4, 1, 1, seed=5), normal(4, 1, 1, seed=6)
    assert regions_of(net(IMAGE, f"{layer} d = Add(a, b4) y = Reshape(d, s)", w=pointwise, b4=offset)) == [
        "BatchNormalization+Conv+Add"
    ]
