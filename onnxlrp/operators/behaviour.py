"""What an operator is, algebraically: the values that rules work on.

An operator says which of these it is; rules say what they do with each. Neither knows the other.

* `Linear`: y = sum of linear maps of the data inputs plus a bias. Layers with weights, sums, averages, normalisations.
* `Selection`: every element of an output is one element of an input, or a constant. Movement and max-type operators.
* `Scaling`: y = c * x for a constant c of any broadcast shape.
* `Elementwise`: y = f(x), one element at a time.
* `Product`: y = a * b or a / b where both depend on the explained input.
* `Attributed`: y = bias + sum of what each element of x contributed, which the operator itself says (trees).
* `Coded`: y holds the numbers of x, one of the two as integers that stand for them.
* `Stop`: nothing flows back, for a stated reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxlrp.emit.builder import Builder

Expression = Callable[[Builder], str]
Part = Literal["full", "plus", "minus", "abs", "square", "ones"]


@dataclass(frozen=True)
class Map:
    """A linear map that can be run forward and transposed; `weight` is already the modified one."""

    forward: Callable[[Builder, str, str | None], str]
    """(builder, x, bias or None) -> y. The bias has the operator's own bias shape."""
    adjoint: Callable[[Builder, str], str]
    """(builder, s of y's shape) -> a tensor of x's shape."""


@dataclass(frozen=True)
class Weighted:
    """A linear map with a weight tensor, for which any other weight of that shape can be put in.

    Attributes:
        weight: makes the tensor of the effective weight.
        forward: (builder, x, weight, bias or None) -> y.
        adjoint: (builder, s, weight) -> a tensor of x's shape.
        scale_output: (builder, weight, k) -> weight with output channel i multiplied by k[i].
        scale_input: the same for input channels.
    """

    weight: Expression
    forward: Callable[[Builder, str, str, str | None], str]
    adjoint: Callable[[Builder, str, str], str]
    scale_output: Callable[[Builder, str, str], str] | None = None
    scale_input: Callable[[Builder, str, str], str] | None = None

    def part(self, b: Builder, part: Part, transform: Callable[[str], str] | None = None) -> Map:
        """The map with weight W, W+, W-, |W|, W squared or ones in its place, optionally transformed further."""
        weight = self.weight(b)
        chosen = {
            "full": lambda: weight,
            "plus": lambda: b.positive(weight),
            "minus": lambda: b.negative(weight),
            "abs": lambda: b.op("Abs", weight),
            "square": lambda: b.square(weight),
            "ones": lambda: b.op("Expand", b.scalar(1.0, weight), b.op("Shape", weight)),
        }[part]()
        return self.with_weight(transform(chosen) if transform else chosen)

    def with_weight(self, weight: str) -> Map:
        """The map with any other weight of the same shape."""
        return Map(
            lambda b, x, bias: self.forward(b, x, weight, bias),
            lambda b, s: self.adjoint(b, s, weight),
        )

    def scaled(self, b: Builder, part: Part, factor: float) -> Map:
        """A part of the map times a number, which goes into the weight."""
        return self.part(b, part, lambda weight: b.scale(weight, factor))

    def favoured(self, b: Builder, gamma: float) -> Map:
        """The map with weight W + gamma W+."""
        weight = self.weight(b)
        return self.with_weight(b.add(weight, b.scale(b.positive(weight), gamma)))


@dataclass(frozen=True)
class Fixed:
    """A linear map without weights whose coefficients are all >= 0, times `sign`; or of mixed signs (`sign` 0)."""

    map: Map
    sign: int = 1

    def part(self, b: Builder, part: Part, transform: Callable[[str], str] | None = None) -> Map | None:
        """W+ or W- is the map itself or nothing. `transform` is for weights and not used here."""
        if part == "full":
            return self.map if self.sign >= 0 else _negated(self.map)
        if self.sign == 0 or part in ("square", "ones"):
            raise LookupError(part)
        if part == "abs":
            return self.map
        if part == "plus":
            return self.map if self.sign > 0 else None
        return _negated(self.map) if self.sign < 0 else None

    def scaled(self, b: Builder, part: Part, factor: float) -> Map | None:
        """A part of the map times a number."""
        inner = self.part(b, part)
        return None if inner is None else _multiplied(inner, factor)

    def favoured(self, b: Builder, gamma: float) -> Map | None:
        """The same as for weights; a map of positive sign is multiplied by 1 + gamma, one of negative sign left."""
        return self.scaled(b, "full", 1.0 + gamma) if self.sign > 0 else self.part(b, "full")


def _multiplied(inner: Map, factor: float) -> Map:
    return Map(
        lambda b, x, bias: (
            b.add(b.scale(inner.forward(b, x, None), factor), bias)
            if bias
            else b.scale(inner.forward(b, x, None), factor)
        ),
        lambda b, s: b.scale(inner.adjoint(b, s), factor),
    )


def _negated(inner: Map) -> Map:
    return Map(
        lambda b, x, bias: b.op("Neg", inner.forward(b, x, bias)),
        lambda b, s: b.op("Neg", inner.adjoint(b, s)),
    )


@dataclass(frozen=True)
class Term:
    """One data input of a linear operator."""

    x: str
    map: Weighted | Fixed


@dataclass(frozen=True)
class Frozen:
    """y = f(x) one element at a time, while the statistics of x (mean, deviation, sum of exponentials) are constant.

    Attributes:
        slope: dy/dx in a shape that broadcasts to y; with `magnitudes` that of the operator with scale |w|, run on |x|.
        unshifted: y without what is added at the end; None where nothing is.
    """

    slope: Callable[[Builder, bool], str]
    unshifted: Expression | None = None


@dataclass(frozen=True)
class Linear:
    """y = sum over terms of W_k x_k + bias.

    Attributes:
        bias: makes the bias, or None.
        bias_size: length of the bias that the map can take as its own (Conv, Gemm); None where a bias is added to y.
        vjp: the derivative where it is not the adjoint (normalisations, whose statistics depend on x).
        steering: inputs that only the coefficients depend on (sampling points): the derivative alone reaches them.
        frozen: the step as a function of one element, where it is a normalisation.
        centre: what is taken from x before anything else, where y = W (x - centre) + shift is how the model says it.
    """

    kind: str
    terms: tuple[Term, ...]
    y: str
    bias: Expression | None = None
    bias_size: int | None = None
    vjp: Callable[[Builder, str], Mapping[str, str]] | None = None
    steering: tuple[str, ...] = ()
    frozen: Frozen | None = None
    centre: Expression | None = None
    per_sample: bool = False
    """Axis 0 of x and y is the batch, and an x of batch 1 gives a y of batch 1 (convolutions)."""
    note: str = ""

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(t.x for t in self.terms), *self.steering)))

    @property
    def one_signed(self) -> bool:
        """Whether the rules that tell positive from negative contributions can treat it."""
        return bool(self.terms) and all(isinstance(t.map, Weighted) or t.map.sign for t in self.terms)

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.y,)


@dataclass(frozen=True)
class Selection:
    """Each output element is one element of one data input (or a constant that receives nothing).

    `adjoint` takes relevance or multipliers by output name and returns them by data input; `among_magnitudes` does the
    same for the selection that is made among absolute values, where the operator can say which that is.
    """

    kind: str
    data: tuple[str, ...]
    outputs: tuple[str, ...]
    adjoint: Callable[[Builder, Mapping[str, str]], Mapping[str, str]]
    note: str = ""
    absorbs: bool = False
    """Some output elements are constants, and keep what relevance they get."""
    among_magnitudes: Callable[[Builder, Mapping[str, str]], Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Scaling:
    """y = factor * x; relevance of y is that of x. `factor` is None for -1."""

    x: str
    y: str
    factor: Callable[[Builder, str], str]
    """(builder, multiplier of y) -> multiplier of x, in the shape of y."""
    kind: str = "movement"
    note: str = "scaled by a constant"

    @property
    def data(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.y,)


@dataclass(frozen=True)
class Elementwise:
    """y = f(x). `gradient` multiplies a tensor by f'(x).

    Attributes:
        controls: other inputs that carry relevance but only shape the function, by name: what multiplies a tensor by
            df/dcontrol, in the shape of that input. Relevance goes to x alone; the derivative reaches them as well.
        slope_at: (builder, g, other) -> g * f'(other), at any other tensor of x's shape; None where that is not known.
        only_masks: y is x but where a mask made x infinite, or nearly so.
        quotient: builder -> y / x in x's shape, where that is less work than a division or needs less to be kept.
    """

    x: str
    y: str
    gradient: Callable[[Builder, str], str]
    kind: str = "activation"
    note: str = ""
    controls: Mapping[str, Callable[[Builder, str], str]] = field(default_factory=dict)
    slope_at: Callable[[Builder, str, str], str] | None = None
    only_masks: bool = False
    quotient: Callable[[Builder], str] | None = None

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.x, *self.controls)))

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.y,)


@dataclass(frozen=True)
class Product:
    """y = a * b, or a / b with `quotient`, where a and b both carry relevance.

    Attributes:
        signal: the factor that is the signal where the other one is recognised as a gate; None if neither is.
        partial: (builder, g of y's shape, factor) -> g * dy/dfactor in the shape of that factor.
        elementwise: y = a * b or a / b element by element; else sums of such products (of matrices).
        quotient: the factor that is not the signal never receives anything: a divisor, sampling points.
        other: what messages call the factor that is not the signal.
        roles: what a and b are in attention ("query", "key", "weights", "value") or a gated layer ("gate", "up").
        beside: (builder, g, factor, other) -> g * dy/dfactor with `other` in place of the other factor; None for
            quotients.
        written_out: the function of one element that y is of the signal, where y is signal * (function of the signal).
    """

    a: str
    b: str
    y: str
    partial: Callable[[Builder, str, str], str]
    signal: str | None
    elementwise: bool = False
    quotient: bool = False
    other: str = "gate"
    roles: tuple[str, str] = ("", "")
    beside: Callable[[Builder, str, str, str], str] | None = None
    written_out: Elementwise | None = None
    kind: str = "product"
    note: str = ""

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.a, self.b)))

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.y,)


@dataclass(frozen=True)
class Attributed:
    """y = bias + the sum of what each element of x contributed; there need be no multiplier that says as much.

    Attributes:
        contributions: (builder, multiplier of y) -> relevance of x, a map in its shape.
        derivative: the same for the derivative of y, None where that is zero.
    """

    kind: str
    x: str
    y: str
    contributions: Callable[[Builder, str], str]
    derivative: Callable[[Builder, str], str] | None = None
    note: str = ""

    @property
    def data(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.y,)


@dataclass(frozen=True)
class Coded:
    """Real numbers written as integers that stand for them, or read back. Relevance of the integers is that of `real`.

    Attributes:
        real: a float tensor with the numbers that the integers stand for.
        inside: where x is real: keeps a tensor where relevance passes, and is zero where the code cuts off as a Relu.
    """

    x: str
    y: str
    real: str
    inside: Callable[[Builder, str], str] | None = None
    kind: str = "movement"
    note: str = "rounding is passed over"

    @property
    def data(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.y,)


@dataclass(frozen=True)
class Stop:
    """Relevance ends here, on purpose."""

    reason: str
    kind: str = "stop"
    data: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    note: str = field(default="")


@dataclass(frozen=True)
class Refusal:
    """The operator cannot be treated as it stands in this model."""

    reason: str
    advice: str = ""


Behaviour = Linear | Selection | Scaling | Elementwise | Product | Attributed | Coded | Stop
