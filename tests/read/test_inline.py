"""Model-local functions are put in place of their calls, and the results stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.read.graphs import assert_same_results, opset, parsed, prepared, refusal, run


class TestFunctions:
    MODEL = """<ir_version: 10, opset_import: ["" : 18, "f" : 1, "com.microsoft" : 1]>
        g (float[N,3] x) => (float[N,3] y) { a = f.leak<slope = 0.25>(x)  b = f.leak(a)  c = f.twice:neg(b)  y
        = f.twice(c) } <domain: "f", opset_import: ["" : 18]> leak <slope: float = 0.5> (a) => (b) { b =
        LeakyRelu<alpha: float = @slope>(a) } <domain: "f", opset_import: ["" : 18, "f" : 1]> twice (a) => (b)
        { c = f.leak<slope = 0.1>(a)  d = f.leak(c)  b = com.other.Gelu(d) } <domain: "f", overload: "neg",
        opset_import: ["" : 18]> twice (a) => (b) { b = Neg(a) }"""

    def test_nesting_attributes_and_overloads(self) -> None:
        model = parsed(self.MODEL.replace("com.other.Gelu", "Exp"))
        result = prepared(model)
        assert not result.model.functions
        assert [node.op_type for node in result.model.graph.node] == [
            "LeakyRelu",
            "LeakyRelu",
            "Neg",
            "LeakyRelu",
            "LeakyRelu",
            "Exp",
        ]
        slopes = [node.attribute[0].f for node in result.model.graph.node if node.op_type == "LeakyRelu"]
        np.testing.assert_allclose(slopes, [0.25, 0.5, 0.1, 0.5])
        assert result.notes == ("inlined 2 model-local functions (f::leak, f::twice)",)
        assert_same_results(model, result.model)

    def test_domains_used_inside_are_imported(self) -> None:
        model = parsed(self.MODEL.replace("com.other.Gelu", "com.other.Thing"))
        model.functions[1].opset_import.add(domain="com.other", version=3)
        assert ("com.other", 3) in [(e.domain, e.version) for e in prepared(model).model.opset_import]

    @pytest.mark.parametrize(
        ("outer", "inner", "after"), [(18, 13, 18), (13, 18, 21), (13, 13, 21), (11, 15, 21), (17, 22, 22)]
    )
    def test_with_an_opset_of_their_own(self, outer: int, inner: int, after: int) -> None:
        mean = "ReduceMean<axes = [1]>(s)" if inner < 18 else "ReduceMean(s, ax)"
        model = parsed(f"""<ir_version: 8, opset_import: ["" : {outer}, "f" : 1]>
            g (float[N,3] x) => (float[N,1] y) {{
                h = Softmax<axis = 1>(x)  m = f.mean(h)  n = Neg(m)  o = f.mean(n)  y = Dropout(o) }}
            <domain: "f", opset_import: ["" : {inner}]> mean (a) => (b) {{
                s = LeakyRelu<alpha = 0.5>(a)  ax = Constant<value = int64[1] {{1}}>()  b = {mean} }}""")
        result = prepared(model).model
        assert opset(result) == after
        onnx.checker.check_model(result, full_check=True)
        rng = np.random.default_rng(0).standard_normal([2, 3], dtype=np.float32)
        soft = np.exp(rng) / np.exp(rng).sum(1, keepdims=True)
        np.testing.assert_allclose(run(result)[0], -soft.mean(1, keepdims=True) / 2, rtol=1e-6)

    def test_of_older_opsets_are_lifted_with_all_that_this_takes(self) -> None:
        """The converter alone would number new tensors alike in each call and resize by other rules."""
        model = parsed("""<ir_version: 8, opset_import: ["" : 18, "f" : 1]>
            g (float[N,3,8,8] x) => (float[N,3,H,W] y) {
                a = f.first(x)  b = Neg(a)  c = f.second(b)  d = f.first(c)  y = f.third(d) }
            <domain: "f", opset_import: ["" : 8]> first (a) => (b) { b = Pad<pads = [0,0,1,1,0,0,1,2]>(a) }
            <domain: "f", opset_import: ["" : 10, "f" : 1]> second (a) => (b) {
                s = Constant<value = float[4] {1,1,2,1.5}>()
                c = Resize<mode = "linear">(a, s)  b = f.first(c) }
            <domain: "f", opset_import: ["" : 18]> third (a) => (b) { b = Relu(a) }""")
        straight = parsed("""<ir_version: 8, opset_import: ["" : 18]>
            g (float[N,3,8,8] x) => (float[N,3,H,W] y) <
                int64[8] p = {0,0,1,1,0,0,1,2}, float[4] s = {1,1,2,1.5}> {
                a = Pad(x, p)  b = Neg(a)
                r = Resize<mode = "linear", coordinate_transformation_mode = "asymmetric">(b, "", s)
                c = Pad(r, p)  d = Pad(c, p)  y = Relu(d) }""")
        result = prepared(model).model
        onnx.checker.check_model(result, full_check=True)
        assert [(entry.domain, entry.version) for entry in result.opset_import] == [("", 18), ("f", 1)]
        assert_same_results(straight, result)

    def test_of_older_opsets_know_the_shapes_around_them(self) -> None:
        """Otherwise a Softmax over the last axis would be wrapped into Flatten and Reshape."""
        model = parsed("""<ir_version: 8, opset_import: ["" : 18, "f" : 1]>
            g (float[N,3] x) => (float[N,3] y) { a = Neg(x)  y = f.head(a) }
            <domain: "f", opset_import: ["" : 11]> head (a) => (b) { b = Softmax(a) }""")
        result = prepared(model).model
        assert [node.op_type for node in result.graph.node] == ["Neg", "Softmax"]
        assert not result.graph.value_info
        assert_same_results(model, result)

    def test_large_weights_pass_by(self) -> None:
        model = parsed(self.MODEL.replace("com.other.Gelu", "Exp"))
        weight = numpy_helper.from_array(np.arange(2**16, dtype=np.float32), "w")
        model.graph.initializer.append(weight)
        assert list(prepared(model).model.graph.initializer) == [weight]


HEAD = (
    '<ir_version: 10, opset_import: ["" : 21, "f" : 1, "g" : 1, "ai.onnx.ml" : 5]> m (float[2,3] x) => (float[2,K] y)'
)
LEAK = """<domain: "f", opset_import: ["" : 21]> leak <alpha: float = 0.1> (a) => (b) {
    c = Neg(a)  b = LeakyRelu<alpha: float = @alpha>(c) }"""


def branch(then: str, otherwise: str, width: int = 3) -> str:
    """b is u of one branch or v of the other."""
    return f"""s = ReduceSum<keepdims = 0>(a)  z = Constant<value_float = 0.0>()  c = Greater(s, z)
        b = If (c) <then_branch = t () => (float[2,{width}] u) {{ {then} }},
                    else_branch = e () => (float[2,{width}] v) {{ {otherwise} }}>"""


#: Models that use functions in every way, and the same without functions.
EQUAL = {
    "an overload, and a default of its own": (
        """{ a = f.act:one(x)  b = f.act:two<alpha = 0.7>(a)  y = f.act:two(b) }
        <domain: "f", overload: "one", opset_import: ["" : 21]> act <alpha: float = 0.3> (a) => (b) {
            b = LeakyRelu<alpha: float = @alpha>(a) }
        <domain: "f", overload: "two", opset_import: ["" : 21]> act <alpha: float = 0.1> (a) => (b) {
            c = Neg(a)  b = LeakyRelu<alpha: float = @alpha>(c) }""",
        """{ a = LeakyRelu<alpha = 0.3>(x)  n = Neg(a)  b = LeakyRelu<alpha = 0.7>(n)  m = Neg(b)
            y = LeakyRelu<alpha = 0.1>(m) }""",
    ),
    "overloads that call one another": (
        """{ a = f.outer(x)  y = f.act:two(a) }
        <domain: "f", opset_import: ["" : 21, "f" : 1]> outer (a) => (b) {
            c = f.act:one(a)  d = f.act:two(c)  b = f.act(d) }
        <domain: "f", overload: "one", opset_import: ["" : 21]> act (a) => (b) { b = Relu(a) }
        <domain: "f", overload: "two", opset_import: ["" : 21]> act (a) => (b) { b = Neg(a) }
        <domain: "f", opset_import: ["" : 21]> act (a) => (b) { b = Exp(a) }""",
        "{ a = Relu(x)  b = Neg(a)  c = Exp(b)  y = Neg(c) }",
    ),
    "overloads of an older opset": (
        """{ a = f.act:one(x)  y = f.act:two(a) }
        <domain: "f", overload: "one", opset_import: ["" : 13]> act (a) => (b) { b = LeakyRelu<alpha = 0.5>(a) }
        <domain: "f", overload: "two", opset_import: ["" : 13]> act (a) => (b) { b = ReduceMean<axes = [1]>(a) }""",
        "{ a = LeakyRelu<alpha = 0.5>(x)  i = Constant<value_ints = [1]>()  y = ReduceMean(a, i) }",
    ),
    "an attribute that is left out": (
        """{ a = f.leak(x)  y = f.leak<alpha = 0.5>(a) }
        <domain: "f", opset_import: ["" : 21]> leak <alpha> (a) => (b) { b = LeakyRelu<alpha: float = @alpha>(a) }""",
        "{ a = LeakyRelu(x)  y = LeakyRelu<alpha = 0.5>(a) }",
    ),
    "a tensor as attribute": (
        """{ y = f.k<w = float[3] {1.0, 2.0, 3.0}>(x) }
        <domain: "f", opset_import: ["" : 21]> k <w> (a) => (b) {
            c = Constant<value: tensor = @w>()  b = Mul(a, c) }""",
        "{ c = Constant<value_floats = [1.0, 2.0, 3.0]>()  y = Mul(x, c) }",
    ),
    "inputs that are left out": (
        """{ l = Constant<value_float = -0.5>()  a = f.k(x, l)  y = f.k(a, , l) }
        <domain: "f", opset_import: ["" : 21]> k (a, low, high) => (b) { b = Clip(a, low, high) }""",
        "{ l = Constant<value_float = -0.5>()  a = Clip(x, l)  y = Clip(a, , l) }",
    ),
    "one name in two domains": (
        """{ a = f.k(x)  y = g.k(a) }
        <domain: "f", opset_import: ["" : 21]> k (a) => (b) { b = Exp(a) }
        <domain: "g", opset_import: ["" : 21]> k (a) => (b) { b = Neg(a) }""",
        "{ a = Exp(x)  y = Neg(a) }",
    ),
    "calls in both branches": (
        f"""{{ a = Identity(x)
            {branch("u = f.leak<alpha = 0.5>(x)", "w = f.leak(x)  v = f.leak<alpha = 0.25>(w)")}
            y = Identity(b) }} {LEAK}""",
        f"""{{ a = Identity(x)  k = Neg(x)
            {branch("u = LeakyRelu<alpha = 0.5>(k)", "w = LeakyRelu(k)  l = Neg(w)  v = LeakyRelu<alpha = 0.25>(l)")}
            y = Identity(b) }}""".replace("LeakyRelu(k)", "LeakyRelu<alpha = 0.1>(k)"),
    ),
    "branches inside that read its inputs and attributes": (
        f"""{{ y = f.k<alpha = 0.5>(x) }}
        <domain: "f", opset_import: ["" : 21, "f" : 1]> k <alpha: float> (a) => (b) {{
            {branch("u = LeakyRelu<alpha: float = @alpha>(a)", "v = f.leak<alpha: float = @alpha>(a)")} }}
        {LEAK}""",
        f"""{{ a = Identity(x)
            {branch("u = LeakyRelu<alpha = 0.5>(a)", "k = Neg(a)  v = LeakyRelu<alpha = 0.5>(k)")}
            y = Identity(b) }}""",
    ),
    "a call of an older opset in a loop": (
        """{ n = Constant<value_int = 1>()  t = Constant<value = bool {1}>()
            y = Loop (n, t, x) <body = l (int64 i, bool d, float[2,3] s) => (bool o, float[2,3] r) {
                o = Identity(d)  m = f.mean(s)  r = Add(s, m) }> }
        <domain: "f", opset_import: ["" : 13]> mean (a) => (b) { b = ReduceMean<axes = [1]>(a) }""",
        "{ j = Constant<value_ints = [1]>()  m = ReduceMean(x, j)  y = Add(x, m) }",
    ),
    "functions of two older opsets in one another's branches": (
        f"""{{ h = f.k(x)  y = Neg(h) }} <domain: "f", opset_import: ["" : 13, "f" : 1]> k (a) => (b) {{
            {branch("u = f.h(a)", "w = ReduceMean<axes = [1]>(a)  v = f.h(w)", 1)} }}
        <domain: "f", opset_import: ["" : 11]> h (a) => (b) {{ b = ReduceSum<axes = [1]>(a) }}""",
        f"""{{ a = Identity(x)  j = Constant<value_ints = [1]>()
            {branch("u = ReduceSum(a, j)", "w = ReduceMean(a, j)  v = ReduceSum(w, j)", 1)}
            y = Neg(b) }}""",
    ),
    "another version of a domain, in which the operator is the same": (
        """{ a = f.k(x)  y = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(a) }
        <domain: "f", opset_import: ["ai.onnx.ml" : 3]> k (a) => (b) {
            b = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(a) }""",
        """{ a = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(x)
            y = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(a) }""",
    ),
}


@pytest.mark.parametrize(("functions", "straight"), EQUAL.values(), ids=EQUAL.keys())
def test_a_model_with_functions_computes_what_it_says_written_out(functions: str, straight: str) -> None:
    result = prepared(parsed(f"{HEAD} {functions}")).model
    assert not result.functions
    onnx.checker.check_model(result, full_check=True)
    assert_same_results(parsed(f"{HEAD} {straight}"), result)


def test_an_operator_that_another_version_of_its_domain_changed_is_refused() -> None:
    text = refusal(
        parsed("""<ir_version: 10, opset_import: ["" : 21, "f" : 1, "ai.onnx.ml" : 2]>
        m (float[2,3] x) => (float[2,K] y) { y = f.k(x) }
        <domain: "f", opset_import: ["ai.onnx.ml" : 1]> k (a) => (b) {
            b = ai.onnx.ml.LabelEncoder<classes_strings = ["a"]>(a) }""")
    )
    assert "function f::k uses ai.onnx.ml.LabelEncoder of version 1" in text
    assert "version 2 that the model imports" in text


def test_a_node_that_cannot_be_lifted_where_it_stands_is_named() -> None:
    text = refusal(
        parsed("""<ir_version: 10, opset_import: ["" : 21, "f" : 1, "com.example" : 1]>
        m (float[2,3] x) => (float[2,K] y) {
            [around] y = com.example.Repeat<body = t () => (float[2,1] u) { [inner] u = f.mean(x) }>(x) }
        <domain: "f", opset_import: ["" : 13]> mean (a) => (b) { [sum] b = ReduceSum<axes = [1]>(a) }""")
    )
    assert "sum" in text and "opset 13" in text
