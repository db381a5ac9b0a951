"""Pools by a norm, taken apart: powers of absolute values, their sum over each window, and the root of it."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.convolution import conv_window, unclear_padding
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

_TREATMENT = "taken apart: in proportion to |x|^p within each window; powers and roots pass"
_END = 2**62


def _power(b: Builder, x: str, p: int) -> str:
    """|x|^p."""
    if p == 2:
        return b.square(x)
    size = b.op("Abs", x)
    return size if p == 1 else b.op("Pow", size, b.scalar(float(p), x))


def _root(b: Builder, x: str, p: int) -> str:
    """x^(1/p)."""
    if p == 2:
        return b.op("Sqrt", x)
    return x if p == 1 else b.op("Pow", x, b.scalar(1.0 / p, x))


@lowers("GlobalLpPool", treatment=_TREATMENT)
def global_lp_pool(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """The norm of each channel."""
    x, p = at.node.inputs[0], at.node.attribute("p", 2)
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    total = b.op("ReduceSum", _power(b, x, p), b.integers(range(2, rank)), keepdims=1)
    return (_root(b, total, p),)


@lowers("LpPool", treatment=_TREATMENT)
def lp_pool(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    """The norm of each window; zeros stand outside of the data."""
    node, x, p = at.node, at.node.inputs[0], at.node.attribute("p", 2)
    window = conv_window(node, at.graph, tuple(node.attribute("kernel_shape")))
    unclear = unclear_padding(node, window)
    if unclear:
        return unclear
    if window.pads is None:
        return Refusal("the size of its SAME padding is known only at run time", "export with static sizes")
    dilated = any(d != 1 for d in window.dilations)
    if dilated and at.graph.opset < 19:
        return Refusal("its windows are dilated, which averages are from opset 19 on", "export for opset 19 or later")
    n, size = len(window.kernel), 1
    for k in window.kernel:
        size *= k
    powers = _power(b, x, p)
    # Rounding up is rounding down with more room at the end; what begins behind the padding is cut off again.
    ceil = bool(node.attribute("ceil_mode", 0))
    room = [s - 1 if ceil else 0 for s in window.strides]
    pads = [0, 0, *(p[0] for p in window.pads), 0, 0, *(p[1] + r for p, r in zip(window.pads, room, strict=True))]
    padded = b.op("Pad", powers, b.integers(pads)) if any(pads) else powers
    mean = b.op(
        "AveragePool",
        padded,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations) if dilated else None,
    )
    if ceil:
        ends = b.op("Shape", at.y, start=2)
        mean = b.op("Slice", mean, b.integers([0] * n), ends, b.integers(range(2, n + 2)))
    return (_root(b, b.scale(mean, float(size)), p),)
