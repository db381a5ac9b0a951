"""Random networks for hypothesis: well-formed graphs of tiny tensors, in which tensors and weights are used twice.

How a graph grows is drawn, so that a failing one shrinks; numbers come from a generator whose seed is drawn. Axis 0 is
the batch and is never mixed. Every operator is written so that values neither explode nor vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto

from tests.support.models import Net

Array = np.ndarray
BATCH = 2
#: Elements per sample, beyond which a tensor does not grow.
_LARGEST = 96


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph; `shape` without the batch axis."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class RandomGraph:
    """A float32 model with values for its inputs."""

    model: ModelProto
    feeds: dict[str, Array]
    operators: tuple[str, ...]


@dataclass
class Growth:
    """A graph that grows: its tensors, its weights, and the choices that are drawn."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    rng: np.random.Generator
    net: Net = field(default_factory=lambda: Net(np.float32))
    tensors: list[Tensor] = field(default_factory=list)
    weights: dict[tuple[int, ...], str] = field(default_factory=dict)

    def below(self, count: int) -> int:
        return int(self.draw(st.integers(0, count - 1)))

    def one_of(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def pick(self) -> Tensor:
        """A tensor, the latest ones more often."""
        back = min(self.below(len(self.tensors)), self.below(len(self.tensors)))
        return self.tensors[-1 - back]

    def twin(self, x: Tensor) -> Tensor:
        """A tensor of the same shape, x itself where there is no other."""
        alike = [t for t in self.tensors if t.shape == x.shape]
        return alike[self.below(len(alike))]

    def weight(self, *shape: int, fan: int) -> str:
        """A weight of this shape, the one that is there already or a new one."""
        if shape in self.weights and self.below(3) == 0:
            return self.weights[shape]
        name = self.net.constant(self.rng.normal(size=shape) / np.sqrt(fan))
        self.weights[shape] = name
        return name

    def positive(self, *shape: int) -> str:
        return self.net.constant(self.rng.uniform(0.5, 1.5, shape))

    def signed(self, *shape: int) -> str:
        return self.net.constant(self.rng.normal(size=shape))

    def op(self, kind: str, shape: tuple[int, ...], *inputs: str, **attributes: Any) -> Tensor:
        return Tensor(self.net.op(kind, *inputs, **attributes), shape)


Grow = Callable[[Growth, Tensor], Tensor | None]
_BY_RANK: dict[int, list[Grow]] = {1: [], 2: [], 3: []}


def grows(*ranks: int, often: int = 1) -> Callable[[Grow], Grow]:
    """Registers a way to grow from a tensor whose rank, without the batch axis, is one of these."""

    def add(grow: Grow) -> Grow:
        for rank in ranks or (1, 2, 3):
            _BY_RANK[rank].extend([grow] * often)
        return grow

    return add


_SMOOTH = ("Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Erf", "Sin", "Atan", "Swish")
_KINKED = ("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Abs", "Neg", "ThresholdedRelu")


@grows(often=3)
def activation(g: Growth, x: Tensor) -> Tensor:
    kind = g.one_of("Relu", *_SMOOTH, *_KINKED)
    if kind == "Swish":
        gate = g.op("Sigmoid", x.shape, x.name)
        return g.op("Mul", x.shape, x.name, gate.name)
    return g.op(kind, x.shape, x.name)


@grows()
def clipped(g: Growth, x: Tensor) -> Tensor:
    return g.op("Clip", x.shape, x.name, g.net.constant(-0.7), g.net.constant(1.1))


@grows(often=2)
def residual(g: Growth, x: Tensor) -> Tensor:
    return g.op(g.one_of("Add", "Sub"), x.shape, x.name, g.twin(x).name)


@grows()
def several(g: Growth, x: Tensor) -> Tensor:
    return g.op(g.one_of("Sum", "Mean", "Max", "Min"), x.shape, x.name, g.twin(x).name, g.twin(x).name)


@grows()
def product(g: Growth, x: Tensor) -> Tensor:
    bounded = g.op("Tanh", x.shape, g.twin(x).name)
    return g.op("Mul", x.shape, x.name, bounded.name)


@grows()
def gate(g: Growth, x: Tensor) -> Tensor:
    gate = g.op("Sigmoid", x.shape, g.twin(x).name)
    return g.op("Mul", x.shape, *g.one_of((x.name, gate.name), (gate.name, x.name)))


@grows()
def quotient(g: Growth, x: Tensor) -> Tensor:
    positive = g.op("Softplus", x.shape, g.twin(x).name)
    return g.op("Div", x.shape, x.name, g.op("Add", x.shape, positive.name, g.net.constant(0.8)).name)


@grows()
def scaled(g: Growth, x: Tensor) -> Tensor:
    kind, shape = g.one_of("Mul", "Div"), g.one_of((), x.shape[-1:], x.shape)
    return g.op(kind, x.shape, x.name, g.positive(*shape))


@grows()
def shifted(g: Growth, x: Tensor) -> Tensor:
    constant = g.signed(*g.one_of((), x.shape[-1:], x.shape))
    kind = g.one_of("Add", "Sub")
    return g.op(kind, x.shape, *g.one_of((x.name, constant), (constant, x.name)))


@grows(often=2)
def dense(g: Growth, x: Tensor) -> Tensor:
    last, wide = x.shape[-1], 1 + g.below(5)
    y = (*x.shape[:-1], wide)
    if len(x.shape) == 1 and g.below(2):
        return g.op("Gemm", y, x.name, g.weight(wide, last, fan=last), g.signed(wide), transB=1, alpha=0.8)
    return g.op("MatMul", y, x.name, g.weight(last, wide, fan=last))


@grows(2)
def similarity(g: Growth, x: Tensor) -> Tensor:
    """Attention without a softmax, which another step may add."""
    rows, columns = x.shape
    turned = g.op("Transpose", (columns, rows), g.twin(x).name, perm=[0, 2, 1])
    scores = g.op("MatMul", (rows, rows), x.name, turned.name)
    return g.op("Mul", scores.shape, scores.name, g.net.constant(1 / columns))


@grows(3, often=3)
def convolution(g: Growth, x: Tensor) -> Tensor | None:
    channels, height, width = x.shape
    kernel, depthwise = g.one_of(1, 3), g.below(3) == 0
    out = channels if depthwise else 1 + g.below(4)
    inner = 1 if depthwise else channels
    if kernel == 3 and g.below(3) == 0 and min(height, width) >= 3:
        halved = ((height + 1) // 2, (width + 1) // 2)
        options: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    else:
        halved, options = (height, width), {"pads": [kernel // 2] * 4}
    weight = g.weight(out, inner, kernel, kernel, fan=inner * kernel * kernel)
    inputs = (weight, g.signed(out)) if g.below(2) else (weight,)
    group = {"group": channels} if depthwise else {}
    return g.op("Conv", (out, *halved), x.name, *inputs, **options, **group)


@grows(3)
def enlarged(g: Growth, x: Tensor) -> Tensor | None:
    channels, height, width = x.shape
    if x.size * 4 > _LARGEST:
        return None
    if g.below(2):
        weight = g.weight(channels, 2, 2, 2, fan=channels)
        return g.op("ConvTranspose", (2, 2 * height, 2 * width), x.name, weight, strides=[2, 2])
    factors = g.net.op("Constant", value_floats=[1.0, 1.0, 2.0, 2.0])
    mode = g.one_of("nearest", "linear")
    return g.op("Resize", (channels, 2 * height, 2 * width), x.name, "", factors, mode=mode)


@grows(3)
def pooled(g: Growth, x: Tensor) -> Tensor | None:
    channels, height, width = x.shape
    if min(height, width) < 2:
        return None
    kind = g.one_of("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    if kind.startswith("Global"):
        return g.op(kind, (channels, 1, 1), x.name)
    stride = g.one_of(1, 2)
    size = tuple((n - 2) // stride + 1 for n in (height, width))
    return g.op(kind, (channels, *size), x.name, kernel_shape=[2, 2], strides=[stride, stride])


@grows(2, 3)
def normalised(g: Growth, x: Tensor) -> Tensor | None:
    channels = x.shape[0]
    kind = g.one_of("BatchNormalization", "InstanceNormalization", "LayerNormalization")
    if kind == "BatchNormalization":
        given = (g.signed(channels), g.signed(channels), g.signed(channels), g.positive(channels))
        return g.op(kind, x.shape, x.name, *given)
    if kind == "InstanceNormalization":
        inside = int(np.prod(x.shape[1:]))
        given = (g.signed(channels), g.signed(channels))
        return g.op(kind, x.shape, x.name, *given, epsilon=0.1) if inside > 2 else None
    last = x.shape[-1]
    return g.op(kind, x.shape, x.name, g.signed(last), g.signed(last), epsilon=0.1) if last > 2 else None


@grows()
def softmax(g: Growth, x: Tensor) -> Tensor:
    return g.op("Softmax", x.shape, x.name, axis=-1)


@grows()
def reduced(g: Growth, x: Tensor) -> Tensor:
    kind = g.one_of("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
    axis = 1 + g.below(len(x.shape))
    keeps = len(x.shape) == 1 or g.below(2) == 0
    kept = [1 if i == axis - 1 else n for i, n in enumerate(x.shape) if keeps or i != axis - 1]
    axes = g.net.constant(np.array([g.one_of(axis, axis - len(x.shape) - 1)]))
    return g.op(kind, tuple(kept), x.name, axes, keepdims=int(keeps))


@grows()
def spread(g: Growth, x: Tensor) -> Tensor | None:
    """Something small, combined with something larger that it broadcasts to."""
    wider = [t for t in g.tensors if len(t.shape) == len(x.shape) and t.shape != x.shape]
    fitting = [t for t in wider if all(a in (1, b) for a, b in zip(x.shape, t.shape, strict=True))]
    if not fitting:
        return None
    other = fitting[g.below(len(fitting))]
    bounded = g.op("Tanh", x.shape, x.name)
    return g.op(g.one_of("Add", "Mul", "Sub"), other.shape, other.name, bounded.name)


def _joins(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    """Whether two tensors of these shapes can stand side by side along an axis."""
    return a[:axis] + a[axis + 1 :] == b[:axis] + b[axis + 1 :]


@grows()
def concatenated(g: Growth, x: Tensor) -> Tensor | None:
    axis = g.below(len(x.shape))
    others = [t for t in g.tensors if len(t.shape) == len(x.shape) and _joins(x.shape, t.shape, axis)]
    other = others[g.below(len(others))]
    shape = tuple(n + other.shape[i] if i == axis else n for i, n in enumerate(x.shape))
    fits = np.prod(shape) <= _LARGEST
    return g.op("Concat", shape, x.name, other.name, axis=axis + 1) if fits else None


@grows()
def parted(g: Growth, x: Tensor) -> Tensor | None:
    axis = g.below(len(x.shape))
    if x.shape[axis] < 2:
        return None
    first = 1 + g.below(x.shape[axis] - 1)
    sizes = [first, x.shape[axis] - first]
    name = g.net.op("Split", x.name, g.net.constant(np.array(sizes)), outputs=2, axis=axis + 1)
    parts = [
        Tensor(part, tuple(size if i == axis else n for i, n in enumerate(x.shape)))
        for part, size in zip((name, f"{name}_1"), sizes, strict=True)
    ]
    g.tensors.append(parts[0])
    return parts[1]


@grows()
def sliced(g: Growth, x: Tensor) -> Tensor | None:
    axis = g.below(len(x.shape))
    size = x.shape[axis]
    if size < 2:
        return None
    start, step = g.below(size - 1), g.one_of(1, 2, -1)
    count = len(range(start, size, step)) if step > 0 else len(range(size - 1, start - 1, -1))
    end = size if step > 0 else (start - 1 if start else -(2**31))
    given = ([size - 1 if step < 0 else start], [end], [axis + 1], [step])
    shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
    return g.op("Slice", shape, x.name, *(g.net.constant(np.array(v)) for v in given))


@grows()
def padded(g: Growth, x: Tensor) -> Tensor | None:
    before, after = g.below(2), g.below(2)
    widths = [0] * len(x.shape) + [before] + [0] * len(x.shape) + [after]
    shape = (*x.shape[:-1], x.shape[-1] + before + after)
    if np.prod(shape) > _LARGEST:
        return None
    mode = g.one_of("constant", "edge", *(["reflect"] if x.shape[-1] > 1 else []))
    return g.op("Pad", shape, x.name, g.net.constant(np.array(widths)), mode=mode)


@grows()
def gathered(g: Growth, x: Tensor) -> Tensor:
    axis = g.below(len(x.shape))
    size = x.shape[axis]
    chosen = [g.below(2 * size) - size for _ in range(1 + g.below(size))]
    shape = tuple(len(chosen) if i == axis else n for i, n in enumerate(x.shape))
    return g.op("Gather", shape, x.name, g.net.constant(np.array(chosen)), axis=axis + 1)


@grows()
def running(g: Growth, x: Tensor) -> Tensor:
    axis = g.net.constant(np.array(1 + g.below(len(x.shape))))
    summed = g.op("CumSum", x.shape, x.name, axis, exclusive=g.below(2), reverse=g.below(2))
    return g.op("Mul", x.shape, summed.name, g.net.constant(0.4))


@grows()
def masked(g: Growth, x: Tensor) -> Tensor:
    mask = g.net.constant(g.rng.uniform(size=x.shape) < 0.5)
    return g.op("Where", x.shape, mask, x.name, g.twin(x).name)


@grows()
def flattened(g: Growth, x: Tensor) -> Tensor:
    if g.below(2):
        return g.op("Flatten", (x.size,), x.name)
    return g.op("Reshape", (x.size,), x.name, g.net.constant(np.array([0, -1])))


@grows(1)
def folded(g: Growth, x: Tensor) -> Tensor | None:
    rows = next((n for n in (3, 2) if x.size % n == 0 and x.size > n), None)
    if rows is None:
        return None
    return g.op("Reshape", (rows, x.size // rows), x.name, g.net.constant(np.array([0, rows, -1])))


@grows(2)
def turned(g: Growth, x: Tensor) -> Tensor:
    return g.op("Transpose", x.shape[::-1], x.name, perm=[0, 2, 1])


@grows(2)
def as_image(g: Growth, x: Tensor) -> Tensor:
    return g.op("Unsqueeze", (1, *x.shape), x.name, g.net.constant(np.array([1])))


def _joined(g: Growth) -> Tensor:
    """One dense layer over all loose ends, so that every node lies on the way to the output."""
    read = {name for node in g.net.nodes for name in node.input}
    ends = [t for t in g.tensors if t.name not in read]
    flat = [g.op("Flatten", (t.size,), t.name) for t in ends]
    size = sum(t.size for t in flat)
    whole = g.op("Concat", (size,), *(t.name for t in flat), axis=1)
    return g.op("MatMul", (3,), whole.name, g.weight(size, 3, fan=size))


_INPUTS = ((4,), (3, 4), (2, 3), (2, 4, 4), (3, 3, 5))


@st.composite
def random_graphs(draw: Callable[[st.SearchStrategy[Any]], Any], smallest: int = 5, largest: int = 40) -> RandomGraph:
    """A graph of that many nodes (one or two more where a step needs several), with inputs."""
    g = Growth(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    open_batch = draw(st.booleans())
    shapes = [g.one_of(*_INPUTS) for _ in range(1 + g.below(2))]
    for name, shape in zip("ab", shapes, strict=False):
        g.net.input(name, ["N" if open_batch else BATCH, *shape])
        g.tensors.append(Tensor(name, shape))
    count = draw(st.integers(smallest, largest))
    made = 0
    while made < count:
        x = g.pick()
        ways = _BY_RANK[len(x.shape)]
        y = ways[g.below(len(ways))](g, x)
        if y is not None:
            g.tensors.append(y)
        made += 1
    # A softmax at the very end would be stepped over; what is explained here is the output as it is.
    last = _joined(g) if draw(st.booleans()) else scaled(g, g.tensors[-1])
    model = g.net.model(last.name, ranks=[len(last.shape) + 1])
    feeds = {
        name: g.rng.normal(size=(BATCH, *shape)).astype(np.float32) for name, shape in zip("ab", shapes, strict=False)
    }
    return RandomGraph(model, feeds, tuple(n.op_type for n in model.graph.node))
