"""The rule tables that `onnxlrp tune` searches: rules for each part of the network, its input, sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxlrp.planning.model import PlanStep
from onnxlrp.tables import RuleTable, parse_table

#: Operators in front of the first layer that leave the bounds of its input what they are.
_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast", "Pad"})
#: A number, a word, or one number for each channel.
Value = float | str | tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """A rule with its parameters."""

    rule: str
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key} {_text(value)}" for key, value in self.parameters.items() if key != "stabiliser")
        return f"{self.rule} ({inside})" if inside else self.rule


@dataclass(frozen=True)
class Traits:
    """What of a network there is to choose rules for.

    Attributes:
        kinds: the kinds of its steps.
        attention: whether two tensors are multiplied as matrices.
        first: the operator of the layer at the explained input.
        low, high: the smallest and largest value of each channel of the input; None where these do not bound it.
    """

    kinds: frozenset[str]
    attention: bool
    first: str
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What is chosen, by name."""
        found = ["lower", "middle", "upper", "borders"]
        if self.first:
            found.append("first")
        found += [kind for kind in ("sum", "average", "normalization") if kind in self.kinds]
        found += ["attention"] if self.attention else []
        return (*found, "product") if "product" in self.kinds else tuple(found)


@dataclass(frozen=True)
class Candidate:
    """A point of the space.

    Attributes:
        choices: by dimension; those that are not there keep the usual rule.
        borders: where the lower third ends and the upper one begins, from 0 at the input to 1 at the target.
    """

    choices: Mapping[str, Choice]
    borders: tuple[float, float] = (1 / 3, 2 / 3)

    def __str__(self) -> str:
        said = [f"{name}: {choice}" for name, choice in self.choices.items()]
        return "; ".join([*said, f"borders at {self.borders[0]:.2f} and {self.borders[1]:.2f}"])

    def toml(self, name: str, description: str, traits: Traits, comments: Sequence[str] = ()) -> str:
        """The rule table as text, the comments at its head."""
        lines = [*(f"# {line}".rstrip() for line in comments), f'name = "{name}"', f'description = "{description}"']
        for conditions, choice, about in self._entries(traits):
            lines += ["", f"[[rule]]{' ' * 24}# {about}", *conditions, f'rule = "{choice.rule}"']
            lines += [f"{key} = {_toml(value)}" for key, value in choice.parameters.items()]
        return "\n".join(lines) + "\n"

    def table(self, name: str, traits: Traits) -> RuleTable:
        return parse_table(self.toml(name, "a rule table tried by onnxlrp tune", traits), name=name, source=name)

    def _entries(self, traits: Traits) -> Iterable[tuple[list[str], Choice, str]]:
        chosen, (lower, upper) = self.choices, self.borders
        linear = ['kind = "linear"']
        if "first" in chosen:
            yield [f'op = "{traits.first}"', 'position = "first"'], chosen["first"], "the layer at the input"
        yield [*linear, f"to = {lower:.4g}"], chosen["lower"], "layers near the input"
        yield [*linear, f"from = {upper:.4g}"], chosen["upper"], "layers near the target"
        yield linear, chosen["middle"], "layers between them"
        usual = {"sum": Choice("norm"), "average": Choice("norm"), "normalization": Choice("epsilon")}
        for kind, choice in usual.items():
            yield [f'kind = "{kind}"'], chosen.get(kind, choice), _ABOUT[kind]
        yield ['kind = "affine"'], Choice("epsilon"), "scales and shifts"
        yield ['kind = "activation"'], Choice("pass"), "Relu, Gelu, Sigmoid, ..."
        attention = ['op = ["MatMul", "Gemm", "Einsum"]', 'kind = "product"']
        yield attention, chosen.get("attention", Choice("half")), "attention"
        yield ['kind = "product"'], chosen.get("product", Choice("signal")), "gates"
        yield ['kind = "max"'], Choice("winner"), "max pooling"
        yield ['kind = "movement"'], Choice("move"), "reshapes, concatenations, slices"


_ABOUT = {"sum": "residual additions", "average": "averages", "normalization": "normalisations"}


def traits_of(
    steps: Sequence[PlanStep], low: tuple[float, ...] | None = None, high: tuple[float, ...] | None = None
) -> Traits:
    """What there is to choose, from the steps of any plan of the model."""
    inner = [one for step in steps for one in (step, *step.inner)]
    products = [_operator(step) for step in inner if step.kind == "product"]
    # Steps stand in the order of the relevance pass: the layer at the input comes last.
    places = [place for place, step in enumerate(steps) if step.kind == "linear"]
    first = _operator(steps[places[-1]]) if places and low is not None else ""
    before = steps[places[-1] + 1 :] if places else ()
    # What is computed of the input before its first layer has other bounds.
    bounded = all(step.kind == "movement" and _operator(step) in _MOVES for step in before)
    return Traits(
        frozenset(step.kind for step in inner),
        any(op in ("MatMul", "Gemm", "Einsum") for op in products),
        first if first in ("Conv", "ConvTranspose", "Gemm", "MatMul") else "",
        low if bounded else None,
        high if bounded else None,
    )


def _operator(step: PlanStep) -> str:
    """The main operator of a step, which may be several in one (`Conv+Add`)."""
    return step.operator.partition("+")[0]


def draw(traits: Traits, generator: np.random.Generator) -> Candidate:
    """A point of the space at random."""
    candidate = Candidate({})
    for dimension in traits.dimensions:
        candidate = _redrawn(candidate, dimension, traits, generator)
    return candidate


def near(candidate: Candidate, traits: Traits, generator: np.random.Generator) -> Candidate:
    """A point that differs in one dimension or two."""
    count = int(generator.integers(1, 3))
    for dimension in generator.choice(traits.dimensions, min(count, len(traits.dimensions)), replace=False):
        candidate = _redrawn(candidate, str(dimension), traits, generator)
    return candidate


def _redrawn(candidate: Candidate, name: str, traits: Traits, generator: np.random.Generator) -> Candidate:
    if name == "borders":
        lower, upper = float(generator.choice((0.2, 0.33, 0.5))), float(generator.choice((0.5, 0.67, 0.8, 0.95)))
        return replace(candidate, borders=(lower, upper))
    options = _OPTIONS.get(name, _layers)(traits)
    choice = options[int(generator.integers(len(options)))](generator)
    rest = {key: value for key, value in candidate.choices.items() if key != name}
    chosen = rest if choice is None else {**rest, name: choice}
    return replace(candidate, choices=dict(sorted(chosen.items())))


Draw = Callable[[np.random.Generator], Choice | None]


def _log(generator: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform, three significant digits: a rule table is read by people."""
    return float(f"{math.exp(generator.uniform(math.log(low), math.log(high))):.3g}")


def _epsilon(generator: np.random.Generator) -> Choice:
    # Relative to the size of the pre-activations, so that one range suits every network.
    return Choice("epsilon", {"epsilon": _log(generator, 1e-6, 0.5), "stabiliser": "norm"})


def _fixed(choice: Choice | None) -> Draw:
    return lambda generator: choice


def _layers(traits: Traits) -> Sequence[Draw]:
    """For layers with weights; gamma twice, because small ones matter most."""
    return (
        _epsilon,
        lambda g: Choice("gamma", {"gamma": _log(g, 0.01, 10.0)}),
        _fixed(Choice("z-plus")),
        _fixed(Choice("alpha-beta", {"alpha": 2.0, "beta": 1.0})),
        lambda g: Choice("gamma", {"gamma": _log(g, 0.01, 1.0)}),
    )


def _first(traits: Traits) -> Sequence[Draw]:
    usual = (_fixed(None), _fixed(None), _fixed(Choice("flat")), _fixed(Choice("w-square")))
    if traits.low is None or traits.high is None:
        return usual
    return (*usual, _fixed(Choice("z-box", {"low": traits.low, "high": traits.high})))


_OPTIONS: Mapping[str, Callable[[Traits], Sequence[Draw]]] = {
    "first": _first,
    "sum": lambda traits: (
        _fixed(None),
        lambda g: Choice("res-lrp", {"gamma": _log(g, 0.1, 10.0)}),
        _fixed(Choice("absolute-ratio")),
        _fixed(Choice("equal")),
        _fixed(Choice("z")),
    ),
    "average": lambda traits: (_fixed(None), _fixed(Choice("z-plus")), _fixed(Choice("z"))),
    "normalization": lambda traits: (_fixed(None), _fixed(Choice("z")), _fixed(Choice("pass"))),
    "attention": lambda traits: (_fixed(None), _fixed(Choice("signal"))),
    "product": lambda traits: (_fixed(None), _fixed(Choice("half"))),
}


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{one:.4g}" for one in value) + "]"
    return value if isinstance(value, str) else f"{value:g}"


def _toml(value: Value) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(repr(float(one)) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(float(value))
