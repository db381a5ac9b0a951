"""BatchNormalization (affine), and normalisations by the data's own statistics, which rules hold constant.

With its statistics frozen, y = scale * (x - mean(x)) / sd + bias is linear in x (METHODS: Achtibat et al. 2024 for
LayerNorm); the derivative rule differentiates the statistics as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Frozen, Linear, Map, Refusal, Term, Weighted
from onnxlrp.operators.elementwise import inverse
from onnxlrp.operators.registry import Situation, register

_FROZEN = "linear with its statistics held constant; the mean is part of the map"


def batch_norm_factors(b: Builder, inputs: tuple[str, ...], epsilon: float) -> tuple[str, str]:
    """(k, c) of y = k x + c for inputs (x, scale, bias, mean, variance); vectors over channels."""
    _, scale, bias, mean, variance = inputs[:5]
    k = b.div(scale, b.op("Sqrt", b.add(variance, b.scalar(epsilon, variance))))
    return k, b.sub(bias, b.mul(mean, k))


def channel_shape(b: Builder, vector: str, rank: int, axis: int = 1) -> str:
    """A vector reshaped to broadcast along one axis."""
    if axis == rank - 1:
        return vector
    return b.op("Reshape", vector, b.integers([-1, *[1] * (rank - axis - 1)]))


@register(
    "BatchNormalization",
    "affine",
    "merged into a neighbouring linear layer, or an affine step of its own",
    "k",
    data=(0, 1, 2, 3, 4),
)
def batch_normalization(at: Situation) -> Linear | Refusal:
    """With constant scale, shift, mean and variance; the others are taken apart."""
    node, x, y = at.node, at.node.inputs[0], at.y
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    epsilon = node.attribute("epsilon", 1e-5)

    def forward(b: Builder, value: str, w: str, bias: str | None) -> str:
        out = b.mul(value, w)
        return b.add(out, bias) if bias else out

    weighted = Weighted(
        weight=lambda b: channel_shape(b, batch_norm_factors(b, node.inputs, epsilon)[0], rank),
        forward=forward,
        adjoint=lambda b, s, w: b.mul(s, w),
    )
    return Linear(
        "affine",
        (Term(x, weighted),),
        y,
        bias=lambda b: channel_shape(b, batch_norm_factors(b, node.inputs, epsilon)[1], rank),
        centre=lambda b: channel_shape(b, node.inputs[3], rank),
    )


@dataclass(frozen=True)
class Normalised:
    """(x - mean) / sd over some axes of a view of x; x / root mean square where it is not `centred`.

    Attributes:
        view, back: reshape to and from the form in which `axes` are the normalised ones.
        scale: in the shape of x, or None.
        margin: added to sd.
    """

    x: str
    view: Callable[[Builder, str], str]
    back: Callable[[Builder, str], str]
    axes: tuple[int, ...]
    epsilon: float
    scale: Callable[[Builder], str] | None
    centred: bool = True
    margin: float = 0.0

    def _mean(self, b: Builder, t: str) -> str:
        return b.op("ReduceMean", t, b.integers(self.axes), keepdims=1)

    def _less_mean(self, b: Builder, t: str) -> str:
        return b.sub(t, self._mean(b, t)) if self.centred else t

    def slope(self, b: Builder, magnitudes: bool) -> str:
        """dy/dx with mean and sd held constant; with `magnitudes` of |x|, and of the absolute scale."""
        inverse, _ = self._inverse_sd(b, b.op("Abs", self.x) if magnitudes else self.x)
        if self.scale is None:
            return inverse
        scale = b.op("Abs", self.scale(b)) if magnitudes else self.scale(b)
        whole = b.expand_like(scale, self.x)
        return self.back(b, b.mul(self.view(b, whole), inverse))

    def _inverse_sd(self, b: Builder, x: str = "") -> tuple[str, str]:
        """(1/sd, centred x), both in the view."""
        centred = self._less_mean(b, self.view(b, x or self.x))
        variance = self._mean(b, b.square(centred))
        sd = b.op("Sqrt", b.add(variance, b.scalar(self.epsilon, variance)) if self.epsilon else variance)
        return b.op("Reciprocal", b.add(sd, b.scalar(self.margin, sd)) if self.margin else sd), centred

    def _scaled(self, b: Builder, t: str) -> str:
        return b.mul(t, self.scale(b)) if self.scale else t

    def forward(self, b: Builder, value: str, bias: str | None) -> str:
        """The map with the statistics of the model's own x."""
        inverse, _ = self._inverse_sd(b)
        centred = self._less_mean(b, self.view(b, value))
        out = self._scaled(b, self.back(b, b.mul(centred, inverse)))
        return b.add(out, bias) if bias else out

    def adjoint(self, b: Builder, s: str) -> str:
        inverse, _ = self._inverse_sd(b)
        g = b.mul(self.view(b, self._scaled(b, s)), inverse)
        return self.back(b, self._less_mean(b, g))

    def derivative(self, b: Builder, g: str) -> str:
        """With the statistics differentiated as well."""
        inverse, centred = self._inverse_sd(b)
        unit = b.mul(centred, inverse)
        g = self.view(b, self._scaled(b, g))
        inner = b.sub(self._less_mean(b, g), b.mul(unit, self._mean(b, b.mul(g, unit))))
        return self.back(b, b.mul(inner, inverse))


def _linear(norm: Normalised, y: str, bias: Callable[[Builder], str] | None) -> Linear:
    return Linear(
        "normalization",
        (Term(norm.x, Fixed(Map(norm.forward, norm.adjoint), sign=0)),),
        y,
        bias=bias,
        vjp=lambda b, g: {norm.x: norm.derivative(b, g)},
        frozen=Frozen(norm.slope, (lambda b: b.sub(y, bias(b))) if bias is not None else None),
        note="statistics held constant",
    )


@register("InstanceNormalization", "normalization", _FROZEN, "exact, statistics included", data=(0, 1, 2))
def instance_normalization(at: Situation) -> Linear | Refusal:
    node, x = at.node, at.node.inputs[0]
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    norm = Normalised(
        x,
        lambda b, t: t,
        lambda b, t: t,
        tuple(range(2, rank)),
        node.attribute("epsilon", 1e-5),
        lambda b: channel_shape(b, node.inputs[1], rank),
    )
    return _linear(norm, at.y, lambda b: channel_shape(b, node.inputs[2], rank))


@register("GroupNormalization", "normalization", _FROZEN, "exact, statistics included", data=(0, 1, 2))
def group_normalization(at: Situation) -> Linear | Refusal:
    node, x = at.node, at.node.inputs[0]
    rank, shape = at.graph.rank(x), at.graph.shape(x)
    if rank is None or shape is None or not isinstance(shape[1], int):
        return Refusal("its number of channels is not known", "export with static channels")
    groups, channels = node.attribute("num_groups"), shape[1]

    def per_channel(b: Builder, vector: str) -> str:
        # Up to opset 20 there is one scale per group.
        if at.graph.opset < 21:
            copies = b.op(
                "Expand", b.op("Unsqueeze", vector, b.integers([1])), b.integers([groups, channels // groups])
            )
            vector = b.op("Reshape", copies, b.integers([-1]))
        return channel_shape(b, vector, rank)

    norm = Normalised(
        x,
        lambda b, t: b.op("Reshape", t, b.integers([0, groups, -1])),
        lambda b, t: b.reshape_like(t, x),
        (2,),
        node.attribute("epsilon", 1e-5),
        lambda b: per_channel(b, node.inputs[1]),
    )
    return _linear(norm, at.y, lambda b: per_channel(b, node.inputs[2]))


@register("LayerNormalization", "normalization", _FROZEN, "exact, statistics included", data=(0, 1, 2))
def layer_normalization(at: Situation) -> Linear | Refusal:
    node, x = at.node, at.node.inputs[0]
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    first = node.attribute("axis", -1) % rank
    bias = node.input(2)
    norm = Normalised(
        x,
        lambda b, t: t,
        lambda b, t: t,
        tuple(range(first, rank)),
        node.attribute("epsilon", 1e-5),
        lambda b: node.inputs[1],
    )
    return _linear(norm, at.y, (lambda b: bias) if bias else None)


@register("RMSNormalization", "normalization", _FROZEN, "exact, statistics included", data=(0, 1))
def rms_normalization(at: Situation) -> Linear | Refusal:
    """With a constant scale; one that comes from the data is taken apart."""
    node, x = at.node, at.node.inputs[0]
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    norm = Normalised(
        x,
        lambda b, t: t,
        lambda b, t: t,
        tuple(range(node.attribute("axis", -1) % rank, rank)),
        node.attribute("epsilon", 1e-5),
        lambda b: node.inputs[1],
        centred=False,
    )
    return _linear(norm, at.y, None)


@register("MeanVarianceNormalization", "normalization", _FROZEN, "exact, statistics included")
def mean_variance_normalization(at: Situation) -> Linear:
    node, x = at.node, at.node.inputs[0]
    norm = Normalised(
        x,
        lambda b, t: t,
        lambda b, t: t,
        tuple(node.attribute("axes") or (0, 2, 3)),
        0.0,
        None,
        margin=1e-9,
    )
    return _linear(norm, at.y, None)


@register("LpNormalization", "normalization", "the norm is held constant: relevance passes", "exact, norm included")
def lp_normalization(at: Situation) -> Linear:
    """y = x / norm, and 0 where the norm is 0."""
    node, x, y = at.node, at.node.inputs[0], at.y
    axis, p = node.attribute("axis", -1), node.attribute("p", 2)

    def over(b: Builder, op: str, t: str) -> str:
        return b.op(op, t, b.integers([axis]), keepdims=1)

    def factor(b: Builder) -> str:
        return inverse(b, over(b, "ReduceL1" if p == 1 else "ReduceL2", x))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        return b.mul(value, factor(b))

    def derivative(b: Builder, g: str) -> str:
        pull = b.mul(b.op("Sign", x) if p == 1 else y, over(b, "ReduceSum", b.mul(g, y)))
        return b.mul(b.sub(g, pull), factor(b))

    one = Fixed(Map(forward, lambda b, s: b.mul(s, factor(b))))
    return Linear(
        "normalization",
        (Term(x, one),),
        y,
        vjp=lambda b, g: {x: derivative(b, g)},
        note="the norm is held constant",
    )


@register("LRN", "normalization", "the divisor is held constant: relevance passes", "exact, divisor included")
def lrn(at: Situation) -> Linear:
    node, x, y = at.node, at.node.inputs[0], at.y
    size, alpha = node.attribute("size"), node.attribute("alpha", 1e-4)
    beta, offset = node.attribute("beta", 0.75), node.attribute("bias", 1.0)
    before = (size - 1) // 2
    rank = at.graph.rank(x) or 4

    def window_mean(b: Builder, t: str, front: int) -> str:
        """Mean over `size` neighbouring channels, `front` of them before, zeros outside."""
        apart = b.op("Unsqueeze", t, b.integers([1]))
        flat = b.op("Reshape", apart, b.integers([0, 0, 0, -1])) if rank != 3 else apart
        pooled = b.op(
            "AveragePool",
            flat,
            kernel_shape=[size, 1],
            pads=[front, 0, size - 1 - front, 0],
            count_include_pad=1,
        )
        return b.reshape_like(pooled, x)

    def base(b: Builder) -> str:
        mean = window_mean(b, b.square(x), before)
        return b.add(b.scale(mean, alpha), b.scalar(offset, mean))

    def factor(b: Builder) -> str:
        return b.op("Pow", base(b), b.scalar(-beta, x))

    def forward(b: Builder, value: str, bias: str | None) -> str:
        return b.mul(value, factor(b))

    def derivative(b: Builder, g: str) -> str:
        s = base(b)
        inner = b.mul(b.mul(g, x), b.op("Pow", s, b.scalar(-beta - 1.0, x)))
        # The transpose of the window looks the other way.
        spread = window_mean(b, inner, size - 1 - before)
        return b.sub(b.mul(g, factor(b)), b.scale(b.mul(x, spread), 2.0 * alpha * beta))

    one = Fixed(Map(forward, lambda b, s: b.mul(s, factor(b))))
    return Linear(
        "normalization",
        (Term(x, one),),
        y,
        vjp=lambda b, g: {x: derivative(b, g)},
        note="the divisor is held constant",
    )
