"""GridSample: values read between the grid points of its input, at coordinates that may be data themselves.

Each sample is a sum over taps, which are the points around it: one for mode nearest, 2 along each axis for linear, 4
for cubic. The transpose adds each sample's share to its taps. LRP rules take the coordinates as given; the derivative
goes on through the coefficients of the taps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Selection, Stop, Term
from onnxlrp.operators.registry import Situation, register

_INT64 = int(TensorProto.INT64)
#: Keys' cubic convolution, with the parameter of the standard.
_A = -0.75


@dataclass(frozen=True)
class _Tap:
    """One point of an axis for each sample [N, samples]: its index, its coefficient and how that changes."""

    index: str
    weight: str
    slope: str


@dataclass(frozen=True)
class _Taps:
    """All taps of all samples, side by side: flat index and coefficient, [N, taps, samples] each.

    Attributes:
        slopes: the derivative of the coefficients along each coordinate of the grid, in the grid's order.
    """

    index: str
    weight: str
    slopes: tuple[str, ...]


@dataclass(frozen=True)
class _Sampling:
    """A GridSample node over `dims` spatial axes."""

    at: Situation
    dims: int

    @property
    def x(self) -> str:
        return self.at.node.inputs[0]

    @property
    def grid(self) -> str:
        return self.at.node.inputs[1]

    @property
    def mode(self) -> str:
        """ "nearest", "linear" or "cubic"; opset 16 has other names."""
        mode = str(self.at.node.attribute("mode", "linear"))
        return {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)

    @property
    def padding(self) -> str:
        return str(self.at.node.attribute("padding_mode", "zeros"))

    @property
    def corners(self) -> bool:
        return bool(self.at.node.attribute("align_corners", 0))

    def size(self, b: Builder, axis: int) -> str:
        """The size of a spatial axis, as an int64 number."""
        shape = b.graph.shape(self.x)
        known = None if shape is None else shape[axis + 2]
        if isinstance(known, int):
            return b.constant_int(known)
        return b.op("Squeeze", b.op("Shape", self.x, start=axis + 2, end=axis + 3))

    def _scale(self, b: Builder, axis: int) -> str:
        """How far one unit of the grid reaches, in elements: half of the size, or of the size - 1."""
        size = b.op("Cast", self.size(b, axis), to=b.dtype(self.grid))
        whole = b.sub(size, b.scalar(1.0, size)) if self.corners else size
        return b.div(whole, b.scalar(2.0, whole))

    def _position(self, b: Builder, axis: int) -> str:
        """Where the samples lie along an axis, in elements [N, samples]. The grid names the last axis first."""
        chosen = b.op("Gather", self.grid, b.constant_int(self.dims - 1 - axis), axis=-1)
        g = b.op("Reshape", chosen, b.integers([0, -1]))
        one, two = b.scalar(1.0, g), b.scalar(2.0, g)
        size = b.op("Cast", self.size(b, axis), to=b.dtype(g))
        # In the order of the runtime's own operations: elements change where this is rounded.
        if self.corners:
            return b.mul(b.div(b.add(g, one), two), b.sub(size, one))
        return b.div(b.sub(b.mul(b.add(g, one), size), one), two)

    def _inside(self, b: Builder, index: str, axis: int) -> tuple[str, str | None]:
        """The index of the element that a tap reads, and where the tap counts (None for everywhere)."""
        size, zero, one = self.size(b, axis), b.constant_int(0), b.constant_int(1)
        last = b.sub(size, one)
        if self.padding == "reflection":
            period = b.op("Max", b.mul(last if self.corners else size, b.constant_int(2)), one)
            turned = b.op("Mod", index, period)
            mirrored = b.sub(period if self.corners else b.sub(period, one), turned)
            return b.op("Min", turned, mirrored), None
        clamped = b.op("Min", b.op("Max", index, zero), last)
        return clamped, b.op("Equal", clamped, index) if self.padding == "zeros" else None

    def along(self, b: Builder, axis: int) -> tuple[_Tap, ...]:
        """The taps of an axis."""
        position = self._position(b, axis)
        if self.mode == "nearest":
            index, counts = self._inside(b, b.op("Cast", b.op("Round", position), to=_INT64), axis)
            one = b.op("Expand", b.scalar(1.0, position), b.op("Shape", position))
            weight = one if counts is None else b.mask(counts, one)
            return (_Tap(index, weight, b.sub(weight, weight)),)
        base = b.op("Floor", position)
        t, first = b.sub(position, base), b.op("Cast", base, to=_INT64)
        taps = []
        for offset, weight, slope in _linear(b, t) if self.mode == "linear" else _cubic(b, t):
            index, counts = self._inside(b, b.add(first, b.constant_int(offset)), axis)
            if counts is not None:
                weight, slope = b.mask(counts, weight), b.mask(counts, slope)
            taps.append(_Tap(index, weight, slope))
        return tuple(taps)

    def taps(self, b: Builder, slopes: bool) -> _Taps:
        """Every combination of the taps of the axes."""
        axes = [self.along(b, axis) for axis in range(self.dims)]
        combinations = list(product(*axes))

        def stacked(rows: list[str]) -> str:
            parts = [b.op("Unsqueeze", row, b.integers([1])) for row in rows]
            return b.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]

        def flat(combination: tuple[_Tap, ...]) -> str:
            index = combination[0].index
            for axis, tap in enumerate(combination[1:], start=1):
                index = b.add(b.mul(index, self.size(b, axis)), tap.index)
            return index

        def coefficient(combination: tuple[_Tap, ...], sloped: int | None = None) -> str:
            factors = [tap.slope if axis == sloped else tap.weight for axis, tap in enumerate(combination)]
            whole = factors[0]
            for factor in factors[1:]:
                whole = b.mul(whole, factor)
            return whole

        along_grid = range(self.dims - 1, -1, -1) if slopes else ()
        return _Taps(
            stacked([flat(c) for c in combinations]),
            stacked([coefficient(c) for c in combinations]),
            tuple(
                b.mul(stacked([coefficient(c, axis) for c in combinations]), self._scale(b, axis))
                for axis in along_grid
            ),
        )

    def _samples(self, b: Builder, s: str) -> str:
        """A tensor of the output's shape as [N, C, 1, samples]."""
        return b.op("Unsqueeze", b.op("Reshape", s, b.integers([0, 0, -1])), b.integers([2]))

    def _spread(self, b: Builder, s: str, index: str) -> tuple[str, str]:
        """Taps of each channel: the flat indices in the shape of `s` [N, C, taps, samples], both as [N, C, -1]."""
        every = b.op("Expand", b.op("Unsqueeze", index, b.integers([1])), b.op("Shape", s))
        rows = b.integers([0, 0, -1])
        return b.op("Reshape", every, rows), b.op("Reshape", s, rows)

    def to_x(self, b: Builder, s: str) -> str:
        """The transpose with respect to the input."""
        taps = self.taps(b, slopes=False)
        weight = taps.weight if b.dtype(taps.weight) == b.dtype(s) else b.op("Cast", taps.weight, to=b.dtype(s))
        shares = b.mul(self._samples(b, s), b.op("Unsqueeze", weight, b.integers([1])))
        index, values = self._spread(b, shares, taps.index)
        zeros = b.op("Reshape", b.zeros_like(self.x), b.integers([0, 0, -1]))
        summed = b.op("ScatterElements", zeros, index, values, axis=2, reduction="add")
        return b.reshape_like(summed, self.x)

    def to_grid(self, b: Builder, s: str) -> str:
        """The derivative with respect to the grid."""
        taps, samples = self.taps(b, slopes=True), self._samples(b, s)
        elements = b.op("Reshape", self.x, b.integers([0, 0, -1]))
        ones = b.op("Expand", samples, b.op("Shape", b.op("Unsqueeze", taps.weight, b.integers([1]))))
        index, _ = self._spread(b, ones, taps.index)
        read = b.op("Reshape", b.op("GatherElements", elements, index, axis=2), b.op("Shape", ones))
        felt = b.op("ReduceSum", b.mul(read, samples), b.integers([1]), keepdims=0)
        if b.dtype(felt) != b.dtype(self.grid):
            felt = b.op("Cast", felt, to=b.dtype(self.grid))
        each = [b.op("ReduceSum", b.mul(felt, slope), b.integers([1]), keepdims=0) for slope in taps.slopes]
        last = b.integers([2])
        return b.reshape_like(b.op("Concat", *(b.op("Unsqueeze", e, last) for e in each), axis=2), self.grid)


@register(
    "GridSample",
    "average",
    "shared in proportion to what each sample is interpolated from; the grid receives nothing",
    "added to the points read; for the grid the slope between them",
    data=(0, 1),
)
def grid_sample(at: Situation) -> Linear | Selection | Stop | Refusal:
    node, x, y = at.node, at.node.inputs[0], at.y
    rank = at.graph.rank(x) or at.graph.rank(node.inputs[1])
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    sampling = _Sampling(at, rank - 2)
    if sampling.mode == "nearest":
        if not at.is_active(0):
            return Stop("a step function of the grid")
        absorbs = sampling.padding == "zeros"
        return Selection("movement", (x,), (y,), lambda b, given: {x: sampling.to_x(b, given[y])}, absorbs=absorbs)

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("GridSample", value, node.inputs[1], **node.attributes)
        return b.add(out, bias) if bias else out

    def derivative(b: Builder, s: str) -> Mapping[str, str]:
        shares = {x: sampling.to_x(b, s)} if at.is_active(0) else {}
        return {**shares, sampling.grid: sampling.to_grid(b, s)}

    fixed = Fixed(Map(forward, sampling.to_x), sign=0 if sampling.mode == "cubic" else 1)
    return Linear(
        "average",
        (Term(x, fixed),) if at.is_active(0) else (),
        y,
        bias=None if at.is_active(0) else lambda b: y,
        vjp=derivative if at.is_active(1) else None,
        steering=(sampling.grid,) if at.is_active(1) else (),
    )


@register("AffineGrid", "average", "shared in proportion to the terms of each coordinate", "the points of the grid")
def affine_grid(at: Situation) -> Linear | Refusal:
    """Linear in theta. The operator itself says where its points lie: under the identity they are what it returns."""
    node, theta, y = at.node, at.node.inputs[0], at.y
    rank = at.graph.rank(y)
    if rank is None:
        return Refusal("the number of its dimensions is not known", "run shape inference on the model first")
    n = rank - 2

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("AffineGrid", value, node.inputs[1], **node.attributes)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, s: str) -> str:
        identity = b.constant(np.eye(n, n + 1, dtype=b.numpy_type(theta))[None])
        size = node.inputs[1]
        one = b.op("Concat", b.integers([1]), b.op("Slice", size, b.integers([1]), b.integers([rank])), axis=0)
        points = b.op("AffineGrid", identity, one, dtype=b.dtype(theta), **node.attributes)
        rows = b.op("Reshape", points, b.integers([-1, n]))
        homogeneous = b.op("Pad", rows, b.integers([0, 0, 0, 1]), b.scalar(1.0, rows))
        flat = b.op("Reshape", s, b.integers([0, -1, n]))
        return b.op("MatMul", b.op("Transpose", flat, perm=[0, 2, 1]), homogeneous)

    return Linear("average", (Term(theta, Fixed(Map(forward, adjoint), sign=0)),), y)


def _linear(b: Builder, t: str) -> tuple[tuple[int, str, str], ...]:
    """Offset, coefficient and slope of the two taps around a point, `t` behind the first one."""
    one = b.scalar(1.0, t)
    ones = b.op("Expand", one, b.op("Shape", t))
    return (0, b.sub(one, t), b.op("Neg", ones)), (1, t, ones)


def _cubic(b: Builder, t: str) -> tuple[tuple[int, str, str], ...]:
    """The same for the four taps of Keys' convolution (1981), which is symmetric: the last two mirror the first."""
    rest = b.sub(b.scalar(1.0, t), t)
    taps = []
    for near, u in ((True, t), (False, rest)):
        far = b.add(u, b.scalar(1.0, u))
        outer = _polynomial(b, far, (_A, -5 * _A, 8 * _A, -4 * _A))
        outer_slope = _polynomial(b, far, (3 * _A, -10 * _A, 8 * _A))
        inner = _polynomial(b, u, (_A + 2, -(_A + 3), 0.0, 1.0))
        inner_slope = _polynomial(b, u, (3 * (_A + 2), -2 * (_A + 3), 0.0))
        if near:
            taps += [(-1, outer, outer_slope), (0, inner, inner_slope)]
        else:
            taps += [(1, inner, b.op("Neg", inner_slope)), (2, outer, b.op("Neg", outer_slope))]
    return tuple(taps)


def _polynomial(b: Builder, u: str, coefficients: tuple[float, ...]) -> str:
    value = b.scale(u, coefficients[0])
    for c in coefficients[1:-1]:
        value = b.mul(b.add(value, b.scalar(c, u)) if c else value, u)
    return b.add(value, b.scalar(coefficients[-1], u)) if coefficients[-1] else value
