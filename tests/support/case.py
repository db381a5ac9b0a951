"""A small network of one operator, with one or several data inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from tests.support.gradients import distinct
from tests.support.models import Dim, Net

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """An operator on data inputs of these shapes; `build(net, *inputs)` adds it and names the output.

    `low` is the smallest value of the data where the operator needs one (logarithm, square root, divisor).
    """

    shapes: tuple[tuple[int, ...], ...]
    build: Callable[..., str]
    rank: int
    low: float | None = None
    frozen: tuple[int, ...] = ()
    """Axes that must stay static because the operator's constants fix them."""
    opset: int = 21

    @property
    def names(self) -> tuple[str, ...]:
        return tuple("abcdefgh"[: len(self.shapes)])

    def model(self, *, dynamic: bool = False, dtype: type = np.float64) -> ModelProto:
        net = Net(dtype, self.opset)
        inputs = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            free = [dynamic and size > 1 and axis not in self.frozen for axis, size in enumerate(shape)]
            dims: list[Dim] = [f"{name}{axis}" if f else shape[axis] for axis, f in enumerate(free)]
            inputs.append(net.input(name, dims))
        return net.model(self.build(net, *inputs), ranks=[self.rank])

    def feeds(self) -> dict[str, Array]:
        made = {n: distinct(*s, seed=i + 1) for i, (n, s) in enumerate(zip(self.names, self.shapes, strict=True))}
        return made if self.low is None else {n: x - x.min() + self.low for n, x in made.items()}


def alone(
    op: str,
    *shape: int,
    rank: int | None = None,
    low: float | None = None,
    **attributes: Any,
) -> Case:
    """An operator of one input and nothing else."""
    return Case((shape,), lambda net, x: net.op(op, x, **attributes), rank or len(shape), low)


def with_constants(
    op: str,
    shape: tuple[int, ...],
    *constants: Any,
    rank: int | None = None,
    frozen: tuple[int, ...] = (),
    **at: Any,
) -> Case:
    """An operator of one data input followed by constants; None leaves an optional input out."""

    def build(net: Net, x: str) -> str:
        return net.op(op, x, *("" if c is None else net.constant(c) for c in constants), **at)

    return Case((shape,), build, len(shape) if rank is None else rank, frozen=frozen)


def joined(op: str, *shapes: tuple[int, ...], rank: int, **attributes: Any) -> Case:
    """An operator of several data inputs."""
    return Case(shapes, lambda net, *inputs: net.op(op, *inputs, **attributes), rank)


def constant(*shape: int) -> Array:
    return distinct(*shape, seed=77) + 0.01


def resized(
    shape: tuple[int, ...], scales: list[float] | None = None, sizes: list[int] | None = None, **at: Any
) -> Case:
    def build(net: Net, x: str) -> str:
        # Scales are float32 by definition, whatever the data: a Constant node keeps them so in a float64 net.
        given = net.op("Constant", value_floats=[float(s) for s in scales]) if scales else ""
        return net.op("Resize", x, "", given, *([net.constant(np.array(sizes))] if sizes else []), **at)

    return Case((shape,), build, len(shape))
