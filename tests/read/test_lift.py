"""Lifting to a recent opset: the results stay the same, and so does everything that need not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.backend.test import data as onnx_test_data

from onnxlrp.read import skeleton
from onnxlrp.read.load import load
from onnxlrp.read.prepare import prepare
from onnxlrp.read.shapes import dims
from tests.read.graphs import assert_same_results, bodies, branching, graph, opset, prepared, refusal, run

LIGHT = Path(next(iter(onnx_test_data.__path__))) / "light"


OLD = """
batch norm, dropout, pool | 7 | n = BatchNormalization(x, s, s, s, s)  d, mask = Dropout<ratio = 0.5>(n)
                              | y = MaxPool<kernel_shape = [2,2]>(d)
reshape, matmul, softmax  | 7 | r = Reshape(x, to)  m = MatMul(r, k)  y = Softmax(m)
upsample 7, nearest       | 7 | y = Upsample<mode = "nearest", scales = [1.0, 1.0, 1.7, 2.0]>(x)
upsample 7, linear        | 7 | y = Upsample<mode = "linear", scales = [1.0, 1.0, 1.7, 2.0]>(x)
upsample 9, nearest       | 9 | y = Upsample<mode = "nearest">(x, by)
upsample 9, linear        | 9 | y = Upsample<mode = "linear">(x, by)
resize 10, nearest up     | 10 | y = Resize<mode = "nearest">(x, by)
resize 10, nearest down   | 10 | y = Resize<mode = "nearest">(x, down)
resize 10, linear up      | 10 | y = Resize<mode = "linear">(x, by)
resize 10, linear down    | 10 | y = Resize<mode = "linear">(x, down)
resize 10 by a constant   | 10 | c = Constant<value = float[4] {1,1,0.5,0.7}>()
                               | y = Resize<mode = "nearest">(x, c)
resize 11, nearest        | 11 | y = Resize<mode = "nearest">(x, by, by)
resize 11, linear         | 11 | y = Resize<mode = "linear", cubic_coeff_a = -0.5>(x, by, by)
softmax, flattened        | 11 | y = Softmax<axis = 2>(x)
softmax, default axis     | 12 | y = LogSoftmax(x)
softmax, last axis        | 11 | y = Softmax<axis = -1>(x)
hardmax, last axis        | 11 | y = Hardmax<axis = 3>(x)
clip 6                    | 7 | y = Clip<min = 0.0, max = 0.5>(x)
clip 11                   | 11 | y = Clip(x, zero)
pad 2, reflected          | 8 | y = Pad<mode = "reflect", pads = [0,0,1,1,0,0,1,2]>(x)
pad 2, unused value       | 8 | y = Pad<mode = "edge", pads = [0,0,1,1,0,0,1,2], value = 0.5>(x)
pad 2, value              | 8 | y = Pad<pads = [0,0,1,1,0,0,1,2], value = 0.5>(x)
pad 11                    | 11 | y = Pad(x, pads)
slice 1                   | 9 | y = Slice<axes = [2,3], starts = [1,0], ends = [7,-1]>(x)
squeeze, unsqueeze        | 11 | a = Unsqueeze<axes = [0]>(x)  b = Squeeze<axes = [0]>(a)  y = Relu(b)
split                     | 12 | a, b = Split<axis = 1, split = [1,2]>(x)  y = Concat<axis = 1>(b, a)
split in equal parts      | 13 | a, b = Split<axis = 2>(x)  y = Sub(b, a)
reduce sum 11             | 11 | a = ReduceSum<axes = [2,3]>(x)  y = ReduceMean<axes = [1], keepdims = 0>(a)
reduce max 17             | 17 | a = ReduceL2<axes = [-1]>(x)  b = ReduceMax<axes = [1]>(a)  y = ReduceMean(b)
batch norm 9              | 9 | y = BatchNormalization<epsilon = 0.01>(x, s, s, s, s)
batch norm 14             | 14 | y = BatchNormalization(x, s, s, s, s)
conv, average pool        | 8 | c = Conv<kernel_shape = [3,3], pads = [1,1,1,1]>(x, w)
                              | a = AveragePool<kernel_shape = [2,2], strides = [2,2]>(c)
                              | y = GlobalAveragePool(a)
conv transpose            | 11 | y = ConvTranspose<strides = [2,2]>(x, w)
top k 10, cast            | 10 | v, i = TopK(x, two)  f = Cast<to = 1>(i)  y = Mul(v, f)
arg max                   | 11 | a = ArgMax<axis = 1>(x)  y = Cast<to = 1>(a)
dropout 12 with inputs    | 12 | a, m = Dropout(x, zero)  y = Relu(a)
hard swish 14             | 14 | y = HardSwish(x)
layer norm 17             | 17 | y = LayerNormalization(x, e)
contrib operators         | 15 | a = com.microsoft.Gelu(x)  y = Relu(a)
instance norm, lrn, prelu | 8 | a = InstanceNormalization(x, s, s)  b = LRN<size = 3>(a)  y = PRelu(b, p)
depth to space            | 11 | a = SpaceToDepth<blocksize = 2>(x)
                               | y = DepthToSpace<blocksize = 2, mode = "CRD">(a)
gather, expand            | 9 | i = Constant<value = int64[2] {2,0}>()  a = Gather<axis = 1>(x, i)
                              | z = Shape(a)  o = Expand(one, z)  y = Mul(a, o)
sum and broadcasting      | 7 | a = Add(x, p)  b = Sum(a, x)  y = Max(b, x)
grid sample 16            | 16 | y = GridSample(x, grid)
roi align 10              | 10 | y = RoiAlign<output_height = 3, output_width = 3>(x, rois, which)
opset 6                   | 6 | a = Relu(x)  b = MaxPool<kernel_shape = [2,2]>(a)  y = Tanh(b)
opset 1                   | 1 | y = MaxPool<kernel_shape = [2,2]>(x)
"""


def cases() -> dict[str, tuple[int, str]]:
    """Name of each case in OLD, with its opset and its nodes; a line without a name continues the one
    before.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in OLD.strip().splitlines():
        name, *version, body = (part.strip() for part in line.split("|"))
        if version:
            last, found[name] = name, (int(version[0]), body)
        else:
            found[last] = (found[last][0], f"{found[last][1]}  {body}")
    return found


CASES = cases()

CONSTANTS = {
    "s": np.array([0.5, 1.0, 2.0], np.float32),
    "p": np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1),
    "e": np.linspace(1, 2, 8, dtype=np.float32),
    "w": np.linspace(-1, 1, 81, dtype=np.float32).reshape(3, 3, 3, 3),
    "k": np.linspace(-1, 1, 192 * 5, dtype=np.float32).reshape(192, 5),
    "grid": np.linspace(-1, 1, 2 * 4 * 4 * 2, dtype=np.float32).reshape(2, 4, 4, 2),
    "by": np.array([1, 1, 1.7, 2.3], np.float32),
    "down": np.array([1, 1, 0.6, 0.45], np.float32),
    "rois": np.array([[0, 0, 5, 5], [1.2, 2, 6, 7]], np.float32),
    "which": np.array([0, 1], np.int64),
    "to": np.array([0, -1], np.int64),
    "pads": np.array([0, 0, 1, 1, 0, 0, 0, 2], np.int64),
    "two": np.array([2], np.int64),
    "zero": np.array(0, np.float32),
    "one": np.array([1], np.float32),
}


def old(name: str, ir: int) -> onnx.ModelProto:
    version, body = CASES[name]
    model = graph(f"{{ {body} }}", version, ir)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    used = {each for node in model.graph.node for each in node.input}
    for key in sorted(used & CONSTANTS.keys()):
        value = CONSTANTS[key]
        model.graph.initializer.append(numpy_helper.from_array(value, key))
        if ir < 4:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            model.graph.input.append(helper.make_tensor_value_info(key, kind, value.shape))
    return model


class TestLifting:
    @pytest.mark.parametrize("ir", [3, 8])
    @pytest.mark.parametrize("name", CASES)
    def test_the_results_stay_the_same(self, name: str, ir: int) -> None:
        model = old(name, ir)
        result = prepared(model)
        assert (opset(result.model), result.model.ir_version) == (21, 10)
        assert result.notes == (f"lifted from opset {CASES[name][0]} to 21",)
        assert [value.name for value in result.model.graph.input] == ["x"]
        assert list(result.model.graph.initializer)[: len(model.graph.initializer)] == list(model.graph.initializer)
        assert_same_results(model, result.model)
        if name != "contrib operators":
            result.model.graph.output[0].type.CopyFrom(result.inferred["y"])
            onnx.checker.check_model(result.model, full_check=True)

    @pytest.mark.parametrize("version", range(7, 27))
    def test_one_network_at_every_opset(self, version: int) -> None:
        body = "{ c = Conv<pads = [1,1,1,1]>(x, w)  r = Relu(c)  p = GlobalMaxPool(r)  y = Flatten(p) }"
        model = graph(body, version, 8)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        model.graph.initializer.append(numpy_helper.from_array(CONSTANTS["w"], "w"))
        result = prepared(model)
        assert opset(result.model) == (version if version >= 18 else 21)
        assert dims(result.inferred["y"]) == (2, 3)
        assert_same_results(model, result.model)

    def test_names_that_the_converter_makes_up_may_be_taken(self) -> None:
        """As in a model that onnx's converter has lifted before."""
        body = "{ _v_3 = ReduceL2<axes = [-1]>(x)  _v_4 = ReduceMax<axes = [1]>(_v_3)  y = ReduceMean(_v_4) }"
        model = graph(body, 17)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        result = prepared(model).model
        assert {"_v_3", "_v_4", "lifted_0", "lifted_1"} <= {name for node in result.graph.node for name in node.output}
        assert_same_results(model, result)

    def test_names_documentation_and_metadata_are_kept(self) -> None:
        model = old("reduce sum 11", 8)
        model.doc_string, model.producer_name, model.domain, model.model_version = "doc", "maker", "org", 4
        model.metadata_props.add(key="a", value="b")
        model.graph.doc_string = "graph doc"
        model.graph.metadata_props.add(key="c", value="d")
        model.graph.input[0].doc_string = "input doc"
        annotation = model.graph.quantization_annotation.add(tensor_name="a")
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
        node = model.graph.node[0]
        node.name, node.doc_string = "summed", "node doc"
        node.metadata_props.add(key="from", value="layer 1")
        before = onnx.ModelProto.FromString(model.SerializeToString())
        after = prepared(model).model
        lifted = next(node for node in after.graph.node if node.op_type == "ReduceSum")
        assert (lifted.name, lifted.doc_string, list(lifted.output)) == ("summed", "node doc", ["a"])
        assert lifted.metadata_props == node.metadata_props
        for part in (before, after):
            part.ClearField("ir_version")
            part.ClearField("opset_import")
            part.graph.ClearField("node")
            part.graph.ClearField("initializer")
        assert after == before

    def test_nodes_that_mean_the_same_stay_byte_for_byte(self) -> None:
        model = old("conv, average pool", 8)
        model.graph.node[0].metadata_props.add(key="from", value="layer 1")
        assert list(prepared(model).model.graph.node) == list(model.graph.node)

    def test_in_branches_too(self) -> None:
        model = branching("m = ReduceMean<axes = [1, 2]>(x)", "r = Relu(m)")
        for name, body in bodies(model).items():
            for node in body.node:
                node.metadata_props.add(key="from", value=name)
        model.opset_import[0].version = 13
        result = prepared(model).model
        for name, body in bodies(result).items():
            own = [node for node in body.node if node.op_type != "Constant"]
            assert {node.metadata_props[0].value for node in own} == {name}
        assert_same_results(model, result)

    def test_an_operator_that_changed_its_meaning_in_a_branch(self) -> None:
        model = branching("r = Hardmax<axis = 1>(x)")
        model.opset_import[0].version = 11
        model.graph.node[1].CopyFrom(parser.parse_node("z = Constant<value = float {0}>()"))
        assert "several axes" in refusal(model)

    def test_a_scan_of_opset_8(self) -> None:
        body = helper.make_graph(
            [parser.parse_node("o = Relu(i)")],
            "body",
            [helper.make_tensor_value_info("i", TensorProto.FLOAT, [3])],
            [helper.make_tensor_value_info("o", TensorProto.FLOAT, [3])],
        )
        model = graph("{ }", 8, 3, "(float[1,2,3] x) => (float[1,2,3] y)")
        model.graph.node.append(helper.make_node("Scan", ["", "x"], ["y"], num_scan_inputs=1, body=body))
        assert "Scan making 'y' changed its meaning" in refusal(model)

    @pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
    @pytest.mark.parametrize("head", ["(float[N,5] x)", "(float[N,5,1,1] x)"])
    def test_a_head_over_one_axis_stays_one_node(self, name: str, head: str) -> None:
        """The converter wraps it into Flatten and Reshape, where it would not be recognised as a head."""
        model = graph(f"{{ a = Relu(x)  [head] y = {name}(a) }}", 9, 3, f"{head} => (float[] y)")
        model.graph.output[0].type.tensor_type.ClearField("shape")
        result = prepared(model).model
        assert [(node.op_type, node.name) for node in result.graph.node] == [("Relu", ""), (name, "head")]
        assert_same_results(model, result)

    @pytest.mark.parametrize(
        ("version", "body", "reason"),
        [
            (11, "{ [h] y = Hardmax(x) }", "Hardmax 'h' works on several axes"),
            (10, "{ [r] y = Resize(x, mixed) }", "Resize 'r' enlarges one axis and reduces another"),
            (10, "{ [r] y = Resize(x, computed) }", "whether Resize 'r' enlarges or reduces is not known"),
            (8, "{ y = Crop(x) }", "Crop"),
        ],
    )
    def test_what_has_no_counterpart_is_refused(self, version: int, body: str, reason: str) -> None:
        head = "(float[2,3,8,8] x, float[4] computed) => (float[A,B,C,D] y) <float[4] mixed = {1,1,2,0.5}>"
        assert reason in refusal(graph(body, version, 8, head))

    def test_a_resize_by_unknown_factors_between_known_sizes(self) -> None:
        head = "(float[2,3,8,8] x, float[4] computed) => (float[2,3,4,4] y) <float[2,3,4,4] z>"
        model = graph("{ z = Resize(x, computed)  y = Relu(z) }", 10, 8, head)
        resize = next(node for node in prepared(model).model.graph.node if node.op_type == "Resize")
        assert {a.name: a.s for a in resize.attribute}["nearest_mode"] == b"ceil"

    def test_flattening_that_matters_is_kept(self) -> None:
        for text in ("float[N,5,2]", "float[N,5,M]"):
            model = graph("{ [head] y = Softmax(x) }", 9, 3, f"({text} x) => ({text} y)")
            result = prepared(model).model
            assert [node.name for node in result.graph.node].count("head") == 1  # onnxruntime insists on that
            assert "Flatten" in {node.op_type for node in result.graph.node}
            assert_same_results(model, result)

    def test_large_weights_pass_by_and_keep_their_bytes(self) -> None:
        model = old("reduce sum 11", 8)
        large = numpy_helper.from_array(np.random.default_rng(0).standard_normal(skeleton.HEAVY), "large")
        model.graph.initializer.append(large)
        constant = helper.make_node("Constant", [], ["held"], value=large)
        model.graph.node.append(constant)
        result = prepared(model).model
        assert large in list(result.graph.initializer)
        assert constant in list(result.graph.node)

    def test_external_references_survive(self, tmp_path: Path) -> None:
        model = old("conv, average pool", 3)
        tensor = model.graph.initializer[0]
        (tmp_path / "w.data").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.data")
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        result = prepare(load(path)).model
        assert list(result.graph.initializer) == [tensor]
        onnx.save(result, lifted := tmp_path / "lifted.onnx")
        loaded = onnx.load(lifted)
        assert_same_results(old("conv, average pool", 3), loaded)

    @pytest.mark.parametrize("name", ["squeezenet", "resnet50", "shufflenet"])
    def test_real_architectures(self, name: str) -> None:
        model = onnx.load(LIGHT / f"light_{name}.onnx")
        result = prepared(model)
        assert len(result.model.graph.input) == 1
        assert all(output in result.inferred for node in result.model.graph.node for output in node.output if output)
        assert_same_results(model, result.model)

    def test_a_recent_opset_in_an_old_header(self) -> None:
        model = graph("{ y = Add(x, w) }", 18, 3, "(float[3] x, float[3] w) => (float[3] y) <float[3] w = {1,2,3}>")
        result = prepared(model)
        assert (opset(result.model), result.model.ir_version) == (18, 8)
        assert [value.name for value in result.model.graph.input] == ["x"]
        assert "IR version 8" in result.notes[0]
        assert_same_results(model, result.model)


@pytest.mark.parametrize("slopes", [[0.1, 0.2, 0.3], [0.4]])
def test_old_slopes_are_those_of_the_channels(slopes: list[float]) -> None:
    """Nothing runs PRelu-6 any more; what its specification says is written out here."""
    model = graph("{ y = PRelu(x, slopes) }", 6)
    slope = np.array(slopes, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(slope, "slopes"))
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    (y,) = run(prepared(model).model)
    np.testing.assert_array_equal(y, np.where(x > 0, x, x * slope.reshape(1, -1, 1, 1)))


def test_a_constant_that_is_no_input_of_an_old_model_is_a_constant() -> None:
    """Before IR 4 every constant had to be an input as well; tools that quantise old models do not keep to that."""
    model = graph("{ y = Mul(x, c) }", opset=11, ir=3)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2.0), "c"))
    lifted = prepared(model).model
    assert opset(lifted) == 21 and [value.name for value in lifted.graph.input] == ["x"]
    assert_same_results(model, lifted)


def test_an_operator_that_onnxruntime_counts_among_the_standard_ones_stays_as_it_is() -> None:
    """The standard has no SimplifiedLayerNormalization, of which the converter would know the versions."""
    model = graph("{ n = SimplifiedLayerNormalization<axis = -1>(x, unit) y = Softmax(n) }", opset=12)
    model.graph.initializer.append(numpy_helper.from_array(np.linspace(0.5, 2, 8, dtype=np.float32), "unit"))
    lifted = prepared(model).model
    assert opset(lifted) == 21 and {entry.domain for entry in lifted.opset_import} == {""}
    assert [node.domain for node in lifted.graph.node if node.op_type == "SimplifiedLayerNormalization"] == [""]
    assert_same_results(model, lifted)
