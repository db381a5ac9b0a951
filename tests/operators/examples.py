"""One operator as a network of one data input, beside integers that come in at run time, and what its map must be.

The oracle is the network's own forward pass: its matrix, found from unit vectors, where it is linear, and finite
differences where it is not. The same is asked of `onnx.reference` in float64 and of onnxruntime in float32, each
compared with its own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

import onnxlrp
from tests.support.case import Case
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient, distinct
from tests.support.models import Dim, Net

Array = np.ndarray
Function = Callable[[Array], Array]

#: The rule table under which every operator must give the input times its derivative.
GRADIENT = "gradient-x-input"


@dataclass(frozen=True)
class Example:
    """An operator behind a data input `a` of this shape; `build(net, "a")` adds it and names its output.

    `given` are integer inputs, constant in the model or not at the caller's choice: `build` names them as it likes.
    """

    shape: tuple[int, ...]
    build: Callable[[Net, str], str]
    rank: int
    given: Mapping[str, Array] = field(default_factory=dict)
    open_axes: tuple[int, ...] | None = None
    """Axes whose size may be left open; all when None."""
    opset: int = 21

    def model(self, *, dynamic: bool = False, dtype: type = np.float64) -> ModelProto:
        """The network; `dynamic` leaves sizes open, each under a name of its own."""
        free = range(len(self.shape)) if self.open_axes is None else self.open_axes
        dims: list[Dim] = [f"d{i}" if dynamic and i in free else size for i, size in enumerate(self.shape)]
        net = Net(dtype, self.opset)
        a = net.input("a", dims)
        for name, value in self.given.items():
            net.input(name, list(value.shape), np.int64)
        return net.model(self.build(net, a), ranks=[self.rank])

    @property
    def data(self) -> Array:
        return distinct(*self.shape, seed=4)

    @property
    def integers(self) -> dict[str, Array]:
        return {name: np.asarray(value, np.int64) for name, value in self.given.items()}


def one(op: str, shape: tuple[int, ...], *constants: Any, rank: int | None = None, **at: Any) -> Example:
    """An operator on data followed by constants; None leaves an optional input out."""

    def build(net: Net, a: str) -> str:
        return net.op(op, a, *("" if c is None else net.constant(c) for c in constants), **at)

    return Example(shape, build, len(shape) if rank is None else rank)


def at_run_time(
    op: str,
    shape: tuple[int, ...],
    rank: int | None = None,
    /,
    attributes: Mapping[str, Any] | None = None,
    **given: Any,
) -> Example:
    """An operator on data whose other inputs are not known before the model runs; None leaves one out."""

    def build(net: Net, a: str) -> str:
        return net.op(op, a, *("" if v is None else name for name, v in given.items()), **(attributes or {}))

    arrays = {name: np.asarray(v, np.int64) for name, v in given.items() if v is not None}
    return Example(shape, build, len(shape) if rank is None else rank, arrays)


def matrix(f: Function, shape: tuple[int, ...]) -> Array:
    """The matrix of an affine function."""
    constant = f(np.zeros(shape))
    return np.stack([(f(unit.reshape(shape)) - constant).ravel() for unit in np.eye(int(np.prod(shape)))], axis=1)


def in_reference(example: Example, model: ModelProto) -> Function:
    run, y = reference(to_float64(model)), model.graph.output[0].name
    return lambda a: run({"a": a, **example.integers})[y]


def in_onnxruntime(example: Example, model: ModelProto) -> Function:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda a: session.run(None, {"a": a.astype(np.float32), **example.integers})[0]


def expect_linear_map(example: Example, *, dynamic: bool) -> None:
    """R = a * (matrix^T seed) under gradient-x-input, in float64 and in onnxruntime."""
    model, a = example.model(dynamic=dynamic), example.data
    explained = explain_seeded(model, GRADIENT, {"a": a, **example.integers}, inputs=("a",))
    expected = a.ravel() * (matrix(in_reference(example, model), a.shape).T @ explained.seed.ravel())
    assert relative_l2(explained.relevance["a"].ravel(), expected) < 1e-9
    expect_linear_map_in_onnxruntime(example, dynamic=dynamic)


def expect_linear_map_in_onnxruntime(example: Example, *, dynamic: bool) -> None:
    """The same for onnxruntime alone, where `onnx.reference` does not compute the operator as it is defined."""
    model, a = example.model(dynamic=dynamic, dtype=np.float32), example.data.astype(np.float32)
    f = in_onnxruntime(example, model)
    seed = np.random.default_rng(8).normal(size=f(a).shape).astype(np.float32)
    emitted = onnxlrp.convert(model, rules=GRADIENT, target="seed", inputs=("a",))
    result = run_onnxruntime(emitted, {"a": a, "lrp_seed": seed, **example.integers})
    expected = a.ravel() * (matrix(f, a.shape).T @ seed.ravel())
    assert relative_l2(result["a_relevance"].ravel(), expected) < 1e-5


def expect_derivative(example: Example, *, dynamic: bool = False, tolerance: float = 1e-7) -> None:
    """R = a * dy/da seed under gradient-x-input, against finite differences in float64."""
    model, a = example.model(dynamic=dynamic), example.data
    explained = explain_seeded(model, GRADIENT, {"a": a, **example.integers}, inputs=("a",))
    f = in_reference(example, model)
    gradient = central_gradient(lambda at: float((explained.seed * f(at["a"])).sum()), {"a": a}, "a")
    assert relative_l2(explained.relevance["a"], a * gradient) < tolerance


def expect_derivatives(case: Case, *, dynamic: bool = False, tolerance: float = 1e-7) -> None:
    """R = x * dy/dx seed under gradient-x-input for every input of a case, against finite differences in float64."""
    model, feeds = case.model(dynamic=dynamic), case.feeds()
    explained = explain_seeded(model, GRADIENT, feeds)
    run, y = reference(to_float64(model)), model.graph.output[0].name
    for name, x in feeds.items():
        gradient = central_gradient(lambda at: float((explained.seed * run(at)[y]).sum()), feeds, name)
        assert relative_l2(explained.relevance[name], x * gradient) < tolerance, name
