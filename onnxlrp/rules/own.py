"""Rules that users bring: a function from the relevance of a step's output to that of its inputs.

A rule sees a step, not an operator. What steps of one family have in common is one of the classes below, which are what
the functions of `onnxlrp.register_rule` are given. Tensors are names; `b`, the graph builder, appends nodes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.errors import ConversionError, OnnxLrpError, UsageError
from onnxlrp.operators.behaviour import Behaviour, Elementwise, Fixed, Linear, Part, Product, Weighted
from onnxlrp.rules import dispatch, spec
from onnxlrp.rules.recipe import Contributions, Parameters, book_difference, on_output, stabilised
from onnxlrp.rules.spec import Parameter, RuleSpec
from onnxlrp.signature import check_signature

#: What a rule returns: the relevance of the step's only input, or of each of its inputs by name.
Returned = str | Mapping[str, str]
OwnRule = Callable[[Any, str, Parameters], Returned]
#: How a rule changes weights: a part of them, or any function (builder, weight) -> weight of the same shape.
Weights = Part | Callable[[Builder, str], str]


@dataclass(frozen=True)
class LinearStep:
    """y = the sum over the inputs of W_k x_k + bias: layers with weights, sums, averages, frozen normalisations.

    Attributes:
        b: the graph builder.
        inputs: the tensors that relevance goes to; a layer has one, a sum has several.
        y: the output tensor.
    """

    kinds: ClassVar[tuple[str, ...]] = ("linear", "affine", "average", "sum", "normalization")
    b: Builder
    inputs: tuple[str, ...]
    y: str
    _ctx: Context
    _op: Linear

    @property
    def x(self) -> str:
        """The input, where there is one only."""
        if len(self.inputs) != 1:
            raise ConversionError(f"the step has {len(self.inputs)} inputs; use `inputs`")
        return self.inputs[0]

    @property
    def bias(self) -> str | None:
        """The bias in a shape that broadcasts against y; None where there is none."""
        return None if self._op.bias is None else on_output(self.b, self._op, self._op.bias(self.b))

    def forward(self, x: str | Mapping[str, str], weights: Weights = "full") -> str:
        """The sum of W_k x_k for other inputs, other weights or both, without bias, in the shape of y.

        Args:
            x: a tensor in the shape of the only input, or a tensor for each input by its name.
            weights: "full", "plus", "minus", "abs", "square" or "ones", or a function (b, weight) -> weight.
        """
        given = x if isinstance(x, Mapping) else {self.x: x}
        terms = [self._map(i, weights) for i in range(len(self._op.terms))]
        parts = [m.forward(self.b, given[t.x], None) for t, m in zip(self._op.terms, terms, strict=True) if m]
        return self.b.sum(parts) if parts else self.b.zeros_like(self.y)

    def adjoint(self, s: str, weights: Weights = "full", input: str | None = None) -> str:
        """The transpose W^T s in the shape of an input (the only one unless it is named), for s in the shape of y."""
        name = self.x if input is None else input
        maps = [self._map(i, weights) for i, term in enumerate(self._op.terms) if term.x == name]
        parts = [m.adjoint(self.b, s) for m in maps if m]
        return self.b.sum(parts) if parts else self.b.zeros_like(name)

    def stabilised(self, d: str, epsilon: float = 1e-6) -> str:
        """d away from zero by epsilon: d + epsilon sgn(d), sgn(0) = 1; for d in the shape of y."""
        return stabilised(self._ctx, self._op, d, {"epsilon": epsilon})

    def _map(self, index: int, weights: Weights) -> Any:
        term = self._op.terms[index].map
        if callable(weights):
            if not isinstance(term, Weighted):
                raise ConversionError(f"a step of kind {self._op.kind} has no weights to change")
            return term.with_weight(weights(self.b, term.weight(self.b)))
        try:
            return term.part(self.b, weights)
        except (KeyError, LookupError):
            known = "full, plus, minus, abs" if isinstance(term, Fixed) else "full, plus, minus, abs, square, ones"
            raise ConversionError(
                f"a step of kind {self._op.kind} has no weights {weights!r}; it may have {known} (coefficients of mixed"
                " signs that are no weights: full alone)"
            ) from None


@dataclass(frozen=True)
class ActivationStep:
    """y = f(x), one element at a time."""

    kinds: ClassVar[tuple[str, ...]] = ("activation",)
    b: Builder
    x: str
    y: str
    _op: Elementwise

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)

    def derivative(self, t: str) -> str:
        """f'(x) t."""
        return self._op.gradient(self.b, t)


@dataclass(frozen=True)
class ProductStep:
    """y = first * second (of any kind: element by element, of matrices) where both depend on the explained input.

    Attributes:
        signal: which of the two is the signal that the other one gates; None where that is not known.
    """

    kinds: ClassVar[tuple[str, ...]] = ("product",)
    b: Builder
    first: str
    second: str
    y: str
    signal: str | None
    _op: Product

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.first, self.second)))

    def derivative(self, t: str, input: str) -> str:
        """t dy/dinput in the shape of that input."""
        return self._op.partial(self.b, t, input)


Step = LinearStep | ActivationStep | ProductStep
_STEPS: tuple[type[Step], ...] = (LinearStep, ActivationStep, ProductStep)
_BEHAVIOURS: Mapping[type[Step], type[Behaviour]] = {
    LinearStep: Linear,
    ActivationStep: Elementwise,
    ProductStep: Product,
}


def _step(ctx: Context, op: Behaviour) -> Step:
    b = ctx.b
    if isinstance(op, Linear):
        return LinearStep(b, tuple(dict.fromkeys(t.x for t in op.terms)), op.y, ctx, op)
    if isinstance(op, Elementwise):
        return ActivationStep(b, op.x, op.y, op)
    if isinstance(op, Product):
        return ProductStep(b, op.a, op.b, op.y, op.signal, op)
    raise LookupError(type(op).__name__)


def _carrying(name: str, rule: OwnRule) -> Callable[[Context, Any, Relevance, Parameters], Contributions]:
    """The rule as the emission calls it: what it does not pass on is booked, and its mistakes are named."""

    def carry(ctx: Context, op: Behaviour, r: Relevance, p: Parameters) -> Contributions:
        step = _step(ctx, op)
        where = f"rule {name} at {ctx.b.scope_name}"
        try:
            found = rule(step, r.as_map(ctx.b), p)
        except OnnxLrpError as error:
            raise ConversionError(f"{where}: {error}") from error
        except Exception as error:  # a user's function may raise anything
            raise ConversionError(f"{where} fails: {type(error).__name__}: {error}") from error
        by_input = _by_input(step.inputs, found, where)
        sent = [(x, Relevance(by_input[x])) for x in step.inputs if x in by_input]
        book_difference(ctx, "other", [r], [s for _, s in sent])
        return sent

    return carry


def _by_input(inputs: Sequence[str], found: object, where: str) -> Mapping[str, str]:
    if isinstance(found, str) and len(inputs) == 1:
        return {inputs[0]: found}
    if isinstance(found, Mapping) and all(isinstance(v, str) for v in found.values()) and set(found) <= set(inputs):
        return found
    raise ConversionError(
        f"{where} returns {found!r}; it must return the relevance of {', '.join(inputs)}: a tensor name"
        f"{'' if len(inputs) == 1 else ' for each, in a dict'}"
    )


_OWN: set[str] = set()


def register_rule(
    name: str,
    *,
    kinds: Sequence[str] = ("linear",),
    parameters: Mapping[str, float | str | Parameter] | None = None,
    summary: str = "",
    source: str = "",
    replace: bool = False,
) -> Callable[[OwnRule], OwnRule]:
    """Registers a function as a rule that rule tables can name; to be used as a decorator.

    The function is called with (step, relevance, parameters) for each step that the table gives the rule to, and
    returns the relevance of the step's input, or a dict of it by input: names of tensors in the inputs' shapes, made
    with the graph builder `step.b`. `relevance` is a tensor in the shape of `step.y`.

    Args:
        name: as in `rule = "..."`.
        kinds: the kinds of step that it is for, all of one family: of `LinearStep` ("linear", "affine", "average",
            "sum", "normalization"), of `ActivationStep` ("activation") or of `ProductStep` ("product").
        parameters: by name, a default: a number (not negative), or an `onnxlrp.Parameter`. Tables may state them.
        summary: what it does, for `onnxlrp rules --rule`.
        source: where the formula stands.
        replace: whether a rule registered by an earlier call may be replaced.

    Raises:
        UsageError: the name is taken, a kind is not known, or the function does not take three arguments.
    """
    family = next((step for step in _STEPS if kinds and set(kinds) <= set(step.kinds)), None)
    if not isinstance(name, str) or not name or any(c.isspace() for c in name):
        raise UsageError(f"{name!r} is no name for a rule; write one without blanks")
    if family is None:
        known = "; ".join(", ".join(step.kinds) for step in _STEPS)
        raise UsageError(f"rule {name} is for kinds {', '.join(kinds) or 'none'}; they must be of one of: {known}")
    if name in spec.ALIASES or (name in spec.RULES and not (replace and name in _OWN)):
        raise UsageError(f"there is a rule {name!r} already; register yours by another name")
    stated = {key: _parameter(name, key, value) for key, value in (parameters or {}).items()}

    def add(rule: OwnRule) -> OwnRule:
        check_signature(f"rule {name}", rule, 3, "(step, relevance, parameters)")
        remove_rule(name)
        text = summary or (inspect.getdoc(rule) or "a rule of its own").splitlines()[0]
        spec.add(RuleSpec(name, tuple(kinds), text, source or f"{rule.__module__}.{rule.__qualname__}", stated))
        dispatch.add(name, _BEHAVIOURS[family], _carrying(name, rule))
        _OWN.add(name)
        return rule

    return add


def remove_rule(name: str) -> None:
    """Forgets a rule that was registered; does nothing where there is none."""
    if name in _OWN:
        spec.remove(name)
        dispatch.remove(name)
        _OWN.discard(name)


def _parameter(rule: str, key: str, value: float | str | Parameter) -> Parameter:
    reserved = ("rule", "op", "kind", "name", "region", "position", "from", "to")
    if key in reserved:
        raise UsageError(f"rule {rule} has a parameter {key!r}, which is a condition of rule tables; call it otherwise")
    if isinstance(value, Parameter):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Parameter(float(value), "")
    raise UsageError(f"parameter {key} of rule {rule} is {value!r}; state a number or an onnxlrp.Parameter")
