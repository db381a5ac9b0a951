"""MaxPool, AveragePool and their global forms; element-wise Max and Min."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.averages import to_winner
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Selection, Term
from onnxlrp.operators.convolution import Window, conv_window, unclear_padding
from onnxlrp.operators.registry import Situation, register

_END = 2**62


@register(
    "MaxPool",
    "max",
    "all to the winner of each window (onnxruntime's own Indices); windows that overlap add",
    "1 at the winner",
)
def max_pool(at: Situation) -> Selection:
    node, x, y = at.node, at.node.inputs[0], at.y
    attributes = {k: v for k, v in node.attributes.items() if k != "storage_order"}
    kernel, strides = node.attribute("kernel_shape"), node.attribute("strides") or [1] * 8
    dilations = node.attribute("dilations") or [1] * 8
    overlapping = any((k - 1) * d + 1 > s for k, s, d in zip(kernel, strides, dilations, strict=False))

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        if len(node.outputs) > 1 and node.outputs[1] and not node.attribute("storage_order", 0):
            winner = node.outputs[1]
        else:
            value, winner = b.ops("MaxPool", x, outputs=2, **attributes)
            b.declare(value, b.dtype(x))
        return {x: b.scatter_flat(x, winner, given[y], overlapping)}

    def among_magnitudes(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        _, winner = b.ops("MaxPool", b.op("Abs", x), outputs=2, **attributes)
        return {x: b.scatter_flat(x, winner, given[y], overlapping)}

    return Selection("max", (x,), (y,), adjoint, among_magnitudes=among_magnitudes)


@register("GlobalMaxPool", "max", "all to the winner of each channel", "1 at the winner")
def global_max_pool(at: Situation) -> Selection | Refusal:
    x, y = at.node.inputs[0], at.y
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    spatial = tuple(range(2, rank))

    def winner_of(b: Builder, values: str, given: Mapping[str, str]) -> Mapping[str, str]:
        return {x: to_winner(b, values, given[y], "ArgMax", rank, spatial)}

    return Selection(
        "max",
        (x,),
        (y,),
        lambda b, given: winner_of(b, x, given),
        among_magnitudes=lambda b, given: winner_of(b, b.op("Abs", x), given),
    )


@register("Max Min", "max", "all to the operand that wins; the first one of equals", "1 for the winner", data=None)
def max_min(at: Situation) -> Selection:
    y, operands = at.y, at.node.inputs

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        r, top = given[y], b.rerun(at.node)
        zero = b.scalar(0.0, r)
        shares: dict[str, list[str]] = {}
        earlier: str | None = None
        for x in operands:
            equal = b.op("Equal", x, top)
            wins = equal if earlier is None else b.op("And", equal, b.op("Not", earlier))
            earlier = equal if earlier is None else b.op("Or", earlier, equal)
            if x in at.active:
                shares.setdefault(x, []).append(b.sum_to(b.where(wins, r, zero), y, x))
        return {x: b.sum(parts) for x, parts in shares.items()}

    active = tuple(dict.fromkeys(x for x in operands if x in at.active))
    return Selection("max", active, (y,), adjoint, absorbs=len(active) < len(set(operands)))


@register("GlobalAveragePool", "average", "shared in proportion to the elements", "1/n, spread")
def global_average_pool(at: Situation) -> Linear | Refusal:
    x, y = at.node.inputs[0], at.y
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    spatial = tuple(range(2, rank))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("GlobalAveragePool", value)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, s: str) -> str:
        return b.expand_like(b.mul(s, b.fraction(x, spatial)), x)

    return Linear("average", (Term(x, Fixed(Map(forward, adjoint))),), y)


@register("AveragePool", "average", "shared in proportion to the elements", "1/n, spread over each window")
def average_pool(at: Situation) -> Linear | Refusal:
    node, graph, x, y = at.node, at.graph, at.node.inputs[0], at.y
    window = conv_window(node, graph, tuple(node.attribute("kernel_shape")))
    unclear = unclear_padding(node, window)
    if unclear:
        return unclear
    attributes = dict(node.attributes)
    include = bool(node.attribute("count_include_pad", 0))
    if window.pads is None and include:
        return Refusal(
            "it counts SAME padding whose size is known only at run time",
            "export with static sizes or count_include_pad=0",
        )
    ceil = bool(node.attribute("ceil_mode", 0))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("AveragePool", value, **attributes)
        return b.add(out, bias) if bias else out

    return Linear(
        "average", (Term(x, Fixed(Map(forward, lambda b, s: _spread(b, s, x, y, window, include, ceil)))),), y
    )


def _spread(b: Builder, s: str, x: str, y: str, window: Window, include: bool, ceil: bool) -> str:
    """The transpose of average pooling: each window's value over its count, added up where windows overlap."""
    n = len(window.kernel)
    spatial = tuple(d for d in (b.graph.shape(x) or ())[2:] if isinstance(d, int))
    if len(spatial) != n or window.pads is None:
        return _spread_at_run_time(b, s, x, y, window, include)
    result = _output_sizes(window, spatial, ceil)
    share = b.div(s, b.constant(_counts(window, spatial, result, include, b, s)))
    whole = tuple((o - 1) * t + e for o, t, e in zip(result, window.strides, window.extent, strict=True))
    pads = window.pads or ()
    if (
        window.kernel == window.strides
        and whole == spatial
        and set(window.dilations) == {1}
        and not any(map(sum, pads))
    ):
        return _repeat(b, share, x, window.kernel)
    ends = [w - p[0] - d for w, p, d in zip(whole, pads, spatial, strict=True)]
    rows = b.op("Reshape", share, b.integers([-1, 1, *result]))
    ones = b.full((1, 1, *window.kernel), 1.0, s)
    spread = b.op(
        "ConvTranspose",
        rows,
        ones,
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[p[0] for p in pads] + [max(e, 0) for e in ends],
        output_padding=[max(-e, 0) for e in ends] if any(e < 0 for e in ends) else None,
    )
    return b.reshape_like(spread, x)


def _output_sizes(window: Window, size: tuple[int, ...], ceil: bool) -> tuple[int, ...]:
    """Sizes of the result. A window that would begin in the padding at the end is left out, which shape inference
    does not always know.
    """
    sizes = []
    for d, pad, stride, extent in zip(size, window.pads or (), window.strides, window.extent, strict=True):
        room = d + sum(pad) - extent
        count = (-(-room // stride) if ceil else room // stride) + 1
        sizes.append(count - 1 if ceil and (count - 1) * stride >= d + pad[0] else count)
    return tuple(sizes)


def _counts(
    window: Window, size: tuple[int, ...], out: tuple[int, ...], include: bool, b: Builder, like: str
) -> np.ndarray[Any, Any]:
    """How many elements each window averages over: of the input, or of the padded input with `include`."""
    axes = []
    for axis, (d, o) in enumerate(zip(size, out, strict=True)):
        begin, end = (window.pads or ())[axis]
        low, high = (-begin, d + end) if include else (0, d)
        steps = np.arange(window.kernel[axis]) * window.dilations[axis]
        positions = np.arange(o)[:, None] * window.strides[axis] - begin + steps[None, :]
        axes.append(((positions >= low) & (positions < high)).sum(1))
    counts = axes[0].astype(np.float64)
    for axis_counts in axes[1:]:
        counts = counts[..., None] * axis_counts
    typed = b.numpy_type(like)
    if (counts == counts.flat[0]).all():
        return np.asarray(counts.flat[0], typed)
    table: np.ndarray[Any, Any] = counts.astype(typed)[None, None]
    return table


def _repeat(b: Builder, share: str, x: str, kernel: tuple[int, ...]) -> str:
    """Windows that do not overlap and fill the input: every value is repeated over its window."""
    n = len(kernel)
    if b.dtype(share) == TensorProto.FLOAT:
        # An Expand within rows takes 20 ns per element on CPU, this 0.1; but it is not there for every type.
        return b.op(
            "Resize",
            share,
            "",
            b.constant(np.asarray([1, 1, *kernel], np.float32)),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    apart = b.op("Unsqueeze", share, b.integers([3 + 2 * i for i in range(n)]))
    ones = [1, 1]
    for k in kernel:
        ones += [1, k]
    return b.reshape_like(b.op("Expand", apart, b.integers(ones)), x)


def _spread_at_run_time(b: Builder, s: str, x: str, y: str, window: Window, include: bool) -> str:
    n = len(window.kernel)
    pads = window.pads or ()
    tail = b.integers([2]), b.integers([_END])
    size, out = b.op("Slice", b.op("Shape", x), *tail), b.op("Slice", b.op("Shape", y), *tail)
    steps = b.mul(b.sub(out, b.integers([1] * n)), b.integers(window.strides))
    reach = b.add(steps, b.integers(window.extent))
    if window.pads is None:
        total = b.op("Max", b.sub(reach, size), b.integers([0] * n))
        half = b.div(total, b.integers([2] * n))
        begin = half if window.upper else b.sub(total, half)
    else:
        begin = b.integers([p[0] for p in pads])
    ones_kernel = b.full((1, 1, *window.kernel), 1.0, s)
    ones = b.op("Expand", b.scalar(1.0, s), b.op("Concat", b.integers([1, 1]), size, axis=0))
    zeros = b.integers([0] * n)
    if include:
        framed = b.integers([0, 0, *[p[0] for p in pads], 0, 0, *[p[1] for p in pads]])
        ones = b.op("Pad", ones, framed, b.scalar(1.0, s))
        have = b.add(size, b.integers([sum(p) for p in pads]))
        front = zeros
    else:
        have, front = b.add(size, begin), begin
    missing = b.op("Max", b.sub(reach, have), zeros)
    corner = b.integers([0, 0])
    ones = b.op("Pad", ones, b.op("Concat", corner, front, corner, missing, axis=0))
    geometry: dict[str, Any] = {"strides": list(window.strides), "dilations": list(window.dilations)}
    share = b.div(s, b.op("Conv", ones, ones_kernel, **geometry))
    rows = b.op("Reshape", share, b.op("Concat", b.integers([-1, 1]), out, axis=0))
    whole = b.op("ConvTranspose", rows, ones_kernel, **geometry)
    end = b.add(begin, size)
    short = b.op("Max", b.sub(end, reach), zeros)
    filled = b.op("Pad", whole, b.op("Concat", b.integers([0] * (n + 4)), short, axis=0))
    cut = b.op("Slice", filled, begin, end, b.integers(range(2, n + 2)))
    return b.op("Reshape", cut, b.op("Shape", x))
