"""Every place of a BatchNormalization beside layers: relevance is that of the network with it fused into them.

The fused network is explicit: each run of affine operators is one dense matrix with its bias, found by evaluating it at
zero and at the unit vectors (so that padding and planes of bias are what they are), and relevance goes back through
these matrices by the textbook formulas of tests/support/replicas.py. (Guillemot et al. 2020.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest

from onnxlrp.tables import RuleTable, parse_table
from tests.support.chains import (
    FLAT,
    RELU,
    Layers,
    Op,
    Shape,
    apply,
    back,
    built,
    emitted_map,
    replica,
)
from tests.support.evaluate import relative_l2
from tests.support.models import Net
from tests.support.replicas import dense

LAYERS = Layers(11)
conv, gemm, norm, transposed = LAYERS.conv, LAYERS.gemm, LAYERS.norm, LAYERS.transposed
RULES: Mapping[str, str] = {"epsilon": "", "z-plus": "", "gamma": "gamma = 0.5", "alpha-beta": ""}


@dataclass(frozen=True)
class Placement:
    """Operators in order; `fused` are the affine runs that relevance takes as one, "relu" between them."""

    shape: Shape
    runs: tuple[tuple[Op, ...], ...]

    @property
    def ops(self) -> tuple[Op, ...]:
        return tuple(op for run in self.runs for op in run)

    def model(self) -> onnx.ModelProto:
        return built(self.ops, self.shape)


PLACEMENTS = {
    "conv-bn": Placement((2, 4, 4), ((conv(2, 3, 1), norm(3)), (RELU,), (FLAT, gemm(48, 3)))),
    "conv-bn, no bias": Placement((2, 4, 4), ((conv(2, 3, bias=False), norm(3)), (RELU,), (FLAT, gemm(12, 3)))),
    "transposed conv-bn": Placement((2, 2, 2), ((transposed(2, 3), norm(3)), (RELU,), (FLAT, gemm(48, 3)))),
    "dense-bn": Placement((5,), ((gemm(5, 4), norm(4)), (RELU,), (gemm(4, 3),))),
    "bn-dense": Placement((5,), ((norm(5, signs=True), gemm(5, 4)), (RELU,), (gemm(4, 3),))),
    "bn-conv": Placement((2, 4, 4), ((norm(2), conv(2, 3)), (RELU,), (FLAT, gemm(12, 3)))),
    "bn-padded conv": Placement((2, 4, 4), ((norm(2, signs=True), conv(2, 3, 1)), (RELU,), (FLAT, gemm(48, 3)))),
    "bn-conv-bn": Placement((2, 4, 4), ((norm(2), conv(2, 3, 1), norm(3)), (RELU,), (FLAT, gemm(48, 3)))),
    "conv-relu-bn-conv": Placement(
        (2, 4, 4), ((conv(2, 3),), (RELU,), (norm(3), conv(3, 2, 1)), (RELU,), (FLAT, gemm(8, 3)))
    ),
}


def table(rule: str, **top: Any) -> RuleTable:
    head = "".join(f"{key} = {str(value).lower()}\n" for key, value in top.items())
    text = f'{head}[[rule]]\nkind = ["linear", "affine"]\nrule = "{rule}"\n{RULES[rule]}\n'
    return parse_table(text, name="test", source="test.toml")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PLACEMENTS)
def test_relevance_is_that_of_the_fused_network(name: str, rule: str) -> None:
    placement = PLACEMENTS[name]
    x = np.random.default_rng(1).normal(size=placement.shape)
    expected, fused_output = replica(placement.runs, rule, x)
    found, output = emitted_map(placement.model(), table(rule), x)
    assert relative_l2(fused_output, output) < 1e-9, "the fused network is not the same function"
    assert relative_l2(found, expected) < 1e-7


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PLACEMENTS)
def test_unmerged_it_is_a_step_of_its_own(name: str, rule: str) -> None:
    """Epsilon through two affine steps is epsilon through the one they make (but for epsilon itself): merging matters
    to rules that tell positive from negative contributions."""
    placement = PLACEMENTS[name]
    x = np.random.default_rng(1).normal(size=placement.shape)
    apart = [(op,) if op is not FLAT else () for run in placement.runs for op in run]
    apart = [
        (FLAT, *run) if run and run[0].name == "Gemm" and len(placement.shape) > 1 else run for run in apart if run
    ]
    expected, _ = replica(apart, rule, x)
    found, output = emitted_map(placement.model(), table(rule, merge_batch_normalization=False), x)
    assert relative_l2(found, expected) < 1e-6
    merged, same = emitted_map(placement.model(), table(rule), x)
    assert np.array_equal(output, same)
    if rule == "epsilon":
        assert relative_l2(merged, found) < 1e-4
    else:
        assert relative_l2(merged, found) > 1e-2


# -- in front of a Relu ------------------------------------------------------------------------------------------------

PRE_ACTIVATION = {
    "bn-relu-conv": ((2, 4, 4), (), norm(2, signs=True), (conv(2, 3),), (RELU,), (FLAT, gemm(12, 3))),
    "bn-relu-padded conv": ((2, 4, 4), (), norm(2, signs=True), (conv(2, 3, 1),), (RELU,), (FLAT, gemm(48, 3))),
    "bn-relu-dense": ((5,), (), norm(5), (gemm(5, 4),), (RELU,), (gemm(4, 3),)),
    "conv-bn-bn-relu-conv": (
        *((2, 4, 4), ((conv(2, 3), norm(3)), (RELU,)), norm(3, signs=True), (conv(3, 2, 1),), (RELU,)),
        *((FLAT, gemm(8, 3)),),
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PRE_ACTIVATION)
def test_a_relu_between_becomes_a_threshold_where_the_table_asks_for_it(name: str, rule: str) -> None:
    """relu(k x + c) = k u + c with u = max(x, t) for k > 0 and min(x, t) for k < 0; u passes relevance to x."""
    shape, before, bn, layer, *rest = PRE_ACTIVATION[name]
    x = np.random.default_rng(1).normal(size=shape)
    front = [op for run in before for op in run]
    value = apply(front, x) if front else x
    scale, shift, mean, variance = bn.constants
    k = scale / np.sqrt(variance + 1e-3)
    t = (mean - shift / k).reshape(-1, *[1] * (len(value.shape) - 1))
    u = np.where(k.reshape(t.shape) > 0, np.maximum(value, t), np.minimum(value, t))
    expected, output = replica([(bn, *layer), *rest], rule, u)
    if before:
        # Through what is in front: its output's relevance is that of u.
        values, layers = [x], []
        for run in before:
            layers.append(None if run == (RELU,) else dense(lambda v, run=run: apply(run, v), values[-1].shape))
            values.append(apply(run, values[-1]))
        for op, at in zip(reversed(layers), reversed(values[:-1]), strict=True):
            expected = expected if op is None else back(op, rule, at, expected)
    model = built([*front, bn, RELU, *layer, *(op for run in rest for op in run)], shape)
    found, original = emitted_map(model, table(rule, merge_through_relu=True), x)
    assert relative_l2(output, original) < 1e-9, "the network with the threshold is not the same function"
    assert relative_l2(found, expected) < 1e-7
    plain, _ = emitted_map(model, table(rule), x)
    assert name != "bn-relu-padded conv" or relative_l2(plain, found) > 0.1


def test_the_derivative_does_not_change() -> None:
    shape, _, bn, layer, *rest = PRE_ACTIVATION["bn-relu-padded conv"]
    model = built([bn, RELU, *layer, *(op for run in rest for op in run)], shape)
    x = np.random.default_rng(1).normal(size=shape)
    tables = [
        parse_table(f'merge_through_relu = {flag}\n[[rule]]\nrule = "gradient"', name="t", source="t.toml")
        for flag in ("true", "false")
    ]
    (found, _), (plain, _) = (emitted_map(model, rules, x) for rules in tables)
    assert relative_l2(found, plain) < 1e-9


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param([conv(2, 3), norm(3), RELU, conv(3, 2), FLAT, gemm(2, 3)], id="a layer in front takes it"),
        pytest.param([norm(2), RELU, Op("GlobalAveragePool"), FLAT, gemm(2, 3)], id="no layer behind"),
        pytest.param(
            [
                Op("BatchNormalization", (np.array([1.0, 0.0]), *(np.ones(2) * v for v in (1, 2, 3)))),
                *(RELU, conv(2, 3), Op("GlobalAveragePool"), FLAT, gemm(3, 3)),
            ],
            id="a channel scaled by zero",
        ),
    ],
)
def test_where_it_does_not_apply_the_map_is_the_usual_one(ops: list[Op]) -> None:
    shape = (2, 5, 5)
    model = built(ops, shape)
    x = np.random.default_rng(1).normal(size=shape)
    found, _ = emitted_map(model, table("epsilon", merge_through_relu=True), x)
    assert np.array_equal(found, emitted_map(model, table("epsilon"), x)[0])


# -- on a residual path ------------------------------------------------------------------------------------------------


def residual(*behind: Op) -> onnx.ModelProto:
    """conv -> + <- conv, then `behind` and a dense head."""
    net = Net(np.float64)
    x = net.input("x", ["n", 2, 4, 4])
    y = net.op("Add", FIRST.add(net, x), SECOND.add(net, x))
    for op in (*behind, FLAT, HEAD):
        y = op.add(net, y)
    return net.model(y)


FIRST, SECOND, HEAD, BRANCH_NORM, AFTER = conv(2, 3, 1), conv(2, 3, 1), gemm(48, 3), norm(3), conv(3, 3, 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", ["a layer behind takes it", "none can"])
def test_behind_a_sum_of_several_producers(case: str, rule: str) -> None:
    """No producer can take it: the layer behind does, or else it is an affine step with the rule of that kind."""
    taken = case == "a layer behind takes it"
    behind: tuple[Op, ...] = (BRANCH_NORM, AFTER, RELU) if taken else (BRANCH_NORM, RELU)
    runs: list[tuple[Op, ...]] = [(BRANCH_NORM, AFTER) if taken else (BRANCH_NORM,), (RELU,), (FLAT, HEAD)]
    x = np.random.default_rng(1).normal(size=(2, 4, 4))
    first, second = (dense(lambda v, op=op: apply((op,), v), x.shape) for op in (FIRST, SECOND))
    parts = [first(x), second(x)]
    at_sum, output = replica(runs, rule, parts[0] + parts[1])
    expected = np.zeros_like(x)
    for op, part in zip((first, second), parts, strict=True):
        z = parts[0] + parts[1]
        share = part * at_sum / (z + 1e-6 * np.where(z >= 0, 1, -1))
        expected = expected + back(op, rule, x, share)
    found, original = emitted_map(residual(*behind), table(rule), x)
    assert relative_l2(output, original) < 1e-9
    assert relative_l2(found, expected) < 1e-6
