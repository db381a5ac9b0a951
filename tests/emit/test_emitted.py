"""What holds for every emitted model: the original stays as it is, and what is added is lean and standard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.tables.library import preset_names
from tests.emit.test_on_demand import IF, LOOP
from tests.graph.written import classifier, network, normal, prepared
from tests.support.evaluate import run_onnxruntime


def block() -> onnx.ModelProto:
    """One transformer block with attention, gates and residuals; both sizes open."""
    return network(
        """g (float[N,T,8] x) => (float[N,5] y)
        {
          l = LayerNormalization(x, g1, c1)
          q = MatMul(l, wq)
          k = MatMul(l, wk)
          v = MatMul(l, wv)
          kt = Transpose<perm = [0,2,1]>(k)
          s0 = MatMul(q, kt)
          s = Mul(s0, scale)
          p = Softmax<axis = 2>(s)
          o = MatMul(p, v)
          r = Add(x, o)
          h = MatMul(r, w1)
          hb = Add(h, b1)
          e = Erf(hb)
          f = Add(e, one)
          u = Mul(hb, f)
          m = MatMul(u, w2)
          t = Add(r, m)
          a = ReduceMean<keepdims = 0>(t, axes)
          y = Gemm(a, w3)
        }""",
        **{n: normal(8, 8, seed=i) * 0.3 for i, n in enumerate(("wq", "wk", "wv", "w1", "w2"))},
        g1=normal(8, seed=6),
        c1=normal(8, seed=7),
        b1=normal(8, seed=8),
        w3=normal(8, 5, seed=9),
        scale=np.float32(0.35),
        one=np.float32(1),
        axes=np.array([1]),
    )


def segmenter() -> onnx.ModelProto:
    """Down and up again with a skip connection, a class per pixel; old enough to be lifted."""
    return network(
        """g (float[N,2,8,8] x) => (float[N,3,8,8] y)
        {
          a = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w1)
          b = LeakyRelu(a)
          c = AveragePool<kernel_shape = [2,2], strides = [2,2]>(b)
          u = ConvTranspose<strides = [2,2]>(c, w2)
          d = Concat<axis = 1>(u, b)
          e = ConvTranspose<strides = [2,2]>(d, w3, b3)
          y = Clip<min = -2.0, max = 2.0>(e)
        }""",
        opset=9,
        w1=normal(4, 2, 3, 3, seed=1),
        w2=normal(4, 2, 2, 2, seed=2),
        w3=normal(6, 3, 2, 2, seed=3),
        b3=normal(3, seed=4),
    )


MODELS = {
    "classifier": (classifier, {"image": (2, 2, 8, 8)}),
    "block": (block, {"x": (2, 3, 8)}),
    "segmenter": (segmenter, {"x": (2, 2, 8, 8)}),
    "with If": (lambda: network(IF, w=normal(4, 4), v=normal(4)), {"x": (2, 4), "other": (2, 4), "c": ()}),
    "with Loop": (lambda: network(LOOP, w=normal(4, 4), v=normal(4)), {"x": (2, 4), "other": (2, 4), "c": ()}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"rules": name} for name in sorted(preset_names())},
    "input": {"target": "input"},
    "seed": {"target": "seed"},
    "top": {"target": "top:2"},
    "axis": {"axis": 1},
    "on demand": {"on_demand": True},
    "on demand, top": {"on_demand": True, "target": "top:2"},
    "ledger": {"ledger": True},
}
CASES = [(m, o) for m in MODELS for o in OPTIONS]


def _convert(model: str, options: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The forward pass as read, and its conversion."""
    original = MODELS[model][0]()
    more = {"inputs": ("x",)} if model.startswith("with") else {}
    return prepared(original).model, onnxlrp.convert(original, **OPTIONS[options], **more)


#: What a conversion appends to.
_FIELDS = ("node", "initializer", "input", "output", "value_info")


def _levels(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _levels(attribute.g)


def _bytes(values: Any) -> list[bytes]:
    return [v.SerializeToString(deterministic=True) for v in values]


@pytest.mark.parametrize(("model", "options"), CASES)
def test_every_emitted_model_keeps_the_promises_about_its_form(model: str, options: str) -> None:
    original, converted = _convert(model, options)
    _assert_original_untouched(original, converted)
    onnx.checker.check_model(converted, full_check=True)
    _assert_standard_operators(original, converted)
    _assert_lean(original, converted)


def _assert_original_untouched(original: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Everything of the original stands first, byte for byte, in every field of the graph."""
    for field in _FIELDS:
        before, after = _bytes(getattr(original.graph, field)), _bytes(getattr(converted.graph, field))
        assert after[: len(before)] == before, field
    left_over = onnx.ModelProto()
    left_over.CopyFrom(converted)
    for field in _FIELDS:
        del getattr(left_over.graph, field)[len(getattr(original.graph, field)) :]
    del left_over.metadata_props[:]
    left_over.metadata_props.extend(original.metadata_props)
    assert left_over.SerializeToString(deterministic=True) == original.SerializeToString(deterministic=True)


def _assert_standard_operators(original: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    version = next(o.version for o in converted.opset_import if o.domain == "")
    top = converted.graph.node[len(original.graph.node) :]
    nested = [
        n for t in top for a in t.attribute if a.type == onnx.AttributeProto.GRAPH for g in _levels(a.g) for n in g.node
    ]
    assert top
    for node in (*top, *nested):
        assert node.domain == ""
        schema = onnx.defs.get_schema(node.op_type, version, "")
        assert not schema.deprecated, node.op_type


def _assert_lean(original: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """No dead node, no node twice, no constant that nobody reads."""
    used: set[str] = set()
    for graph in _levels(converted.graph):
        used |= {v.name for v in graph.output} | {i for n in graph.node for i in n.input}
    added = list(_levels(converted.graph))
    own = {id(n) for n in converted.graph.node[: len(original.graph.node)]}
    for graph in added:
        new = [n for n in graph.node if id(n) not in own and n.name.startswith("lrp/") and "/again/" not in n.name]
        dead = [n.name for n in new if not used.intersection(n.output)]
        assert not dead, dead
        keys = [(n.op_type, *n.input, *sorted(_bytes(n.attribute))) for n in new if n.op_type != "Identity"]
        assert len(keys) == len(set(keys)), [k for k in keys if keys.count(k) > 1]
    constants = [t.name for t in converted.graph.initializer[len(original.graph.initializer) :]]
    assert len(constants) == len(set(constants))
    assert not set(constants) - used
    values = [
        (t.data_type, tuple(t.dims), t.raw_data) for t in converted.graph.initializer[len(original.graph.initializer) :]
    ]
    assert len(values) == len(set(values)), "equal constants are stored once"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", ["default", "gradient-x-input", "on demand"])
def test_the_forward_pass_is_bit_identical(model: str, options: str) -> None:
    original, converted = _convert(model, options)
    feeds: dict[str, Any] = {n: normal(*s, seed=30 + i) for i, (n, s) in enumerate(MODELS[model][1].items())}
    if "c" in feeds:
        feeds["c"] = np.array(True)
    full = {**feeds, "lrp_explain": np.array([[True], [False]])} if options == "on demand" else feeds
    before = run_onnxruntime(original, feeds, optimised=False)
    after = run_onnxruntime(converted, full, optimised=False)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    for name, value in run_onnxruntime(original, feeds).items():
        np.testing.assert_allclose(run_onnxruntime(converted, full)[name], value, rtol=1e-5, atol=1e-6)


def _growth(width: int, **options: Any) -> int:
    """Bytes that conversion adds to a network of three layers of that many channels."""
    model = network(
        """g (float[N,3,16,16] x) => (float[N,10] y)
        {
          a = Conv<pads = [1,1,1,1]>(x, w1)
          n = BatchNormalization(a, k, c, m, v)
          r = Relu(n)
          d = Conv<pads = [1,1,1,1], strides = [2,2]>(r, w2)
          t = ConvTranspose<strides = [2,2]>(d, w3)
          q = GlobalAveragePool(t)
          f = Flatten(q)
          y = Gemm(f, w4)
        }""",
        w1=normal(width, 3, 3, 3),
        k=normal(width),
        c=normal(width),
        m=normal(width),
        v=np.abs(normal(width)) + 1,
        w2=normal(width, width, 3, 3),
        w3=normal(width, width, 2, 2),
        w4=normal(width, 10),
    )
    return onnxlrp.convert(model, **options).ByteSize() - model.ByteSize()


@pytest.mark.parametrize(
    "options", [*({"rules": name} for name in sorted(preset_names())), {"on_demand": True}], ids=str
)
def test_weights_are_never_copied_into_the_file(options: dict[str, Any]) -> None:
    """The larger network has 16 times the weights (8 MB), and grows by a vector per layer at most."""
    narrow, wide = _growth(100, **options), _growth(400, **options)
    assert narrow < 32 * 1024
    assert wide - narrow <= 3 * 300 * 4


def test_conversion_gives_the_same_bytes_every_time() -> None:
    for options in OPTIONS.values():
        first, second = (onnxlrp.convert(classifier(), **options) for _ in range(2))
        assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_metadata_documentation_and_annotations_of_the_original_survive() -> None:
    model = classifier()
    model.doc_string, model.producer_name, model.model_version = "what it is", "somebody", 7
    model.graph.doc_string = "a graph"
    model.graph.node[0].metadata_props.add(key="origin", value="layer 1")
    model.graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.add(key="S", value="k")
    converted = onnxlrp.convert(model)
    _assert_original_untouched(model, converted)
    assert converted.graph.node[0].metadata_props[0].value == "layer 1"


def test_a_static_shape_leaves_no_shape_nodes_behind() -> None:
    model = classifier()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    for rules in sorted(preset_names()):
        added = onnxlrp.convert(model, rules=rules, target=2).graph.node[len(model.graph.node) :]
        data = {"image"} | {o for n in model.graph.node for o in n.output}
        assert not [n.name for n in added if n.op_type in ("Shape", "Size") and n.input[0] in data]
