"""Operators that users bring, in one of three forms: taken apart, linear, or element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from onnxlrp.emit.builder import Builder
from onnxlrp.errors import ConversionError, OnnxLrpError, UsageError
from onnxlrp.graph.view import Node
from onnxlrp.operators import lowering, registry
from onnxlrp.operators.behaviour import Elementwise, Fixed, Linear, Map, Refusal, Term
from onnxlrp.operators.elementwise import PASSES
from onnxlrp.operators.registry import Situation, register
from onnxlrp.signature import check_signature
from onnxlrp.tables import names

#: (builder, node) -> the node's outputs, one tensor or several in order, made of standard operators.
Decompose = Callable[[Builder, Node], str | Sequence[str]]
#: (builder, node, tensor) -> tensor.
LinearPart = Callable[[Builder, Node, str], str]
#: (builder, node, x, y) -> f'(x).
Derivative = Callable[[Builder, Node, str, str], str]

_STANDARD = ("", "ai.onnx")
_OWN: set[tuple[str, str]] = set()
#: What makes the output of an operator from its first input, for shape inference where the model does not say.
_FORWARD: dict[tuple[str, str], LinearPart] = {}


def register_operator(
    op: str,
    *,
    domain: str,
    decompose: Decompose | None = None,
    linear: tuple[LinearPart, LinearPart] | None = None,
    coefficients: Literal["mixed", "positive"] = "mixed",
    derivative: Derivative | None = None,
    treatment: str = "",
    replace: bool = False,
) -> None:
    """Registers an operator that onnxlrp does not know, in one of three forms.

    The first argument of every function is the graph builder `b`, which appends standard operators (`b.op("Relu", x)`),
    the second the node, with `inputs`, `outputs` and `attribute(name, default)`.

    Args:
        op, domain: the operator; the domain is not that of the standard.
        decompose: (b, node) -> its outputs from its inputs, in standard operators. Each of them gets a rule of its own.
        linear: (forward, adjoint) of an operator that is linear in its first input: forward(b, node, x) -> y and
            adjoint(b, node, s) -> the transpose in the shape of x. It is a step of kind "average".
        coefficients: "positive" where no coefficient of `linear` is negative, which rules such as z-plus ask for.
        derivative: (b, node, x, y) -> f'(x) of an element-wise function of its first input: kind "activation".
        treatment: what happens to relevance, for `onnxlrp ops`.
        replace: whether an operator registered by an earlier call may be replaced.

    Raises:
        UsageError: the operator is known, not exactly one form is given, or a function has the wrong arguments.
    """
    key = (domain, op)
    if domain in _STANDARD:
        raise UsageError(f"operator {op}: operators of ai.onnx are known; state the domain of yours")
    if not op or any(c.isspace() for c in op):
        raise UsageError(f"{op!r} is no name of an operator")
    if registry.known(domain, op) and not (replace and key in _OWN):
        raise UsageError(f"operator {domain}.{op} is known already")
    forms = [form for form in (decompose, linear, derivative) if form is not None]
    if len(forms) != 1:
        raise UsageError(f"operator {domain}.{op}: state one of decompose, linear and derivative, not {len(forms)}")
    name = f"operator {domain}.{op}"
    if linear is not None and (not isinstance(linear, tuple) or len(linear) != 2):
        raise UsageError(f"{name}: linear is a pair (forward, adjoint)")
    for form in linear or forms:
        arguments = "(b, node)" if decompose else "(b, node, tensor)" if linear else "(b, node, x, y)"
        check_signature(name, form, arguments.count(",") + 1, arguments)
    remove_operator(op, domain)
    _OWN.add(key)
    names.add_operator(op)
    if decompose is not None:
        _decomposed(op, domain, decompose, treatment)
    elif linear is not None:
        _linear(op, domain, *linear, 1 if coefficients == "positive" else 0, treatment)
    elif derivative is not None:
        _elementwise(op, domain, derivative, treatment)


def remove_operator(op: str, domain: str) -> None:
    """Forgets an operator that was registered; does nothing where there is none."""
    if (domain, op) in _OWN:
        _OWN.discard((domain, op))
        _FORWARD.pop((domain, op), None)
        registry.remove(domain, op)
        lowering.remove(domain, op)
        names.remove_operator(op)


def forward_of(node: Node) -> LinearPart | None:
    """What makes the output of a registered operator, as far as its type is concerned; None for all others."""
    return _FORWARD.get((node.domain, node.op))


def _decomposed(op: str, domain: str, decompose: Decompose, treatment: str) -> None:
    @lowering.lowers(op, domain=domain, treatment=treatment or "taken apart as its registration says")
    def lower(at: Situation, b: Builder) -> Sequence[str] | Refusal | None:
        found = _called(f"operator {domain}.{op}", lambda: decompose(b, at.node))
        made = [found] if isinstance(found, str) else found
        if not isinstance(made, Sequence) or not all(isinstance(name, str) for name in made):
            raise ConversionError(f"operator {domain}.{op} is taken apart into {found!r}, not into tensors")
        return made


def _linear(op: str, domain: str, forward: LinearPart, adjoint: LinearPart, sign: int, treatment: str) -> None:
    @register(op, "average", treatment or "linear, by the rule of the table", "its transpose", domain=domain)
    def describe(at: Situation) -> Linear | Refusal:
        node, x = at.node, at.node.inputs[0]
        others = at.require_constant(*range(1, len(node.inputs)))
        if others is not None:
            return others

        def run(b: Builder, x: str, bias: str | None) -> str:
            y = forward(b, node, x)
            return y if bias is None else b.add(y, bias)

        return Linear("average", (Term(x, Fixed(Map(run, lambda b, s: adjoint(b, node, s)), sign)),), at.y)

    _FORWARD[domain, op] = forward


def _elementwise(op: str, domain: str, derivative: Derivative, treatment: str) -> None:
    @register(op, "activation", treatment or PASSES, "as its registration says", domain=domain)
    def describe(at: Situation) -> Elementwise:
        node, x, y = at.node, at.node.inputs[0], at.y
        return Elementwise(x, y, lambda b, g: b.mul(g, derivative(b, node, x, y)))

    _FORWARD[domain, op] = lambda b, node, x: b.op("Identity", x)


def _called(what: str, function: Callable[[], str | Sequence[str]]) -> str | Sequence[str]:
    try:
        return function()
    except OnnxLrpError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise ConversionError(f"{what} fails: {type(error).__name__}: {error}") from error
