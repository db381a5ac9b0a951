"""The last layers of a model, their parameters permuted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.randomise import randomise, weighted_layers

RNG = np.random.default_rng(0)


def _model(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model('<ir_version: 8, opset_import: ["": 17]>\n' + text)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def _numbers(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _changed(before: onnx.ModelProto, after: onnx.ModelProto) -> set[str]:
    old, new = _stored(before), _stored(after)
    assert {name: values.shape for name, values in old.items()} == {name: v.shape for name, v in new.items()}
    for name in old:
        assert np.array_equal(np.sort(old[name], axis=None), np.sort(new[name], axis=None)), "not a permutation"
    return {name for name in old if not np.array_equal(old[name], new[name])}


@pytest.fixture
def network() -> onnx.ModelProto:
    return _model(
        """g (float[N,3,8,8] x) => (float[N,5] y) {
            c = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r = Relu(c)
            p = GlobalAveragePool(r)
            f = Flatten(p)
            h = MatMul(f, w2)
            a = Add(h, b2)
            s = Relu(a)
            y = Gemm(s, w3, b3)
        }""",
        w1=_numbers(4, 3, 3, 3),
        b1=_numbers(4),
        w2=_numbers(4, 6),
        b2=_numbers(6),
        w3=_numbers(6, 5),
        b3=_numbers(5),
    )


def test_layers_are_permuted_from_the_output_back(network: onnx.ModelProto) -> None:
    assert weighted_layers(network) == 3
    assert _changed(network, randomise(network, 0, seed=1)) == set()
    assert _changed(network, randomise(network, 1, seed=1)) == {"w3", "b3"}
    assert _changed(network, randomise(network, 2, seed=1)) == {"w3", "b3", "w2", "b2"}
    assert _changed(network, randomise(network, 3, seed=1)) == {"w3", "b3", "w2", "b2", "w1", "b1"}


def test_the_copy_runs_and_the_model_stays_as_it_was(network: onnx.ModelProto) -> None:
    before = network.SerializeToString()
    changed = randomise(network, 3, seed=1)
    assert network.SerializeToString() == before
    image = {"x": _numbers(2, 3, 8, 8)}
    original, other = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, image)[0]
        for m in (network, changed)
    )
    assert original.shape == other.shape
    assert not np.allclose(original, other)


def test_a_layer_is_permuted_in_the_same_way_however_many_are(network: onnx.ModelProto) -> None:
    one, all_of_them = _stored(randomise(network, 1, seed=5)), _stored(randomise(network, 3, seed=5))
    assert np.array_equal(one["w3"], all_of_them["w3"])
    again, other = _stored(randomise(network, 3, seed=5)), _stored(randomise(network, 3, seed=6))
    assert all(np.array_equal(all_of_them[name], again[name]) for name in again)
    assert not np.array_equal(all_of_them["w1"], other["w1"])


@pytest.mark.parametrize("layers", [-1, 4])
def test_there_are_only_so_many_layers(network: onnx.ModelProto, layers: int) -> None:
    with pytest.raises(UsageError, match="the model has 3 weighted layers"):
        randomise(network, layers, seed=0)


def test_embeddings_are_layers_and_a_weight_of_two_counts_once() -> None:
    model = _model(
        """g (int64[N,4] ids) => (float[N,4,9] y) {
            e = Gather(table, ids)
            h = MatMul(e, w)
            t = Transpose<perm=[1,0]>(table)
            y = MatMul(h, t)
        }""",
        table=_numbers(9, 5),
        w=_numbers(5, 5),
    )
    assert weighted_layers(model) == 2
    assert _changed(model, randomise(model, 1, seed=0)) == {"table"}
    assert _changed(model, randomise(model, 2, seed=0)) == {"table", "w"}


def test_a_weight_is_permuted_where_it_is_stored() -> None:
    quantised = RNG.integers(-100, 100, (6, 5), dtype=np.int8)
    model = _model(
        """g (float[N,6] x) => (float[N,5] y) {
            d = DequantizeLinear<axis=1>(q, scale, zero)
            y = MatMul(x, d)
        }""",
        q=quantised,
        scale=np.abs(_numbers(5)),
        zero=np.zeros(5, np.int8),
    )
    assert _changed(model, randomise(model, 1, seed=0)) == {"q"}


def test_constant_nodes_and_numbers_in_lists() -> None:
    model = _model(
        """g (float[N,2] x) => (float[N,4] y) {
            w = Constant<value = float[2,4] {1.,2.,3.,4.,5.,6.,7.,8.}>()
            flat = Constant<value_floats = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5, 12.5, 13.5, 14.5,
                                            15.5, 16.5]>()
            shape = Constant<value_ints = [4, 4]>()
            v = Reshape(flat, shape)
            h = MatMul(x, w)
            y = MatMul(h, v)
        }"""
    )
    assert weighted_layers(model) == 2

    def held(changed: onnx.ModelProto, place: int) -> list[float]:
        return numpy_helper.to_array(changed.graph.node[place].attribute[0].t).reshape(-1).tolist()

    both = randomise(model, 2, seed=3)
    assert held(both, 0) != held(model, 0)
    assert sorted(held(both, 0)) == held(model, 0)
    assert sorted(held(both, 1)) == [number + 0.5 for number in range(1, 17)] != held(both, 1)
    assert list(both.graph.node[2].attribute[0].ints) == [4, 4]


def test_layers_that_the_outputs_do_not_depend_on_are_left_out(network: onnx.ModelProto) -> None:
    network.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    assert weighted_layers(network, outputs=["r"]) == 1
    assert _changed(network, randomise(network, 1, seed=1, outputs=["r"])) == {"w1", "b1"}


def test_tables_of_indices_and_added_positions_are_no_layers() -> None:
    model = _model(
        """g (float[N,3,4] x, int64[2] i) => (float[N,3,5] y, float[2] z) {
            h = MatMul(x, w)
            y = Add(h, positions)
            z = Gather(line, i)
        }""",
        w=_numbers(4, 5),
        positions=_numbers(1, 3, 5),
        line=_numbers(7),
    )
    assert weighted_layers(model) == 1
    assert _changed(model, randomise(model, 1, seed=1)) == {"w"}


def test_layers_in_branches_and_in_functions() -> None:
    text = """
        <ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[N,4] x, bool c) => (float[N,4] y) <float[4,4] w> {
            z = If(c) <then_branch = t () => (float[N,4] a) { a = MatMul(x, w) },
                       else_branch = e () => (float[N,4] b) { b = Identity(x) }>
            y = own.dense(z, w2)
        }
        <domain: "own", opset_import: ["": 17]>
        dense (u, v) => (o) { o = MatMul(u, v) }
    """
    model = parser.parse_model(text)
    del model.graph.initializer[:]
    model.graph.initializer.extend([numpy_helper.from_array(_numbers(4, 4), name) for name in ("w", "w2")])
    assert weighted_layers(model) == 2
    assert _changed(model, randomise(model, 1, seed=1)) == {"w2"}
    assert _changed(model, randomise(model, 2, seed=1)) == {"w", "w2"}


def test_weights_that_a_loop_hands_on_are_its_weights() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2,4] x) => (float[2,4] y) <int64 n = {3}, bool go = {1}> {
            y, last, moved = Loop(n, go, x, w, v) <body = b (int64 i, bool c, float[2,4] h, float[4,4] u, float[4,4] t)
                                            => (bool d, float[2,4] k, float[4,4] same, float[4,4] other) {
                d = Identity(c)
                k = MatMul(h, u)
                same = Identity(u)
                other = MatMul(t, u)
            }>
        }
    """)
    model.graph.initializer.extend([numpy_helper.from_array(_numbers(4, 4), name) for name in ("w", "v")])
    assert weighted_layers(model) == 1
    assert _changed(model, randomise(model, 1, seed=1)) == {"w"}


def test_external_data_is_read_where_it_is_permuted_and_stays_outside_elsewhere(
    network: onnx.ModelProto, tmp_path: Path
) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    onnx.save(copy, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    changed = randomise(model, 1, seed=1, folders=(tmp_path,))
    outside = {t.name for t in changed.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    assert outside == {"w1", "b1", "w2", "b2"}
    onnx.save(changed, tmp_path / "changed.onnx")
    loaded = onnx.load(tmp_path / "changed.onnx")
    assert _changed(network, loaded) == {"w3", "b3"}
