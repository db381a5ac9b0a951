"""The operators that tools/reference gives to `onnx.reference` agree with onnxruntime on random attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, parser
from onnx.backend.test.loader import load_model_tests

from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference
from tests.support.linear_cases import CONVOLUTIONS
from tests.support.models import Net


def _pool(op: str, seed: int) -> tuple[ModelProto, np.ndarray]:
    """A pool with random attributes, on data with many ties."""
    r = np.random.default_rng(seed)
    n = int(r.integers(1, 4))
    kernel = [int(k) for k in r.integers(1, 4, n)]
    dilations = [int(d) for d in r.integers(1, 3, n)] if r.random() < 0.4 else [1] * n
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [int(s) for s in r.integers(1, 4, n)]}
    attributes["dilations"] = dilations
    if r.random() < 0.3:
        attributes["auto_pad"] = str(r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        attributes["dilations"] = [1] * n  # onnxruntime forgets the dilation when it computes the padding
    else:
        attributes["pads"] = [int(r.integers(0, k)) for k in kernel * 2]
        attributes["ceil_mode"] = int(r.random() < 0.5)
    if op == "AveragePool":
        attributes["count_include_pad"] = int(r.random() < 0.5)
    shape = (2, 3, *(int(s) for s in r.integers(5, 8, n)))
    net = Net(np.float32)
    y = net.op(op, net.input("x", shape), outputs=2 if op == "MaxPool" else 1, **attributes)
    model = net.model(y)
    if op == "MaxPool":
        model.graph.output.append(helper.make_tensor_value_info(f"{y}_1", TensorProto.INT64, [None] * (n + 2)))
    return model, np.round(r.normal(size=shape) * 2).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pools(op: str, seed: int) -> None:
    model, x = _pool(op, seed)
    ours, theirs = run_reference(model, {"x": x}), run_onnxruntime(model, {"x": x}, optimised=False)
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        np.testing.assert_allclose(ours[name], expected, atol=1e-5)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str) -> None:
    model = CONVOLUTIONS[case].model(dtype=np.float32, dynamic="all")
    x = np.random.default_rng(1).normal(size=CONVOLUTIONS[case].shape).astype(np.float32)
    ours, theirs = run_reference(model, {"x": x}), run_onnxruntime(model, {"x": x}, optimised=False)
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        assert relative_l2(ours[name], expected) < 1e-6


@pytest.mark.parametrize("seed", range(30))
def test_grid_sample(seed: int) -> None:
    r = np.random.default_rng(seed)
    n = int(r.integers(2, 4))
    mode = str(r.choice(["linear", "nearest", "cubic"] if n == 2 else ["linear", "nearest"]))
    attributes = {
        "mode": mode,
        "padding_mode": str(r.choice(["zeros", "border", "reflection"])),
        "align_corners": int(r.random() < 0.5),
    }
    x = r.normal(size=(2, 2, *(int(s) for s in r.integers(2, 6, n)))).astype(np.float32)
    grid = r.uniform(-2.5, 2.5, (2, *(int(s) for s in r.integers(1, 4, n)), n)).astype(np.float32)
    net = Net(np.float32)
    model = net.model(net.op("GridSample", net.input("x", x.shape), net.input("grid", grid.shape), **attributes))
    (ours,), (theirs,) = (run(model, {"x": x, "grid": grid}).values() for run in (run_reference, run_onnxruntime))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 1, 3), (2, 3, 2, 4, 3)])
def test_affine_grid(size: tuple[int, ...], corners: int) -> None:
    n = len(size) - 2
    theta = np.random.default_rng(1).normal(size=(size[0], n, n + 1)).astype(np.float32)
    net = Net(np.float32)
    y = net.op("AffineGrid", net.input("theta", theta.shape), net.constant(list(size)), align_corners=corners)
    (ours,), (theirs,) = (run(net.model(y), {"theta": theta}).values() for run in (run_reference, run_onnxruntime))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_deform_conv(seed: int) -> None:
    r = np.random.default_rng(seed)
    group, offset_group, kernel = int(r.integers(1, 3)), int(r.integers(1, 3)), [int(k) for k in r.integers(1, 4, 2)]
    strides, dilations = ([int(v) for v in r.integers(1, 3, 2)] for _ in range(2))
    pads, size = [int(v) for v in r.integers(0, 2, 4)], [int(s) for s in r.integers(5, 8, 2)]
    out = [(size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(2)]
    shapes = {
        "x": (2, 4, *size),
        "w": (4, 4 // group, *kernel),
        "offset": (2, 2 * offset_group * kernel[0] * kernel[1], *out),
        "bias": (4,),
        "mask": (2, offset_group * kernel[0] * kernel[1], *out),
    }
    feeds = {name: r.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    net = Net(np.float32)
    attributes = {"group": group, "offset_group": offset_group, "strides": strides, "dilations": dilations}
    y = net.op("DeformConv", *(net.input(n, s) for n, s in shapes.items()), pads=pads, **attributes)
    (ours,), (theirs,) = (run(net.model(y, ranks=[4]), feeds).values() for run in (run_reference, run_onnxruntime))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_channels(p: int) -> None:
    net = Net(np.float32)
    model = net.model(net.op("GlobalLpPool", net.input("x", (2, 3, 4, 2)), p=p), ranks=[4])
    x = np.random.default_rng(p).normal(size=(2, 3, 4, 2)).astype(np.float32)
    (ours,), (theirs,) = (run(model, {"x": x}).values() for run in (run_reference, run_onnxruntime))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(10))
def test_maxima_of_regions(seed: int, scale: float) -> None:
    """Regions that reach out of the picture, are turned round, or have halves as corners."""
    r = np.random.default_rng(seed)
    regions = np.concatenate([r.integers(0, 2, (6, 1)), r.integers(-2, 9, (6, 4)) / 2 / scale], axis=1)
    net = Net(np.float32)
    operands = [net.input("x", (2, 3, 5, 4)), net.input("rois", (6, 5))]
    model = net.model(net.op("MaxRoiPool", *operands, pooled_shape=[2, 3], spatial_scale=scale), ranks=[4])
    feeds = {"x": r.normal(size=(2, 3, 5, 4)).astype(np.float32), "rois": regions.astype(np.float32)}
    (ours,), (theirs,) = (run(model, feeds).values() for run in (run_reference, run_onnxruntime))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("shape", "axis"), [((1, 50), 1), ((3, 40), -1), ((40, 2), 0), ((2, 3, 4), 1)])
def test_gather_elements(shape: tuple[int, ...], axis: int) -> None:
    r = np.random.default_rng(3)
    wanted = [*shape]
    wanted[axis] = 7
    x, at = r.normal(size=shape).astype(np.float32), r.integers(-shape[axis], shape[axis], wanted)
    net = Net(np.float32)
    model = net.model(net.op("GatherElements", net.input("x", shape), net.constant(at), axis=axis))
    (ours,), (theirs,) = (run(model, {"x": x}).values() for run in (run_reference, run_onnxruntime))
    np.testing.assert_array_equal(ours, theirs)


def _standard(*ops: str) -> list[Any]:
    """The standard's own cases of operators that onnxruntime does not have."""
    cases = load_model_tests(kind="node")
    return [c for c in cases if c.model.graph.node[0].op_type in ops and len(c.model.graph.node) == 1]


@pytest.mark.parametrize("op", ["LinearAttention", "CausalConvWithState"])
def test_recurrent_attention_against_the_cases_of_the_standard(op: str) -> None:
    for case in _standard(op):
        inputs, outputs = case.data_sets[0]
        feeds = dict(zip((i.name for i in case.model.graph.input), inputs, strict=True))
        found = run_reference(case.model, feeds).values()
        for ours, theirs in zip(found, outputs, strict=True):
            np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=2e-2, atol=2e-3)


def test_an_output_that_nobody_wants_is_not_an_input_that_was_left_out() -> None:
    """A bound of Clip that is left out bounds nothing."""
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[2,6] x) => (float[2,3] y) <float top = {0.5}> {
            first, half = Split <axis = 1, num_outputs = 2> (x)
            y = Clip (half, , top)
        }""")
    model.graph.node[0].output[0] = ""
    data = 4 - np.arange(12, dtype=np.float32).reshape(2, 6)  # the first half is larger than the second
    np.testing.assert_array_equal(run_reference(model, {"x": data})["y"], np.minimum(data[:, 3:], 0.5))
