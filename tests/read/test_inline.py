"""Model-local functions are put in place of their calls, and the results stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.read.graphs import assert_same_results, opset, parsed, prepared, run


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
