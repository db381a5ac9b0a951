"""RoiAlign: regions of an image, sampled on a regular grid and averaged, or their largest contribution taken.

Averages are separable: y = A x B', where A and B hold for each region how much each row and each column counts. In mode
max every sample has four corners, and of all products of a corner with its weight the largest one is the result.
LRP rules take the regions as given; the derivative goes on through the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Term
from onnxlrp.operators.registry import Situation, register

_INT64 = int(TensorProto.INT64)


@dataclass(frozen=True)
class _Side:
    """Rows (side 0) or columns (side 1) of a RoiAlign node: where each bin is sampled."""

    at: Situation
    side: int

    @property
    def x(self) -> str:
        return self.at.node.inputs[0]

    @property
    def rois(self) -> str:
        return self.at.node.inputs[1]

    @property
    def bins(self) -> int:
        return int(self.at.node.attribute(("output_height", "output_width")[self.side], 1))

    @property
    def scale(self) -> float:
        return float(self.at.node.attribute("spatial_scale", 1.0))

    @property
    def half_pixel(self) -> bool:
        return str(self.at.node.attribute("coordinate_transformation_mode", "half_pixel")) == "half_pixel"

    def size(self, b: Builder) -> str:
        """Rows or columns of the image, as an int64 number."""
        return b.op("Squeeze", b.op("Gather", b.shape_of(self.x), b.integers([2 + self.side])))

    def _end(self, b: Builder, second: bool) -> str:
        """Where each region begins or ends [regions, 1, 1], in elements. Regions name columns first."""
        column = b.op("Gather", self.rois, b.integers([(1 - self.side) + 2 * second]), axis=1)
        placed = b.scale(column, self.scale)
        if self.half_pixel:
            placed = b.sub(placed, b.scalar(0.5, placed))
        return b.op("Unsqueeze", placed, b.integers([2]))

    def extent(self, b: Builder) -> tuple[str, str | None]:
        """How long each region is, and where that still depends on its ends (None for everywhere)."""
        whole = b.sub(self._end(b, True), self._end(b, False))
        if self.half_pixel:
            return whole, None
        one = b.scalar(1.0, whole)
        return b.at_least(whole, one), b.op("Cast", b.op("Greater", whole, one), to=b.dtype(whole))

    def counts(self, b: Builder) -> str | None:
        """Samples of a bin for each region [regions, 1, 1] where regions differ in it."""
        if self.at.node.attribute("sampling_ratio", 0) > 0:
            return None
        extent, _ = self.extent(b)
        return b.op("Ceil", b.div(extent, b.scalar(self.bins, extent)))

    def part(self, b: Builder) -> str:
        """Which part of its region lies in front of each sample [regions or 1, bins, samples]."""
        counts = self.counts(b)
        bins = b.constant(np.arange(self.bins, dtype=b.numpy_type(self.rois))[None, :, None])
        if counts is None:
            count = int(self.at.node.attribute("sampling_ratio", 0))
            inner = b.constant(((np.arange(count) + 0.5) / count).astype(b.numpy_type(self.rois))[None, None, :])
        else:
            numbers = b.add(self._numbers(b, counts), b.scalar(0.5, counts))
            inner = b.div(numbers, b.at_least(counts, b.scalar(1.0, counts)))
        return b.div(b.add(bins, inner), b.scalar(self.bins, inner))

    def _numbers(self, b: Builder, counts: str) -> str:
        """0, 1, ... up to the largest count, as floats."""
        numbers = b.op("Range", b.constant_int(0), self.most(b, counts), b.constant_int(1))
        return b.op("Cast", numbers, to=b.dtype(counts))

    def most(self, b: Builder, counts: str | None) -> str:
        """The samples of a bin of the region that has most of them."""
        if counts is None:
            return b.constant_int(int(self.at.node.attribute("sampling_ratio", 0)))
        # One at least, even without regions; where a region has fewer it counts nowhere.
        one = b.constant(np.ones((1,), b.numpy_type(counts)))
        every = b.op("Concat", b.op("Reshape", counts, b.integers([-1])), one, axis=0)
        return b.op("Cast", b.op("ReduceMax", every, keepdims=0), to=_INT64)

    def position(self, b: Builder) -> str:
        """Where each sample lies [regions, bins, samples], in elements."""
        return b.add(self._end(b, False), b.mul(self.part(b), self.extent(b)[0]))

    def taken(self, b: Builder) -> str | None:
        """1 for the samples that a region has, where regions differ in their number."""
        counts = self.counts(b)
        if counts is None:
            return None
        taken = b.op("Less", self._numbers(b, counts), counts)
        return b.op("Cast", taken, to=b.dtype(counts))

    def inside(self, b: Builder) -> str:
        """1 for samples that are not beyond the image by more than one element."""
        position, size = self.position(b), self.size(b)
        near = b.op("GreaterOrEqual", position, b.scalar(-1.0, position))
        far = b.op("LessOrEqual", position, b.op("Cast", size, to=b.dtype(position)))
        return b.op("Cast", b.op("And", near, far), to=b.dtype(position))

    def clipped(self, b: Builder) -> tuple[str, str]:
        """The positions moved into the image, and 1 where they were not moved."""
        position = self.position(b)
        last = b.op("Cast", b.sub(self.size(b), b.constant_int(1)), to=b.dtype(position))
        moved = b.op("Min", b.op("Max", position, b.scalar(0.0, position)), last)
        return moved, b.op("Cast", b.op("Equal", moved, position), to=b.dtype(position))

    def each(self, b: Builder) -> str:
        """What one sample counts [regions or 1, bins, samples]: its share of the bin's average, 0 outside."""
        counts, inside, taken = self.counts(b), self.inside(b), self.taken(b)
        if counts is None or taken is None:
            return b.scale(inside, 1.0 / int(self.at.node.attribute("sampling_ratio", 0)))
        return b.div(b.mul(inside, taken), b.at_least(counts, b.scalar(1.0, counts)))

    def _distance(self, b: Builder) -> str:
        """From each element of the image to each sample [regions, bins, samples, size]."""
        elements = b.op("Range", b.constant_int(0), self.size(b), b.constant_int(1))
        clipped, _ = self.clipped(b)
        return b.sub(b.op("Unsqueeze", clipped, b.integers([3])), b.op("Cast", elements, to=b.dtype(clipped)))

    def matrix(self, b: Builder) -> str:
        """How much each element counts for each bin [regions, bins, size]."""
        distance = self._distance(b)
        near = b.positive(b.sub(b.scalar(1.0, distance), b.op("Abs", distance)))
        weighted = b.mul(near, b.op("Unsqueeze", self.each(b), b.integers([3])))
        return b.op("ReduceSum", weighted, b.integers([2]), keepdims=0)

    def of_matrix(self, b: Builder, s: str) -> tuple[str, str]:
        """The derivative with respect to begin and end of each region, given that with respect to the matrix."""
        distance = self._distance(b)
        one = b.scalar(1.0, distance)
        between = b.op("Cast", b.op("Less", b.op("Abs", distance), one), to=b.dtype(distance))
        slope = b.op("Neg", b.mul(b.op("Sign", distance), between))
        felt = b.op("ReduceSum", b.mul(slope, b.op("Unsqueeze", s, b.integers([2]))), b.integers([3]), keepdims=0)
        moves = b.mul(b.mul(felt, self.each(b)), self.clipped(b)[1])
        begin, end = self.ends(b)
        axes = b.integers([1, 2])
        first, second = (b.op("ReduceSum", b.mul(moves, e), axes, keepdims=0) for e in (begin, end))
        return first, second

    def ends(self, b: Builder) -> tuple[str, str]:
        """How far each sample moves with the begin and with the end of its region."""
        part, (_, free) = self.part(b), self.extent(b)
        end = part if free is None else b.mul(part, free)
        return b.scale(b.sub(b.scalar(1.0, end), end), self.scale), b.scale(end, self.scale)


@register(
    "RoiAlign",
    "average",
    "shared in proportion to what each bin is averaged from, or to the winner; the regions receive nothing",
    "added to the elements sampled; for the regions the slope between them",
    data=(0, 1),
)
def roi_align(at: Situation) -> Linear:
    """Average or maximum, by its attribute `mode`."""
    return _maximum(at) if str(at.node.attribute("mode", "avg")).lower() == "max" else _average(at)


def _average(at: Situation) -> Linear:
    node, (x, _, batch) = at.node, at.node.inputs[:3]
    rows, columns = _Side(at, 0), _Side(at, 1)

    def own(b: Builder) -> str:
        """1 where a region lies in an image [images, regions]."""
        images = b.op("Squeeze", b.op("Gather", b.shape_of(x), b.integers([0])))
        numbers = b.op("Range", b.constant_int(0), images, b.constant_int(1))
        same = b.op("Equal", b.op("Unsqueeze", numbers, b.integers([1])), batch)
        return b.op("Cast", same, to=b.dtype(x))

    # Letters: n images, r regions, c channels, i and j bins, h rows, w columns.
    def spread(b: Builder, s: str, side: _Side) -> str:
        """Bins spread along one side."""
        return b.op("Einsum", s, side.matrix(b), equation="rcij,rjw->ricw" if side.side else "rcij,rih->rjch")

    def to_x(b: Builder, s: str) -> str:
        mine = b.op("Einsum", own(b), rows.matrix(b), equation="nr,rih->nrih")
        return b.op("Einsum", mine, spread(b, s, columns), equation="nrih,ricw->nchw")

    def to_matrix(b: Builder, s: str, side: _Side) -> str:
        """The derivative with respect to the matrix of a side [regions, bins, size]."""
        whole = "rjch,nchw->nrjw" if side.side else "ricw,nchw->nrih"
        seen = b.op("Einsum", spread(b, s, columns if side.side == 0 else rows), x, equation=whole)
        return b.op("Einsum", seen, own(b), equation="nrih,nr->rih")

    def to_rois(b: Builder, s: str) -> str:
        y1, y2 = rows.of_matrix(b, to_matrix(b, s, rows))
        x1, x2 = columns.of_matrix(b, to_matrix(b, s, columns))
        return b.op("Concat", *(b.op("Unsqueeze", e, b.integers([1])) for e in (x1, y1, x2, y2)), axis=1)

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("RoiAlign", value, *node.inputs[1:], **node.attributes)
        return b.add(out, bias) if bias else out

    return _steered(at, Map(forward, to_x), to_rois)


def _steered(at: Situation, own: Map, to_rois: Callable[[Builder, str], str]) -> Linear:
    """Linear in the image, with coefficients that depend on the regions."""
    x, rois = at.node.inputs[:2]

    def derivative(b: Builder, s: str) -> Mapping[str, str]:
        shares = {x: own.adjoint(b, s)} if at.is_active(0) else {}
        return {**shares, rois: to_rois(b, s)}

    return Linear(
        "average",
        (Term(x, Fixed(own)),) if at.is_active(0) else (),
        at.y,
        bias=None if at.is_active(0) else lambda b: at.y,
        vjp=derivative if at.is_active(1) else None,
        steering=(rois,) if at.is_active(1) else (),
    )


@dataclass(frozen=True)
class _Corners:
    """The corners of all samples, side by side: [regions, bins, corners] each."""

    at: Situation

    @property
    def sides(self) -> tuple[_Side, _Side]:
        return _Side(self.at, 0), _Side(self.at, 1)

    @property
    def bins(self) -> int:
        return self.sides[0].bins * self.sides[1].bins

    def _joined(self, b: Builder, rows: str, columns: str, op: str = "Mul") -> str:
        """Every row with every column: [regions, bins, samples, corners] of either side."""
        rows = b.op("Unsqueeze", rows, b.integers([2, 4, 6]))
        columns = b.op("Unsqueeze", columns, b.integers([1, 3, 5]))
        samples = [side.most(b, side.counts(b)) for side in self.sides]
        corners = b.mul(b.mul(*samples), b.constant_int(4))
        # Nothing but the number of regions is left open, since there may be none of them.
        shape = b.op("Concat", b.integers([-1, self.bins]), b.op("Unsqueeze", corners, b.integers([0])), axis=0)
        return b.op("Reshape", b.op(op, rows, columns), shape)

    def _two(self, b: Builder, low: str, high: str) -> str:
        last = b.integers([3])
        return b.op("Concat", b.op("Unsqueeze", low, last), b.op("Unsqueeze", high, last), axis=3)

    def _low(self, b: Builder, side: _Side) -> tuple[str, str]:
        """The element before each sample, and how far behind it the sample lies."""
        clipped, _ = side.clipped(b)
        low = b.op("Floor", clipped)
        return low, b.sub(clipped, low)

    def _weight(self, b: Builder, side: _Side) -> str:
        _, behind = self._low(b, side)
        counts = side.inside(b)
        return self._two(b, b.mul(b.sub(b.scalar(1.0, behind), behind), counts), b.mul(behind, counts))

    def _slope(self, b: Builder, side: _Side) -> str:
        moves = b.mul(side.clipped(b)[1], side.inside(b))
        return self._two(b, b.op("Neg", moves), moves)

    def _index(self, b: Builder, side: _Side) -> str:
        low = b.op("Cast", self._low(b, side)[0], to=_INT64)
        one = b.constant_int(1)
        return self._two(b, low, b.op("Min", b.add(low, one), b.sub(side.size(b), one)))

    def weight(self, b: Builder) -> str:
        rows, columns = self.sides
        return self._joined(b, self._weight(b, rows), self._weight(b, columns))

    def index(self, b: Builder) -> str:
        """Flat positions in the images of one channel."""
        rows, columns = self.sides
        area = b.mul(rows.size(b), columns.size(b))
        first = b.mul(b.op("Unsqueeze", self.at.node.inputs[2], b.integers([1, 2])), area)
        lines = b.mul(self._index(b, rows), columns.size(b))
        return b.add(self._joined(b, lines, self._index(b, columns), "Add"), first)

    def missing(self, b: Builder) -> str | None:
        """True for samples that a region does not have, where regions differ in their number."""
        taken = []
        for side in self.sides:
            some = side.taken(b)
            if some is None:
                return None
            every = b.mul(some, b.constant(np.ones((1, side.bins, 1), b.numpy_type(some))))
            taken.append(self._two(b, every, every))
        whole = self._joined(b, *taken)
        return b.op("Equal", whole, b.scalar(0.0, whole))

    def moves(self, b: Builder) -> tuple[str, str, str, str]:
        """How each weight changes with the four numbers of its region."""
        rows, columns = self.sides

        def sloped(side: _Side, end: str) -> str:
            return b.mul(self._slope(b, side), self._two(b, end, end))

        y1, y2 = (self._joined(b, sloped(rows, end), self._weight(b, columns)) for end in rows.ends(b))
        x1, x2 = (self._joined(b, self._weight(b, rows), sloped(columns, end)) for end in columns.ends(b))
        return x1, y1, x2, y2


@dataclass(frozen=True)
class _Winners:
    """Which corner gives each result: [channels, regions, bins, 1] each."""

    corners: _Corners

    @property
    def x(self) -> str:
        return self.corners.at.node.inputs[0]

    def image(self, b: Builder, value: str) -> str:
        """The images of each channel, flat."""
        return b.op("Reshape", b.op("Transpose", value, perm=[1, 0, 2, 3]), b.integers([0, -1]))

    def _products(self, b: Builder) -> str:
        values = b.op("Gather", self.image(b, self.x), self.corners.index(b), axis=1)
        products = b.mul(values, self.corners.weight(b))
        missing = self.corners.missing(b)
        least = b.scalar(float(np.finfo(b.numpy_type(self.x)).min), products)
        return products if missing is None else b.where(missing, least, products)

    def pick(self, b: Builder, tensor: str) -> str:
        """The element of the winner of a tensor [regions, bins, corners]."""
        products = self._products(b)
        winner = b.op("ArgMax", products, axis=3, keepdims=1)
        return b.op("GatherElements", b.op("Expand", tensor, b.op("Shape", products)), winner, axis=3)

    def weight(self, b: Builder) -> str:
        weight, missing = self.corners.weight(b), self.corners.missing(b)
        return self.pick(b, weight if missing is None else b.where(missing, b.scalar(0.0, weight), weight))

    def read(self, b: Builder, value: str) -> str:
        index = self.pick(b, self.corners.index(b))
        flat = b.op("GatherElements", self.image(b, value), b.op("Reshape", index, b.integers([0, -1])), axis=1)
        return b.op("Reshape", flat, b.op("Shape", index))

    def results(self, b: Builder, s: str) -> str:
        """A tensor of the result's shape."""
        return b.op("Reshape", b.op("Transpose", s, perm=[1, 0, 2, 3]), b.integers([0, -1, self.corners.bins, 1]))


def _maximum(at: Situation) -> Linear:
    x = at.node.inputs[0]
    winners = _Winners(_Corners(at))
    bins = [side.bins for side in winners.corners.sides]

    def forward(b: Builder, value: str, bias: str | None) -> str:
        flat = b.mul(winners.read(b, value), winners.weight(b))
        out = b.op("Transpose", b.op("Reshape", flat, b.integers([0, -1, *bins])), perm=[1, 0, 2, 3])
        return b.add(out, bias) if bias else out

    def to_x(b: Builder, s: str) -> str:
        rows = b.integers([0, -1])
        shares = b.op("Reshape", b.mul(winners.results(b, s), winners.weight(b)), rows)
        index = b.op("Reshape", winners.pick(b, winners.corners.index(b)), rows)
        zeros = winners.image(b, b.zeros_like(x))
        whole = b.op("ScatterElements", zeros, index, shares, axis=1, reduction="add")
        shape = b.op("Gather", b.shape_of(x), b.integers([1, 0, 2, 3]))
        return b.op("Transpose", b.op("Reshape", whole, shape), perm=[1, 0, 2, 3])

    def to_rois(b: Builder, s: str) -> str:
        felt = b.mul(winners.results(b, s), winners.read(b, x))
        each = [b.mul(felt, winners.pick(b, move)) for move in winners.corners.moves(b)]
        return b.op("Concat", *(b.op("ReduceSum", e, b.integers([0, 2]), keepdims=0) for e in each), axis=1)

    return _steered(at, Map(forward, to_x), to_rois)
