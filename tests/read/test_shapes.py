"""Shapes: what follows from the inputs, and what a model records of itself only where that fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from onnxlrp.read import skeleton
from onnxlrp.read.load import load
from onnxlrp.read.prepare import prepare
from onnxlrp.read.shapes import dims
from tests.read.graphs import branching, graph, prepared


class TestShapes:
    def test_symbolic_dimensions_stay_symbolic(self) -> None:
        model = graph(
            "{ c = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w)  g = GlobalAveragePool(c)  y = Flatten(g) }",
            head="(float[N,3,H,W] x) => (float[N,3] y)",
        )
        model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w"))
        known = prepared(model).inferred
        assert dims(known["x"]) == ("N", 3, "H", "W")
        assert dims(known["w"]) == (3, 3, 3, 3)
        assert dims(known["g"]) == ("N", 3, 1, 1)
        assert dims(known["y"]) == ("N", 3)
        assert len(dims(known["c"]) or ()) == 4

    def test_computed_shapes_are_followed(self) -> None:
        model = graph(
            """{ s = Shape<start = 0, end = 1>(x)  t = Constant<value = int64[1] {12}>()
                 u = Concat<axis = 0>(s, t)  y = Reshape(x, u) }""",
            head="(float[N,3,4] x) => (float[] y)",
        )
        assert dims(prepared(model).inferred["y"]) == ("N", 12)

    def test_a_spectrogram_is_one_sided_unless_it_says_otherwise(self) -> None:
        model = graph(
            "{ s = Constant<value = int64 {2}>()  n = Constant<value = int64 {4}>()  y = STFT(x, s, , n) }",
            head="(float[N,9,1] x) => (float[] y)",
        )
        assert (dims(prepared(model).inferred["y"]) or ())[1:] == (3, 3, 2)

    def test_minus_one_is_a_free_dimension(self) -> None:
        model = graph("{ y = Relu(x) }", head="(float[1,3] x) => (float[1,3] y)")
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
        result = prepared(model)
        assert not isinstance((dims(result.inferred["y"]) or ())[0], int)
        assert result.model == model

    def test_recorded_shapes_of_an_older_batch_size_are_not_believed(self) -> None:
        model = graph(
            "{ a = Relu(x)  b = com.microsoft.Gelu(a)  y = Neg(b) }",
            head="(float[N,3] x) => (float[1,3] y) <float[1,3] a, float[1,3] b>",
        )
        known = prepared(model).inferred
        assert dims(known["a"]) == ("N", 3)
        for name in ("b", "y"):
            assert 1 not in (dims(known[name]) or ())

    def test_recorded_shapes_fill_gaps_where_they_fit(self) -> None:
        model = graph(
            "{ a = Relu(x)  b = com.example.Unknown(a)  y = Neg(b) }",
            head="(float[N,3] x) => (float[N,7] y) <float[N,3] a, float[N,7] b>",
        )
        known = prepared(model).inferred
        assert dims(known["b"]) == ("N", 7)
        assert dims(known["y"]) == ("N", 7)

    def test_what_nobody_knows_is_missing(self) -> None:
        model = graph("{ a = com.example.Unknown(x)  y = Neg(a) }", head="(float[N,3] x) => (float[N,7] y)")
        known = prepared(model).inferred
        assert "a" not in known
        assert dims(known["y"]) == ("N", 7)

    def test_shapes_in_external_data_are_read(self, tmp_path: Path) -> None:
        model = graph("{ y = Reshape(x, to) }", head="(float[N,3,4] x) => (float[] y)")
        (tmp_path / "d").write_bytes(np.array([0, 12], np.int64).tobytes())
        tensor = model.graph.initializer.add(name="to", dims=[2], data_type=TensorProto.INT64)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="d")
        result = prepare(load(model, base_dir=tmp_path))
        assert dims(result.inferred["y"]) == ("N", 12)
        assert result.model == model

    def test_inside_branches(self) -> None:
        known = prepared(branching("t = Neg(x)", "r = Relu(t)")).inferred
        assert dims(known["r"]) == (2, 3, 8, 8)

    def test_a_name_for_different_tensors_of_two_branches_is_left_out(self) -> None:
        model = branching("t = Neg(x)", "r = Relu(t)", otherwise=("t = ReduceMax(x)", "i = Identity(t)"))
        known = prepared(model).inferred
        assert "t" not in known
        assert "i" in known

    def test_weights_do_not_travel(self) -> None:
        """The skeleton stays small whatever the weights weigh, and the model is not changed by taking it."""
        model = graph("{ y = Add(x, w) }")
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(2**20, np.float32), "w"))
        before = model.SerializeToString()
        stripped = skeleton.strip(model)
        assert len(stripped.light.SerializeToString()) < 1000
        assert model.SerializeToString() == before
        skeleton.restore(stripped.light, stripped.heavy)
        assert stripped.light == model
