"""Numbers: maps of narrow models agree with those of the float32 model, and stay finite for any finite input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxlrp
from onnxlrp.tables import parse_table, preset_names
from tests.emit.test_control import CASES
from tests.emit.test_control import X as CONTROL_INPUT
from tests.graph.written import Array, classifier, network, normal
from tests.support.evaluate import cosine, run_onnxruntime, run_reference, to_type


def residual() -> onnx.ModelProto:
    """Convolutions with a skip connection, a squeeze-excite gate and an average pooling."""
    return network(
        """g (float[N,2,6,6] x) => (float[N,4] y)
        {
          a = Conv<pads = [1,1,1,1]>(x, w1, b1)
          r = Relu(a)
          c = Conv<pads = [1,1,1,1]>(r, w2)
          n = BatchNormalization(c, scale, shift, mean, variance)
          s = Add(n, r)
          q = GlobalAveragePool(s)
          e = Conv(q, w3, b3)
          gate = Sigmoid(e)
          m = Mul(s, gate)
          h = HardSwish(m)
          p = AveragePool<kernel_shape = [2,2], strides = [2,2]>(h)
          f = Flatten(p)
          y = Gemm(f, w4, b4)
        }""",
        w1=normal(4, 2, 3, 3, seed=1),
        b1=normal(4, seed=2),
        w2=normal(4, 4, 3, 3, seed=3) / 4,
        scale=normal(4, seed=4),
        shift=normal(4, seed=5),
        mean=normal(4, seed=6),
        variance=np.abs(normal(4, seed=7)) + 0.5,
        w3=normal(4, 4, 1, 1, seed=8),
        b3=normal(4, seed=9),
        w4=normal(36, 4, seed=10) / 6,
        b4=normal(4, seed=11),
    )


def attention() -> onnx.ModelProto:
    """One head of attention between layer normalisations, with a GELU behind it."""
    return network(
        """g (float[N,5,8] x) => (float[N,5,3] y)
        {
          n = LayerNormalization(x, scale, shift)
          q = MatMul(n, wq)
          k = MatMul(n, wk)
          v = MatMul(n, wv)
          t = Transpose<perm = [0,2,1]>(k)
          scores = MatMul(q, t)
          weights = Softmax<axis = -1>(scores)
          o = MatMul(weights, v)
          s = Add(o, x)
          u = LayerNormalization(s, scale, shift)
          h = MatMul(u, w1)
          a = Gelu(h)
          y = MatMul(a, w2)
        }""",
        scale=np.abs(normal(8, seed=1)) + 0.5,
        shift=normal(8, seed=2) / 4,
        wq=normal(8, 8, seed=3) / 3,
        wk=normal(8, 8, seed=4) / 3,
        wv=normal(8, 8, seed=5) / 3,
        w1=normal(8, 12, seed=6) / 3,
        w2=normal(12, 3, seed=7) / 3,
    )


def smooth() -> onnx.ModelProto:
    """A chain of element-wise functions and norms between dense layers."""
    return network(
        """g (float[N,6] x) => (float[N,4] y)
        {
          a = Gemm(x, w1, b1)
          t = Gelu<approximate = "tanh">(a)
          u = Elu(t)
          m = Mish(u)
          l2 = ReduceL2<keepdims = 1>(m, last)
          k = Add(l2, one)
          d = Div(m, k)
          z = Softplus(d)
          r = Sqrt(z)
          y = Gemm(r, w2)
        }""",
        w1=normal(6, 8, seed=1),
        b1=normal(8, seed=2),
        last=np.array([1]),
        one=np.array(1.0),
        w2=normal(8, 4, seed=3),
    )


def roots() -> onnx.ModelProto:
    """Functions that are steep at zero or not zero there, and sums and norms of what they make; no biases."""
    return network(
        """g (float[N,6] x) => (float[N,4] y)
        {
          a = Gemm(x, w1)
          p = Relu(a)
          s = Sqrt(p)
          q = Pow(p, power)
          c = Sigmoid(a)
          t = Softplus(a)
          u = Sub(s, c)
          v = Add(u, q)
          m = Mul(v, t)
          n = ReduceL2<keepdims = 1>(m, last)
          k = Max(n, one)
          d = Div(m, k)
          l1 = ReduceL1<keepdims = 1>(d, last)
          z = Sum(d, l1, c)
          y = MatMul(z, w2)
        }""",
        w1=normal(6, 8, seed=1),
        power=np.array(0.5),
        last=np.array([1]),
        one=np.array(1.0),
        w2=normal(8, 4, seed=3),
    )


def dense() -> onnx.ModelProto:
    """Operators for which onnxruntime has float64 kernels."""
    return network(
        """g (float[N,6] x) => (float[N,4] y)
        {
          a = Gemm(x, w1, b1)
          r = Relu(a)
          t = Tanh(a)
          s = Sigmoid(a)
          m = Mul(t, s)
          q = Add(r, m)
          n = LayerNormalization(q, scale, shift)
          e = ReduceMean<keepdims = 1>(n, last)
          d = Sub(n, e)
          z = Softmax<axis = -1>(d)
          k = ReduceMax<keepdims = 1>(d, last)
          v = Add(z, k)
          c = Clip(v, low, high)
          o = Sqrt(s)
          g = Add(s, half)
          l = Log(g)
          p = Add(o, l)
          j = Concat<axis = 1>(c, p)
          y = MatMul(j, w2)
        }""",
        w1=normal(6, 8, seed=1),
        b1=normal(8, seed=2),
        scale=normal(8, seed=3),
        shift=normal(8, seed=4),
        last=np.array([1]),
        low=np.array(-3.0),
        high=np.array(3.0),
        half=np.array(0.5),
        w2=normal(16, 4, seed=5),
    )


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "convolutions": classifier,
    "residual": residual,
    "attention": attention,
    "smooth": smooth,
    "roots": roots,
    "dense": dense,
}
KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
}


#: Rules and stabilisers that no preset has, by the preset that treats the rest of the network.
TABLES = {
    "no stabiliser": '[[rule]]\nrule = "z"',
    "norm": '[[rule]]\nrule = "norm"',
    "clip": '[[rule]]\nrule = "z-plus"\nstabiliser = "clip"',
    "no epsilon": '[[rule]]\nrule = "alpha-beta"\nepsilon = 0\n[[rule]]\nrule = "half"',
    "ignored bias": '[[rule]]\nrule = "gamma"\nbias = "ignore"',
    "w-square": '[[rule]]\nrule = "w-square"',
    "flat": '[[rule]]\nrule = "flat"\n[[rule]]\nrule = "pass"',
}


@cache
def converted(net: str, kind: str, rules: str) -> onnx.ModelProto:
    rest = '\n[[rule]]\nrule = "epsilon"\nepsilon = 0\n'
    table = parse_table(TABLES[rules] + rest, name=rules, source="test") if rules in TABLES else rules
    return onnxlrp.convert(to_type(NETWORKS[net](), KINDS[kind]), rules=table)


#: Operators that compare numbers or are taken apart, on x [2,4,6].
NARROW = {
    "Max": "n = Neg(x) y = Max(x, n, h)",
    "Min of what is computed": "a = Mul(x, f) q = Add(a, h) y = Min(q, one)",
    "ReduceMax": "y = ReduceMax<keepdims = 1>(x, last)",
    "ReduceMin over axes known at run time": "y = ReduceMin(x, axes)",
    "ScatterElements": 'n = Neg(x) y = ScatterElements<axis = 1, reduction = "max">(h, index, n)',
    "LpNormalization": "y = LpNormalization(x)",
    "LpNormalization of large numbers": "a = Mul(x, large) y = LpNormalization<axis = 1>(a)",
    "LSTM": 'y, , = LSTM<hidden_size = 3, direction = "bidirectional">(x, w, r)',
    "GRU": 'y, = GRU<hidden_size = 3, direction = "reverse">(x, wg, rg)',
    "PRelu": "n = Mul(x, h) y = PRelu(x, n)",
}


def narrow_case(nodes: str) -> onnx.ModelProto:
    """The nodes with the weights and inputs that they use."""
    shape = "[A,B,C,D]" if "hidden_size" in nodes else "[A,B,C]"
    model = network(
        f"g (float[2,4,6] x, int64[1] axes) => (float{shape} y) {{ {nodes} }}",
        h=normal(2, 4, 6, seed=1),
        f=np.array(0.37),
        one=np.array(0.5),
        large=np.array(400.0),
        last=np.array([-1]),
        index=np.tile(np.arange(4)[None, :, None], (2, 1, 6)) // 2,
        w=normal(2, 12, 6, seed=2) / 2,
        r=normal(2, 12, 3, seed=3) / 2,
        wg=normal(1, 9, 6, seed=4) / 2,
        rg=normal(1, 9, 3, seed=5) / 2,
    )
    used = {i for node in model.graph.node for i in node.input}
    for kept, name in ((model.graph.initializer, "initializer"), (model.graph.input, "input")):
        values = [v for v in kept if v.name in used]
        model.graph.ClearField(name)
        getattr(model.graph, name).extend(values)
    return model


def shape_of(model: onnx.ModelProto) -> tuple[int, ...]:
    return (2, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]))


def everything(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all of its tensors as outputs."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = {v.name for v in result.graph.output}
    made = (o for node in result.graph.node for o in node.output if o not in known)
    result.graph.output.extend(helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in made)
    return result


def finite(outputs: Mapping[str, Array]) -> bool:
    return all(np.isfinite(value.astype(np.float64)).all() for value in outputs.values())


@cache
def extremes(net: str, kind: str) -> dict[str, Array]:
    """Inputs at the ends of a type's range, by name, in that type; the large ones as large as the network can take."""
    model = to_type(NETWORKS[net](), KINDS[kind])
    inside, shape, name = everything(model), shape_of(model), model.graph.input[0].name
    dtype = helper.tensor_dtype_to_np_dtype(KINDS[kind])
    limits = ml_dtypes.finfo(dtype)
    ordinary = normal(*shape, seed=3)
    signs, second = np.sign(ordinary).astype(np.float64), np.arange(2.0).reshape(2, *[1] * (len(shape) - 1))
    made = {
        "zeros": np.zeros(shape),
        "ordinary": ordinary,
        "constant": np.full(shape, 0.7),
        "one sample of zeros": ordinary * second,
        "denormal": signs * float(limits.smallest_subnormal),
        "smallest": signs * float(limits.smallest_normal),
    }
    exponent = np.log10(float(limits.max))
    for part in np.arange(0.98, 0.0, -0.02):
        large = (signs * 10 ** (part * exponent)).astype(dtype)
        with np.errstate(all="ignore"):
            if finite(run_reference(inside, {name: large})):
                made["large"] = large
                break
    return {name: value.astype(dtype) for name, value in made.items()}


def run(net: str, model: onnx.ModelProto, kind: str, x: Array) -> dict[str, Array]:
    """In onnxruntime, where it has kernels for the type, otherwise in the reference evaluator."""
    feeds = {model.graph.input[0].name: x}
    runs = kind in ("float32", "float16") or (kind == "float64" and net == "dense")
    with np.errstate(all="ignore"):
        return run_onnxruntime(model, feeds) if runs else run_reference(model, feeds)


#: Where rounding in the forward pass decides little: no epsilon-rule with its small denominators.
ROBUST = ("epsilon-plus", "epsilon-gamma-box", "gradient-x-input", "excitation-backprop", "default")
#: The types that onnxruntime runs under every table. In the others, which the slow evaluator runs, float32's range and
#: float64's rounding meet the same formulas: a few tables are enough.
MET = [(kind, rules) for kind in ("float32", "float16") for rules in (*preset_names(), *TABLES)]
MET += [(kind, rules) for kind in ("bfloat16", "float64") for rules in (*ROBUST, "no epsilon", "norm")]


@pytest.mark.parametrize(("kind", "rules"), MET)
@pytest.mark.parametrize("net", NETWORKS)
def test_relevance_is_finite_for_any_input_that_the_network_can_take(net: str, kind: str, rules: str) -> None:
    model = converted(net, kind, rules)
    relevance = model.graph.output[-1].name
    for name, x in extremes(net, kind).items():
        found = run(net, model, kind, x)[relevance]
        assert found.dtype == np.float32
        assert np.isfinite(found).all(), name


@pytest.mark.parametrize("rules", ROBUST)
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("net", ["convolutions", "residual", "attention", "smooth"])
def test_maps_of_a_narrow_model_agree_with_those_of_the_float32_model(net: str, kind: str, rules: str) -> None:
    narrow = extremes(net, kind)["ordinary"]
    model = converted(net, kind, rules)
    expected = run(net, converted(net, "float32", rules), "float32", narrow.astype(np.float32))
    found = run(net, model, kind, narrow)
    relevance = model.graph.output[-1].name
    # bfloat16 has eight bits, and every tensor of the forward pass is rounded to them.
    assert cosine(found[relevance], expected[relevance]) > (0.99 if kind == "float16" else 0.97)


@pytest.mark.parametrize(
    "options",
    [
        {"target": "top:2"},
        {"target": "top:2", "on_demand": True},
        {"target": "input"},
        {"target": 0},
        {"axis": 1},
        {"relevance_type": "model"},
    ],
    ids=str,
)
def test_every_target_of_a_narrow_model_is_explained_alike(options: dict[str, Any]) -> None:
    x = normal(2, 2, 6, 6, seed=3).astype(np.float16)
    maps = []
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16):
        explainer = onnxlrp.Explainer(to_type(residual(), kind), rules="epsilon-plus", **options)
        target = 1 if options.get("target") == "input" else None
        maps.append(explainer.explain(x, target=target).relevance["x"])
    assert maps[1].dtype == (np.float16 if "relevance_type" in options else np.float32)
    assert cosine(maps[1], maps[0]) > 0.999


@pytest.mark.parametrize("name", CASES)
def test_relevance_through_control_flow_of_a_narrow_model_is_computed_in_float32(name: str) -> None:
    text, feeds = CASES[name]
    model = onnx.parser.parse_model(text)
    maps = {}
    for kind, dtype in ((TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16)):
        made = onnxlrp.convert(to_type(model, kind), rules="gradient-x-input", target="seed")
        onnx.checker.check_model(made, full_check=True)
        given = {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in feeds.items()}
        seed = normal(*CONTROL_INPUT.shape, seed=5)
        maps[kind] = run_onnxruntime(made, {**given, "lrp_seed": seed})["x_relevance"]
        assert maps[kind].dtype == np.float32
    assert cosine(maps[TensorProto.FLOAT16], maps[TensorProto.FLOAT]) > 0.999


@pytest.mark.parametrize("nodes", NARROW.values(), ids=NARROW.keys())
def test_the_derivative_in_a_float16_model_is_that_of_the_float32_model(nodes: str) -> None:
    """Where a runtime computes in float32, a rounded maximum equals none of the numbers that it was taken of."""
    model, feeds = narrow_case(nodes), {"x": normal(2, 4, 6, seed=7).astype(np.float16), "axes": np.array([1])}
    maps = []
    for kind, dtype in ((TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16)):
        made = onnxlrp.convert(to_type(model, kind), rules="gradient-x-input", target="seed", inputs=["x"])
        onnx.checker.check_model(made, full_check=True)
        own = {v.name: feeds[v.name].astype(dtype if v.name == "x" else np.int64) for v in model.graph.input}
        seed = normal(*run_onnxruntime(to_type(model, kind), own)["y"].shape, seed=8)
        maps.append(run_onnxruntime(made, {**own, "lrp_seed": seed})["x_relevance"])
    assert maps[1].dtype == np.float32
    assert np.any(maps[0])
    np.testing.assert_allclose(maps[1], maps[0], rtol=2e-2, atol=2e-2 * float(np.abs(maps[0]).max()))


@pytest.mark.parametrize("net", NETWORKS)
def test_weights_of_a_narrow_model_are_not_stored_again(net: str) -> None:
    original = to_type(NETWORKS[net](), TensorProto.FLOAT16)
    kept = {t.name for t in original.graph.initializer}
    added = [t for t in converted(net, "float16", "epsilon-plus").graph.initializer if t.name not in kept]
    assert all(np.prod(t.dims) <= 8 for t in added)


@pytest.mark.parametrize("net", NETWORKS)
def test_nothing_but_a_cast_reads_or_makes_narrow_numbers(net: str) -> None:
    model = converted(net, "float16", "default")
    known = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*known.value_info, *known.input)
    narrow = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    narrow |= {t.name for t in known.initializer if t.data_type == TensorProto.FLOAT16}
    added = [n for n in model.graph.node if n.name.startswith("lrp/")]
    assert added
    assert {n.op_type for n in added if narrow.intersection(n.input)} <= {"Cast", "Shape"}
    assert not narrow.intersection(o for n in added for o in n.output)
    casts = [n.input[0] for n in added if n.op_type == "Cast" and n.input[0] in narrow]
    assert len(casts) == len(set(casts)), "each is read once"


def test_the_size_of_numbers_does_not_matter_to_a_stabiliser_that_measures_it() -> None:
    model = network("g (float[N,6] x) => (float[N,4] y) { a = Relu(x) y = MatMul(a, w) }", w=normal(6, 4))
    made = onnxlrp.convert(model, rules=parse_table(TABLES["norm"], name="norm", source="test"))
    x = normal(2, 6, seed=3)
    small, large = (run_onnxruntime(made, {"x": x * size})["x_relevance"] for size in (np.float32(1), np.float32(1e30)))
    np.testing.assert_allclose(large / np.float32(1e30), small, rtol=1e-4)


@pytest.mark.parametrize("net", NETWORKS)
def test_a_float16_model_keeps_the_promises(net: str) -> None:
    report = onnxlrp.verify(to_type(NETWORKS[net](), TensorProto.FLOAT16), rules="epsilon-plus")
    assert [check.name for check in report.checks if not check.passed] == []


@pytest.mark.parametrize("rules", preset_names())
def test_a_float64_model_keeps_the_promises_under_every_preset(rules: str) -> None:
    report = onnxlrp.verify(to_type(dense(), TensorProto.DOUBLE), rules=rules)
    assert [check.name for check in report.checks if not check.passed] == []
