"""An operator on several data inputs, and what is asked of its relevance: the derivative, and a ledger that closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import onnxlrp
from tests.operators.examples import GRADIENT
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient
from tests.support.models import Dim, Net

Array = np.ndarray
Build = Callable[..., str]


@dataclass(frozen=True)
class Several:
    """An operator behind data inputs; `build(net, *names)` adds it and names its output.

    Attributes:
        data: float inputs to be explained.
        rank: of the output.
        given: other inputs, not explained and not known before the model runs; their names follow those of the data.
        frozen: data inputs whose sizes stay known, and axes of others, as (name, axis).
        runs: onnxruntime has kernels for it.
    """

    data: Mapping[str, Array]
    build: Build
    rank: int
    given: Mapping[str, Array] = field(default_factory=dict)
    frozen: tuple[str | tuple[str, int], ...] = ()
    opset: int = 21
    runs: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.data, *self.given)

    def model(self, *, dynamic: bool = False, dtype: type = np.float64) -> ModelProto:
        """The network; `dynamic` leaves sizes open, each under a name of its own."""
        net = Net(dtype, self.opset)
        for name, value in self.data.items():
            keep = {axis for axis in range(value.ndim) if name in self.frozen or (name, axis) in self.frozen}
            dims: list[Dim] = [f"{name}{i}" if dynamic and i not in keep else d for i, d in enumerate(value.shape)]
            net.input(name, dims)
        for name, value in self.given.items():
            net.input(name, list(value.shape), value.dtype.type if value.dtype.kind != "f" else None)
        return net.model(self.build(net, *self.names), ranks=[self.rank])

    def feeds(self, dtype: type = np.float64) -> dict[str, Array]:
        both = {**self.data, **self.given}
        return {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in both.items()}


def applied(op: str, *constants: Any, **attributes: Any) -> Build:
    """A node that reads all inputs and then constants; None leaves an optional input out."""

    def build(net: Net, *inputs: str) -> str:
        return net.op(op, *inputs, *("" if c is None else net.constant(c) for c in constants), **attributes)

    return build


def expect_gradient(case: Several, *, dynamic: bool = False, tolerance: float = 1e-7, single: float = 1e-4) -> None:
    """R = x * dy/dx seed for each input, against finite differences in float64; the same map from onnxruntime."""
    model, feeds = case.model(dynamic=dynamic), case.feeds()
    explained = explain_seeded(model, GRADIENT, feeds, inputs=tuple(case.data))
    run, y = reference(to_float64(model)), model.graph.output[0].name
    expected = {}
    for name, x in case.data.items():
        gradient = central_gradient(lambda at: float((explained.seed * run(at)[y]).sum()), feeds, name)
        expected[name] = x * gradient
        assert _differs(explained.relevance[name], expected[name]) < tolerance, name
    if not case.runs:
        return
    emitted = onnxlrp.convert(
        case.model(dynamic=dynamic, dtype=np.float32), rules=GRADIENT, target="seed", inputs=tuple(case.data)
    )
    result = run_onnxruntime(emitted, {**case.feeds(np.float32), "lrp_seed": explained.seed.astype(np.float32)})
    for name, value in expected.items():
        assert _differs(result[f"{name}_relevance"], value) < single, name


def _differs(actual: Array, expected: Array) -> float:
    """Relative L2; absolute where the expected map is zero up to the rounding of finite differences."""
    return relative_l2(actual, expected) if np.linalg.norm(expected) > 1e-9 else float(np.linalg.norm(actual))


def expect_closed_ledger(case: Several, rules: str = "epsilon") -> None:
    """At every step relevance in = relevance out + what was kept, and none is lost on the way."""
    model, feeds = case.model(), case.feeds()
    emitted = onnxlrp.convert(model, rules=rules, target="seed", inputs=tuple(case.data), ledger=True)
    run = reference(to_float64(emitted))
    seed = np.random.default_rng(2).normal(size=reference(to_float64(model))(feeds)[model.graph.output[0].name].shape)
    result = run({**feeds, "lrp_seed": seed})
    ledger = result["lrp_ledger"].reshape(-1, 7)
    arrived, mass = ledger[:, 0], ledger[:, 6]
    gap = np.abs(arrived - ledger[:, 1:6].sum(axis=1))
    assert (gap <= 1e-9 * np.maximum(mass, 1e-12)).all()
    assert mass.max() > 0
    total = sum(float(result[f"{name}_relevance"].sum()) for name in case.data)
    kept = float(ledger[:, 2:6].sum())
    explained = result[model.graph.output[0].name]
    assert np.isclose(total + kept, float((seed * explained).sum()), rtol=1e-6, atol=1e-6 * mass.max())


def operators(model: ModelProto) -> set[str]:
    """The operators of a model's main graph."""
    return {node.op_type for node in onnx.load_from_string(model.SerializeToString()).graph.node}
