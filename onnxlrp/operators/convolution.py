"""Conv and ConvTranspose in any number of dimensions; each is the other's adjoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.behaviour import Linear, Product, Refusal, Term, Weighted
from onnxlrp.operators.data_weights import correlate
from onnxlrp.operators.normalization import channel_shape
from onnxlrp.operators.registry import Situation, register

_END = 2**62


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution. `pads` is None where SAME padding depends on sizes known only at run time."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    group: int
    upper: bool = True

    @property
    def extent(self) -> tuple[int, ...]:
        """Width of the dilated kernel."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def attributes(self, **changes: Any) -> dict[str, Any]:
        pads = self.pads or ((0, 0),) * len(self.kernel)
        return {
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "kernel_shape": list(self.kernel),
            "pads": [p[0] for p in pads] + [p[1] for p in pads],
            "group": self.group,
            **changes,
        }


def _spatial(graph: Graph, tensor: str, n: int) -> tuple[int | None, ...]:
    shape = graph.shape(tensor)
    if shape is None:
        return (None,) * n
    return tuple(d if isinstance(d, int) else None for d in shape[2:])


def _split(total: int, upper: bool) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def _basic(node: Node, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    ones = [1] * len(kernel)
    return (
        tuple(node.attribute("strides") or ones),
        tuple(node.attribute("dilations") or ones),
        node.attribute("group", 1),
    )


def _given_pads(node: Node, n: int) -> tuple[tuple[int, int], ...]:
    pads = node.attribute("pads") or [0] * (2 * n)
    return tuple((pads[i], pads[i + n]) for i in range(n))


def conv_window(node: Node, graph: Graph, kernel: tuple[int, ...]) -> Window:
    """Geometry of a Conv (or pooling) node, with automatic padding resolved where sizes are static."""
    n = len(kernel)
    strides, dilations, group = _basic(node, kernel)
    auto = node.attribute("auto_pad", "NOTSET")
    upper = auto != "SAME_LOWER"
    plain = Window(kernel, strides, dilations, None, group, upper)
    if auto == "VALID":
        pads: tuple[tuple[int, int], ...] | None = ((0, 0),) * n
    elif auto.startswith("SAME"):
        sizes = _spatial(graph, node.inputs[0], n)
        totals: list[int | None] = []
        for size, stride, extent in zip(sizes, strides, plain.extent, strict=True):
            if stride == 1:
                totals.append(extent - 1)
            elif size is None:
                totals.append(None)
            else:
                totals.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
        known = [t for t in totals if t is not None]
        pads = tuple(_split(t, upper) for t in known) if len(known) == n else None
    else:
        pads = _given_pads(node, n)
    return Window(kernel, strides, dilations, pads, group, upper)


def unclear_padding(node: Node, window: Window) -> Refusal | None:
    """A refusal of SAME padding that would be negative: onnxruntime's kernels differ in where the windows lie then."""
    if node.attribute("auto_pad", "NOTSET").startswith("SAME") and any(
        e < s - 1 for e, s in zip(window.extent, window.strides, strict=True)
    ):
        return Refusal(
            "its kernel is smaller than its stride, for which SAME padding is not well defined",
            "export with explicit pads",
        )
    return None


def _kernel(node: Node, graph: Graph) -> tuple[int, ...] | None:
    weight = graph.static_shape(node.inputs[1])
    given = node.attribute("kernel_shape")
    if weight is not None:
        return weight[2:]
    return tuple(given) if given else None


def _fit(b: Builder, tensor: str, x: str, starts: str, n: int) -> str:
    """Cuts (and fills with zeros at the end) the spatial part of `tensor` to that of `x`, from `starts` on."""
    axes = list(range(2, n + 2))
    size = b.op("Slice", b.op("Shape", x), b.integers([2]), b.integers([_END]))
    ends = b.add(starts, size)
    have = b.op("Slice", b.op("Shape", tensor), b.integers([2]), b.integers([_END]))
    zeros = b.integers([0] * n)
    missing = b.op("Max", b.sub(ends, have), zeros)
    pads = b.op("Concat", b.integers([0] * (n + 4)), missing, axis=0)
    padded = b.op("Pad", tensor, pads)
    return b.op("Slice", padded, starts, ends, b.integers(axes))


def _flipped(b: Builder, weight: str, shape: tuple[int, ...], group: int) -> str:
    """The kernel with which a plain convolution computes the transpose of a stride-1 convolution."""
    n = len(shape) - 2
    outputs, inputs = shape[0] // group, shape[1]
    if outputs != 1 or inputs != 1:
        split = b.op("Reshape", weight, b.integers([group, outputs, inputs, *shape[2:]]))
        swapped = b.op("Transpose", split, perm=[0, 2, 1, *range(3, n + 3)])
        weight = b.op("Reshape", swapped, b.integers([group * inputs, outputs, *shape[2:]]))
    return b.op(
        "Slice",
        weight,
        b.integers([-1] * n),
        b.integers([-_END] * n),
        b.integers(range(2, n + 2)),
        b.integers([-1] * n),
    )


def conv_adjoint(b: Builder, s: str, weight: str, window: Window, x: str, weight_shape: tuple[int, ...] | None) -> str:
    """The transpose of a convolution with that window, in the shape of the forward input `x`."""
    n = len(window.kernel)
    if (
        weight_shape is not None
        and window.pads is not None
        and set(window.strides) == {1}
        and all(max(p) < e for p, e in zip(window.pads, window.extent, strict=True))
    ):
        # As a convolution it runs in the runtime's blocked layout: measured on ResNet-50 and MobileNetV2 (CPU)
        # epsilon became 5 % to 9 % faster, and a depthwise layer several times. The kernel is turned at load time.
        pads = [(e - 1 - p[0], e - 1 - p[1]) for p, e in zip(window.pads, window.extent, strict=True)]
        flipped = _flipped(b, weight, weight_shape, window.group)
        return b.op("Conv", s, flipped, **window.attributes(pads=[p[0] for p in pads] + [p[1] for p in pads]))
    sizes = _spatial(b.graph, x, n)
    known = tuple(d for d in sizes if d is not None)
    strided_depthwise = weight_shape == (window.group, 1, *window.kernel) and set(window.strides) != {1}
    if strided_depthwise and window.pads is not None and len(known) == n:
        dense, dense_window = _zeros_between(b, s, window, window.pads, known)
        return conv_adjoint(b, dense, weight, dense_window, x, weight_shape)
    if window.pads is None:
        whole = b.op("ConvTranspose", s, weight, **window.attributes())
        wanted = b.op("Slice", b.op("Shape", x), b.integers([2]), b.integers([_END]))
        have = b.op("Slice", b.op("Shape", whole), b.integers([2]), b.integers([_END]))
        total = b.op("Max", b.sub(have, wanted), b.integers([0] * n))
        half = b.div(total, b.integers([2] * n))
        return _fit(b, whole, x, half if window.upper else b.sub(total, half), n)
    rest: list[int] = []
    exact = True
    for size, stride, extent, pad in zip(sizes, window.strides, window.extent, window.pads, strict=True):
        if stride == 1:
            rest.append(0)
        elif size is None:
            rest.append(stride - 1)
            exact = False
        else:
            rest.append((size + sum(pad) - extent) % stride)
    attributes = window.attributes(output_padding=rest if any(rest) else None)
    back = b.op("ConvTranspose", s, weight, **attributes)
    if exact:
        return back
    ends = b.op("Slice", b.op("Shape", x), b.integers([2]), b.integers([_END]))
    return b.op("Slice", back, b.integers([0] * n), ends, b.integers(range(2, n + 2)))


def _zeros_between(
    b: Builder, s: str, window: Window, pads: tuple[tuple[int, int], ...], sizes: tuple[int, ...]
) -> tuple[str, Window]:
    """Zeros put between the elements of `s`, and the stride-1 window that undoes a strided one on that.

    For a depthwise layer only: there it took two thirds of the time of a ConvTranspose, which goes channel by channel.
    All channels are one batch here, so that this one has a single channel.
    """
    room = [size + sum(pad) - extent for size, pad, extent in zip(sizes, pads, window.extent, strict=True)]
    counts = [r // stride + 1 for r, stride in zip(room, window.strides, strict=True)]
    rest = [r % stride for r, stride in zip(room, window.strides, strict=True)]
    planes = b.op("Reshape", s, b.integers([-1, 1, *counts]))
    one = b.full((1,) * (len(sizes) + 2), 1.0, s)
    apart = b.op("ConvTranspose", planes, one, strides=list(window.strides), output_padding=rest)
    dense = b.op("Reshape", apart, b.integers([-1, window.group, *[r + 1 for r in room]]))
    return dense, replace(window, strides=(1,) * len(sizes))


def _along(k: str, axis: int, rank: int, b: Builder) -> str:
    return b.op("Reshape", k, b.integers([-1 if i == axis else 1 for i in range(rank)]))


@register(
    "Conv",
    "linear",
    "linear rule of the table; adjoint: ConvTranspose, with stride 1 a Conv with the kernel turned",
    "adjoint",
    data=(0, 1, 2),
)
def conv(at: Situation) -> Linear | Product | Refusal:
    """With a constant bias; one that comes from the data is taken apart."""
    node, graph = at.node, at.graph
    kernel = _kernel(node, graph)
    if kernel is None:
        return Refusal("the shape of its kernel is not known", "give the weight a static shape")
    window = conv_window(node, graph, kernel)
    unclear = unclear_padding(node, window)
    if unclear:
        return unclear
    x, rank = node.inputs[0], len(kernel) + 2
    weight_shape = graph.static_shape(node.inputs[1])
    attributes = dict(node.attributes)
    if at.is_active(1):

        def run(b: Builder, x: str, w: str) -> str:
            return b.op("Conv", x, w, **attributes)

        return _by_weight(
            at,
            window,
            run,
            adjoint=lambda b, s, w: conv_adjoint(b, s, w, window, x, weight_shape),
            correlate=lambda b, s, x, inputs: correlate(b, x, s, window, inputs),
        )

    def scale_input(b: Builder, w: str, k: str) -> str:
        if window.group == 1:
            return b.mul(w, _along(k, 1, rank, b))
        if weight_shape is None:
            raise ValueError("a grouped kernel needs a static shape")
        g, o, i = window.group, weight_shape[0] // window.group, weight_shape[1]
        split = b.op("Reshape", w, b.integers([g, o, i, *weight_shape[2:]]))
        factor = b.op("Reshape", k, b.integers([g, 1, i, *[1] * len(kernel)]))
        return b.op("Reshape", b.mul(split, factor), b.integers(weight_shape))

    weighted = Weighted(
        weight=lambda b: node.inputs[1],
        forward=lambda b, x, w, bias: b.op("Conv", x, w, bias or "", **attributes),
        adjoint=lambda b, s, w: conv_adjoint(b, s, w, window, x, weight_shape),
        scale_output=lambda b, w, k: b.mul(w, _along(k, 0, rank, b)),
        scale_input=scale_input,
    )
    bias, size = _bias(at, weight_shape[0] if weight_shape else None, rank)
    return Linear("linear", (Term(x, weighted),), at.y, bias=bias, bias_size=size, per_sample=True)


def _bias(
    at: Situation, channels: int | None, rank: int, own: bool = True
) -> tuple[Callable[[Builder], str] | None, int | None]:
    """The bias, and its length where the operator can take it as its own; otherwise it broadcasts against the output.

    Args:
        channels: those of the output; None where the weight, computed in the model, does not tell.
        own: whether the operator is run with a bias.
    """
    bias = at.node.input(2)
    shape = at.graph.static_shape(bias) if bias else None
    size = channels if channels is not None or shape is None else shape[0]
    if not bias:
        return None, size
    if own and size is not None:
        return lambda b: bias, size
    return lambda b: channel_shape(b, bias, rank), None


def _by_weight(
    at: Situation,
    window: Window,
    run: Callable[[Builder, str, str], str],
    adjoint: Callable[[Builder, str, str], str],
    correlate: Callable[[Builder, str, str, int], str],
) -> Linear | Product | Refusal:
    """A convolution whose weight carries relevance: a product with its input, or a layer whose weight is the input.

    Args:
        run: (builder, x, w) -> y, without a bias.
        adjoint: (builder, s, w) -> in the shape of x.
        correlate: (builder, s, x, channels of the weight's axis 1) -> in the shape of w.
    """
    x, w = at.node.inputs[:2]
    shape = at.graph.static_shape(w)
    if shape is None or window.pads is None:
        return Refusal(
            "its weight depends on the explained input and its shape or padding is known only at run time",
            "export with static sizes",
        )
    inputs = shape[1]
    if at.is_active(0):

        def beside(b: Builder, g: str, factor: str, other: str) -> str:
            return adjoint(b, g, other) if factor == x else correlate(b, g, other, inputs)

        def partial(b: Builder, g: str, factor: str) -> str:
            return beside(b, g, factor, w if factor == x else x)

        return Product(x, w, at.y, partial, signal=None, beside=beside, note="input and weight carry relevance")
    weighted = Weighted(
        weight=lambda b: x,
        forward=lambda b, value, v, bias: b.add(run(b, v, value), bias) if bias else run(b, v, value),
        adjoint=lambda b, s, v: correlate(b, s, v, inputs),
    )
    bias, _ = _bias(at, None, len(window.kernel) + 2, own=False)
    return Linear("linear", (Term(w, weighted),), at.y, bias=bias)


def _transposed_window(node: Node, graph: Graph, kernel: tuple[int, ...]) -> tuple[Window, bool] | None:
    """Geometry of a ConvTranspose, and whether the adjoint comes out in exactly the input's size."""
    n = len(kernel)
    strides, dilations, group = _basic(node, kernel)
    extra = node.attribute("output_padding") or [0] * n
    auto = node.attribute("auto_pad", "NOTSET")
    upper = auto == "SAME_UPPER"
    wanted = node.attribute("output_shape")
    plain = Window(kernel, strides, dilations, None, group)
    exact = all(e < s for e, s in zip(extra, strides, strict=True))
    if wanted:
        sizes = _spatial(graph, node.inputs[0], n)
        totals = []
        for size, out, s, e, x in zip(sizes, wanted[-n:], strides, extra, plain.extent, strict=True):
            if size is None:
                return None
            totals.append(max(s * (size - 1) + e + x - out, 0))
        pads = tuple(_split(t, upper) for t in totals)
        exact = False
    elif auto.startswith("SAME"):
        pads = tuple(_split(max(x - s + e, 0), upper) for x, s, e in zip(plain.extent, strides, extra, strict=True))
        exact = False
    elif auto == "VALID":
        pads = ((0, 0),) * n
    else:
        pads = _given_pads(node, n)
    return Window(kernel, strides, dilations, pads, group), exact


def _transposed_scale_output(b: Builder, w: str, k: str, shape: tuple[int, ...] | None, group: int, rank: int) -> str:
    if group == 1:
        return b.mul(w, _along(k, 1, rank, b))
    if shape is None:
        raise ValueError("a grouped kernel needs a static shape")
    split = b.op("Reshape", w, b.integers([group, shape[0] // group, *shape[1:]]))
    factor = b.op("Reshape", k, b.integers([group, 1, shape[1], *[1] * (rank - 2)]))
    return b.op("Reshape", b.mul(split, factor), b.integers(shape))


@register("ConvTranspose", "linear", "linear rule of the table; adjoint: Conv", "adjoint", data=(0, 1, 2))
def conv_transpose(at: Situation) -> Linear | Product | Refusal:
    """With a constant bias; one that comes from the data is taken apart."""
    node, graph = at.node, at.graph
    kernel = _kernel(node, graph)
    if kernel is None:
        return Refusal("the shape of its kernel is not known", "give the weight a static shape")
    geometry = _transposed_window(node, graph, kernel)
    if geometry is None:
        return Refusal("output_shape is given but the input's spatial size is not known", "export with a static size")
    window, exact = geometry
    n, x = len(kernel), node.inputs[0]
    weight_shape = graph.static_shape(node.inputs[1])
    attributes: Mapping[str, Any] = dict(node.attributes)

    def adjoint(b: Builder, s: str, w: str) -> str:
        back = b.op("Conv", s, w, **window.attributes())
        return back if exact else _fit(b, back, x, b.integers([0] * n), n)

    if at.is_active(1):

        def run(b: Builder, x: str, w: str) -> str:
            return b.op("ConvTranspose", x, w, **attributes)

        return _by_weight(
            at, window, run, adjoint, correlate=lambda b, s, x, inputs: correlate(b, s, x, window, inputs)
        )

    weighted = Weighted(
        weight=lambda b: node.inputs[1],
        forward=lambda b, x, w, bias: b.op("ConvTranspose", x, w, bias or "", **attributes),
        adjoint=adjoint,
        scale_output=lambda b, w, k: _transposed_scale_output(b, w, k, weight_shape, window.group, n + 2),
        scale_input=lambda b, w, k: b.mul(w, _along(k, 0, n + 2, b)),
    )
    bias, size = _bias(at, weight_shape[1] * window.group if weight_shape else None, n + 2)
    return Linear("linear", (Term(x, weighted),), at.y, bias=bias, bias_size=size, per_sample=True)
