"""Sums and maxima over each sample of a tensor, wherever its batch stands.

The batch is axis 0 of the explained output. Inside a network it may be another axis (sequence first), or one with
something else (windows, heads), of which it is the slower part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Dim


@dataclass(frozen=True)
class View:
    """A tensor in a form in which each sample is everything along `axes`, and the way back."""

    to: Callable[[str], str]
    back: Callable[[str], str]
    axes: tuple[int, ...] | None

    def over(self, b: Builder, op: str, viewed: str) -> str:
        """A reduction of each sample to one number, in a shape that broadcasts to the view."""
        if self.axes == ():
            return viewed
        return b.op(op, viewed, *(() if self.axes is None else (b.integers(self.axes),)), keepdims=1)


def _same(tensor: str) -> str:
    return tensor


@dataclass(frozen=True)
class Samples:
    """Where the batch of a graph is.

    Attributes:
        tensor: a tensor of which axis 0 is the batch: the explained output.
        size: its size or symbol, None where nothing is known of it.
    """

    tensor: str
    size: Dim

    def view(self, b: Builder, like: str) -> View:
        """How tensors in the shape of the forward tensor `like` fall into samples."""
        shape = b.graph.shape(like)
        if shape is not None and (self.size == 1 or not shape):
            return View(_same, _same, None)
        axis = None if shape is None else self._axis(shape)
        if shape is not None and axis is not None:
            return View(_same, _same, tuple(i for i in range(len(shape)) if i != axis))
        first = shape[0] if shape is not None else None
        if isinstance(self.size, int) and isinstance(first, int) and first % self.size:
            # Something that all samples share.
            return View(_same, _same, None)
        rows = b.integers([self.size, -1]) if isinstance(self.size, int) else self._rows(b)
        return View(lambda t: b.op("Reshape", t, rows), lambda t: b.reshape_like(t, like), (1,))

    def _axis(self, shape: tuple[Dim, ...]) -> int | None:
        """The axis that has the batch's own size; of several the first."""
        return None if self.size is None else next((i for i, d in enumerate(shape) if d == self.size), None)

    def _rows(self, b: Builder) -> str:
        count = b.op("Slice", b.op("Shape", self.tensor), b.integers([0]), b.integers([1]))
        return b.op("Concat", count, b.integers([-1]), axis=0)

    def mass(self, b: Builder, values: str, like: str, nonnegative: bool = False) -> str:
        """The sum of absolute values of each sample, for use with `view`; `values` are in the shape of `like`."""
        view = self.view(b, like)
        viewed = view.to(values)
        return view.over(b, "ReduceSum", viewed if nonnegative else b.op("Abs", viewed))

    def total(self, b: Builder, values: str, like: str) -> str:
        """The signed sum of each sample, otherwise like `mass`."""
        return self.mass(b, values, like, nonnegative=True)

    def vector(self, b: Builder, mass: str) -> str:
        """What `mass` gives as a vector over the samples, so that those of tensors of different rank can be added."""
        return b.op("Reshape", mass, b.integers([-1]))

    def times(self, b: Builder, values: str, factor: str, like: str) -> str:
        """Values in the shape of `like` times a vector over the samples."""
        view = self.view(b, like)
        if view.axes is not None:
            rank = len(view.axes) + 1
            axis = next(i for i in range(rank) if i not in view.axes)
            factor = b.op("Reshape", factor, b.integers([-1 if i == axis else 1 for i in range(rank)]))
        return view.back(b.mul(view.to(values), factor))

    def divide(self, b: Builder, values: str, divisor: str, like: str) -> str:
        """Values in the shape of `like` divided by one number per sample, as `mass` gives it."""
        view = self.view(b, like)
        return view.back(b.div(view.to(values), divisor))


#: Where nothing is known of the batch.
ANYWHERE = Samples("", None)
