"""Every stated range contains everything that the reference evaluator computes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx.reference import ReferenceEvaluator

from onnxlrp.understand.facts import Range
from tests.graph.written import facts, network

#: One line per operator that states a range: `a` and `b` are data [1,2,4,4] with bounds of their own.
OPERATORS = [
    "z = Relu(a)",
    "z = Clip(a, low, high)",
    "z = Clip(a, low)",
    'z = Clip(a, "", high)',
    "z = Clip(a, high, low)",
    "s = ReduceMax<keepdims = 0>(b) z = Clip(a, s)",
    's = ReduceMin<keepdims = 0>(b) z = Clip(a, "", s)',
    "z = Sigmoid(a)",
    "z = HardSigmoid<alpha = -0.7, beta = 1.3>(a)",
    "z = Softmax<axis = 1>(a)",
    "z = Tanh(a)",
    "z = Erf(a)",
    "z = Softsign(a)",
    "z = Exp(a)",
    "z = Abs(a)",
    "z = Softplus(a)",
    "z = Sqrt(a)",
    "z = ReduceL1(a)",
    "z = ReduceL2(a)",
    "z = ReduceSumSquare(a)",
    "z = Elu<alpha = 1.7>(a)",
    "z = Elu<alpha = -1.7>(a)",
    "z = Add(a, b)",
    "z = Sum(a, b, a)",
    "z = Sub(a, b)",
    "z = Mul(a, b)",
    "z = Mul(a, a)",
    "z = Div(a, b)",
    "z = Mean(a, b, b)",
    "z = Neg(a)",
    "z = Concat<axis = 1>(a, b)",
    "z = Max(a, b)",
    "z = Max(a, low)",
    "z = Min(a, b)",
    "z = Min(a, high)",
    "z = Pad(a, pads)",
    "z = Pad(a, pads, high)",
    "s = ReduceMax<keepdims = 0>(b) z = Pad(a, pads, s)",
    'z = Pad<mode = "reflect">(a, pads)',
    "z = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(a)",
    "z = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1>(a)",
    "z = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1]>(a)",
    "z = GlobalMaxPool(a)",
    "z = GlobalAveragePool(a)",
    "z = ReduceMean(a)",
    "z = ReduceMax(a)",
    "z = ReduceMin(a)",
    "z = ReduceSum(a)",
    "z = LRN<size = 3>(a)",
    'z = Resize<mode = "linear">(a, "", scales)',
    'z = Resize<mode = "cubic">(a, "", scales)',
    'z = Resize<mode = "nearest">(a, "", scales)',
    'z = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(a, "", scales)',
    'z = Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize",'
    " extrapolation_value = 9.0>(a, roi, scales)",
    "f = Flatten(a) d = Constant<value = int64 {1}>() z = CumSum<exclusive = 1>(f, d)",
    "z = Trilu<upper = 0>(a)",
    "n = Shape<start = 1>(b) m = Add(n, n) z = CenterCropPad<axes = [1, 2, 3]>(a, m)",
    "l = Constant<value = int64[4] {3, 1, 4, 2}>() z = ReverseSequence<time_axis = 3, batch_axis = 2>(a, l)",
    "k = Constant<value = int64[1] {2}>() z, i = TopK(a, k)",
    "z = Unique(a)",
    "c = Constant<value = int64[4] {0, 1, 1, 0}>() d = Cast<to = 9>(c) z = Compress<axis = 3>(a, d)",
    "p, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)"
    " z = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(p, i)",
    *(
        f'z = GridSample<mode = "{mode}", padding_mode = "{pad}">(a, grid)'
        for mode in ("linear", "nearest", "cubic")
        for pad in ("zeros", "border")
    ),
    "z = Identity(a)",
    "z = Dropout(a)",
    "z = Dropout(a, ratio, yes)",
    "z = Dropout(a, ratio, no)",
    "i = Cast<to = 7>(a) z = Cast<to = 11>(i)",
    "i = Cast<to = 2>(a) z = Cast<to = 11>(i)",
    "i = Cast<to = 9>(a) z = Cast<to = 11>(i)",
    "i = Cast<to = 7>(a) j = Cast<to = 7>(b) d = Max(j, two) k = Div(i, d) z = Cast<to = 11>(k)",
    "z = Flatten(a)",
    "z = Transpose(a)",
    "z = Slice(a, one, two)",
    "z, y = Split<axis = 1, num_outputs = 2>(a)",
    "y, z = Split<axis = 1, num_outputs = 2>(a)",
    "z = Gather<axis = 2>(a, one)",
    "z = DepthToSpace<blocksize = 1>(a)",
    "z = SpaceToDepth<blocksize = 2>(a)",
    "z = Where(mask, a, b)",
    "z = LeakyRelu(a)",
]

#: Bounds as networks have them, and none at all.
BOUNDS = st.sampled_from(
    [(None, None), (0.0, None), (None, 0.0), (0.0, 1.0), (-1.0, 1.0), (0.5, 2.0), (-3.0, -0.25), (2.0, 6.0)]
)
VALUES = arrays(np.float64, (1, 2, 4, 4), elements=st.floats(-8, 8, width=16, allow_subnormal=False))
CONSTANTS: dict[str, Any] = {
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "scales": np.array([1, 1, 1.5, 1.5], np.float32),
    "one": np.array([1]),
    "two": np.array([2]),
    "grid": np.array([[[[-1.5, -0.75], [0.0, 0.5]], [[0.625, 1.25], [-0.375, 0.875]]]]),
    "yes": np.array(True),
    "no": np.array(False),
    "mask": np.array([[[[True, False, True, False]]]]),
}


def _bounded(name: str, low: float | None, high: float | None) -> tuple[str, dict[str, Any]]:
    """Nodes that give `name` these bounds, and the constants they need."""
    given_bounds = {f"{name}_{side}": v for side, v in (("low", low), ("high", high)) if v is not None}
    low_name, high_name = (f"{name}_{side}" if f"{name}_{side}" in given_bounds else '""' for side in ("low", "high"))
    if not given_bounds:
        return f"{name} = Identity({name}_raw)", {}
    return f"{name} = Clip({name}_raw, {low_name}, {high_name})", given_bounds


def _model(nodes: str, bounds: dict[str, tuple[float | None, float | None]]) -> onnx.ModelProto:
    lines, weights = [], dict(CONSTANTS)
    for name, (low, high) in bounds.items():
        line, constants = _bounded(name, low, high)
        lines.append(line)
        weights.update(constants)
    weights |= {"low": -0.5, "high": 1.5, "ratio": 0.5, "roi": np.array([0.0, 0, -0.2, -0.2, 1, 1, 1.3, 1.3])}
    text = f"g (double[1,2,4,4] a_raw, double[1,2,4,4] b_raw) => (double[] z) {{ {' '.join(lines)} {nodes} }}"
    model = network(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def _assert_within(bounds: Range, values: np.ndarray) -> None:
    """Up to rounding; that nothing is negative must hold exactly."""
    found = values[~np.isnan(values)]
    if not found.size:
        return
    slack = 1e-12 * max(float(np.abs(found).max()), 1.0)
    assert found.min() >= bounds.low - (slack if bounds.low != 0 else 0.0), (bounds, found.min())
    assert found.max() <= bounds.high + slack, (bounds, found.max())


@pytest.mark.parametrize("nodes", OPERATORS)
@settings(max_examples=25, deadline=None)
@given(a=BOUNDS, b=BOUNDS, x=VALUES, y=VALUES)
def test_the_range_of_every_operator_holds_for_any_data(
    nodes: str,
    a: tuple[float | None, float | None],
    b: tuple[float | None, float | None],
    x: np.ndarray,
    y: np.ndarray,
) -> None:
    model = _model(nodes, {"a": a, "b": b})
    bounds = facts(model).range("z")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        (z,) = ReferenceEvaluator(model).run(["z"], {"a_raw": x, "b_raw": y})
    _assert_within(bounds, np.asarray(z))


def test_useful_bounds_are_found() -> None:
    """So that the test above does not pass because nothing is ever stated."""
    everything = (None, None)
    cases = {
        ("z = Relu(a)", everything): Range(0, np.inf),
        ("z = Clip(a, low, high)", everything): Range(-0.5, 1.5),
        ("z = Sigmoid(a)", everything): Range(0, 1),
        ("z = Mul(a, a)", everything): Range(0, np.inf),
        ("z = Mul(a, b)", (-1.0, 1.0)): Range(-1, 1),
        ("z = Div(a, b)", (0.5, 2.0)): Range(0.25, 4),
        ("z = Sub(a, b)", (0.0, 1.0)): Range(-1, 1),
        ("z = Where(mask, a, high)", (0.0, 1.0)): Range(0, 1.5),
        ("c = IsNaN(a) s = Softmax(a) z = Where(c, b, s)", (0.0, 1.0)): Range(0, 1),
        ("z = Max(a, high)", everything): Range(1.5, np.inf),
        ("z = Min(a, low)", (0.0, 1.0)): Range(-0.5, -0.5),
        ("z = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1]>(a)", (0.5, 2.0)): Range(0, 2),
        ("z = Elu<alpha = 2.0>(a)", everything): Range(-2, np.inf),
        ("y, z = Split<axis = 1, num_outputs = 2>(a)", (0.0, 1.0)): Range(0, 1),
        ("r = Relu(a) t = Transpose(r) f = Flatten(t) z = ReduceSum(f)", everything): Range(0, np.inf),
    }
    for (nodes, bounds), expected in cases.items():
        assert facts(_model(nodes, {"a": bounds, "b": bounds})).range("z") == expected, nodes


def test_nothing_is_stated_of_an_operator_of_another_domain() -> None:
    model = network("g (float[2] x) => (float[2] z) { z = com.example.Relu(x) }")
    assert facts(model).range("z") == Range()


def test_constants_have_the_range_of_their_values_and_odd_ones_none() -> None:
    known = facts(
        network(
            "g (float[2] x) => (float[2] z) { z = Add(x, w) }",
            w=[-1.0, 3.0],
            endless=[1.0, np.inf],
            empty=np.zeros(0),
            truth=np.array([True]),
        )
    )
    assert known.range("w") == Range(-1, 3) and known.nonnegative("w") is False
    assert [known.range(n) for n in ("endless", "empty", "truth", "")] == [Range()] * 4


_STEPS = [
    "{z} = Relu({a})", "{z} = Sigmoid({a})", "{z} = Add({a}, {b})", "{z} = Sub({a}, {b})", "{z} = Mul({a}, {b})",
    "{z} = Max({a}, {b})", "{z} = Min({a}, {b})", "{z} = Neg({a})", "{z} = Clip({a}, low, high)", "{z} = Abs({a})",
    "{z} = Tanh({a})", "{z} = Mean({a}, {b})", "{z} = Div({a}, high)", "{z} = Elu({a})", "{z} = Softplus({a})",
    "{z} = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>({a})", "{z} = Clip({a}, {b}_s)",
]  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(_STEPS), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8),
    x=VALUES,
)
def test_ranges_hold_all_along_a_random_network(steps: list[tuple[str, int, int]], x: np.ndarray) -> None:
    lines, made = [], ["a"]
    for i, (step, first, second) in enumerate(steps):
        a, b = made[first % len(made)], made[second % len(made)]
        if "_s" in step:
            lines.append(f"{b}_s = ReduceMin<keepdims = 0>({b})".replace(f"{b}_s", f"s{i}"))
            step = step.replace("{b}_s", f"s{i}")
        lines.append(step.format(z=f"t{i}", a=a, b=b))
        made.append(f"t{i}")
    model = _model(" ".join(lines) + f" z = Identity({made[-1]})", {"a": (None, None), "b": (0.0, 1.0)})
    known = facts(model)
    with np.errstate(all="ignore"):
        values = ReferenceEvaluator(model).run(made, {"a_raw": x, "b_raw": x})
    for name, value in zip(made, values, strict=True):
        _assert_within(known.range(name), np.asarray(value))
