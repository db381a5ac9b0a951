"""What must hold of every network, whatever it is made of; the oracle is the network's own forward pass."""

from __future__ import annotations

import numpy as np
from backend import point
from hypothesis import assume
from onnx import ModelProto

import onnxlrp
from onnxlrp.planning.conversion import LEDGER_OUTPUT
from tests.support.evaluate import reference, run_onnxruntime, run_reference, to_float64
from tests.support.random_graphs import Array, RandomGraph

GRADIENT = "gradient-x-input"
#: Tables under which the ledger of every step has to close.
TABLES = ("epsilon", "default", "epsilon-plus", "epsilon-alpha2-beta1")
_DIRECTIONS, _TRIES = 2, 8
#: What rounding constants such as 1/3 to float32 leaves over where contributions of size 1 cancel.
_CONSTANTS = 1e-6


def expect_gradient(graph: RandomGraph) -> None:
    """Input times gradient, against central differences along random directions; the forward pass as it was.

    In float64 by `onnx.reference`, and the same relevance in float32 by onnxruntime.
    """
    model, y = graph.model, graph.model.graph.output[0].name
    rng = np.random.default_rng(1)
    plain = reference(to_float64(model))
    feeds = {name: x.astype(np.float64) for name, x in graph.feeds.items()}
    value = plain(feeds)[y]
    seed = rng.normal(size=value.shape).astype(np.float32)
    emitted = onnxlrp.convert(model, rules=GRADIENT, target="seed")
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed.astype(np.float64)})
    np.testing.assert_array_equal(found[y], value)
    for name, x in feeds.items():
        if f"{name}_relevance" in found:
            multiplier = found[f"{name}_relevance"] / x
            _expect_slopes(lambda at: float((seed * plain(at)[y]).sum()), feeds, name, multiplier, rng)
    _expect_same_in_onnxruntime(graph, emitted, seed, found, y)


def _expect_slopes(
    f: point.Function, feeds: dict[str, Array], name: str, multiplier: Array, rng: np.random.Generator
) -> None:
    compared = 0
    for _ in range(_TRIES):
        direction = rng.normal(size=multiplier.shape)
        slope = point.slope(f, feeds, name, direction, 1.0)
        if not slope.smooth:
            continue  # a kink lies within the step: another direction may miss it
        shares = multiplier * direction
        unit = float(np.linalg.norm(shares)) + abs(slope.value)
        assert abs(float(shares.sum()) - slope.value) <= 1e-5 * unit + slope.error + _CONSTANTS
        compared += 1
        if compared == _DIRECTIONS:
            return
    assume(compared > 0)


def _expect_same_in_onnxruntime(
    graph: RandomGraph, emitted: ModelProto, seed: Array, exact: dict[str, Array], y: str
) -> None:
    before = run_onnxruntime(graph.model, graph.feeds, optimised=False)
    after = run_onnxruntime(emitted, {**graph.feeds, "lrp_seed": seed}, optimised=False)
    np.testing.assert_array_equal(after[y], before[y])
    optimised = run_onnxruntime(emitted, {**graph.feeds, "lrp_seed": seed})
    for result in (after, optimised):
        for name, relevance in exact.items():
            off, size = np.linalg.norm(result[name] - relevance), np.linalg.norm(relevance)
            assert off <= 1e-2 * size + _CONSTANTS * np.sqrt(relevance.size), name


def expect_closed_ledger(graph: RandomGraph, rules: str) -> None:
    """What arrives at each step is what it sends on and what it keeps; every value of the maps is finite."""
    emitted = onnxlrp.convert(graph.model, rules=rules, target="seed", ledger=True)
    shape = run_onnxruntime(graph.model, graph.feeds)[graph.model.graph.output[0].name].shape
    seed = np.random.default_rng(2).normal(size=shape)
    feeds = {name: x.astype(np.float64) for name, x in graph.feeds.items()}
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    for name, value in found.items():
        assert np.isfinite(value).all(), name
    for step, (arrived, *gone, mass) in enumerate(found[LEDGER_OUTPUT].tolist()):
        assert abs(arrived - sum(gone)) <= 1e-6 * mass + 1e-12, (step, arrived, gone)
