"""Which function carries out a rule on which kind of behaviour: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from onnxlrp.emit.context import Context
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Attributed, Behaviour, Coded, Elementwise, Linear, Product, Scaling, Selection
from onnxlrp.rules import absolute, first_layer, linear, other, products, relative, signed, sums
from onnxlrp.rules.recipe import Contributions, Parameters

Given = Mapping[str, Relevance]
_Single = Callable[[Context, Any, Relevance, Parameters], Contributions]
_Several = Callable[[Context, Any, Given, Parameters], Contributions]

_LINEAR: dict[str, _Single] = {
    "z": linear.epsilon,
    "epsilon": linear.epsilon,
    "norm": linear.epsilon,
    "z-plus": signed.z_plus,
    "alpha-beta": signed.alpha_beta,
    "gamma": signed.gamma,
    "excitation": signed.excitation,
    "z-box": first_layer.z_box,
    "w-square": first_layer.w_square,
    "flat": first_layer.flat,
    "res-lrp": sums.res_lrp,
    "absolute-ratio": sums.absolute_ratio,
    "rescaled": sums.rescaled,
    "equal": sums.equal,
    "absolute-magnitude": absolute.linear,
    "relative": relative.relative,
    "pass": other.pass_linear,
    "gradient": linear.gradient,
    "held": linear.held,
}
_ELEMENTWISE: dict[str, _Single] = {
    "pass": other.pass_elementwise,
    "gradient": other.elementwise_derivative,
    "guided-backprop": other.guided,
    "deconvnet": other.deconvnet,
    "absolute-magnitude": absolute.elementwise,
}
_PRODUCT: dict[str, _Single] = {
    "signal": products.signal,
    "half": products.half,
    "proportional": products.proportional,
    "dpa": products.dual_path,
    "absolute-magnitude": absolute.product,
    "gradient": products.product_derivative,
    "held": products.held_product,
}
_SCALING: dict[str, _Single] = {
    "move": other.scale,
    "gradient": other.scale_derivative,
    "absolute-magnitude": absolute.scale,
}
_ATTRIBUTED: dict[str, _Single] = {
    "path": other.contributions,
    "move": other.contributions,
    "gradient": other.contribution_derivative,
}
_CODED: dict[str, _Single] = {"move": other.recode, "gradient": other.recode_derivative}
_SELECTION: dict[str, _Several] = {
    "move": other.select,
    "winner": other.select,
    "absolute-magnitude": absolute.select,
    "gradient": other.select_derivative,
}

#: Rules that need to know the sign of every coefficient.
_ONE_SIGNED = frozenset({"z-plus", "alpha-beta", "gamma", "excitation"})
_WEIGHTED = frozenset({"z-box", "w-square", "flat"})


_TABLES: Mapping[type, MutableMapping[str, Any]] = {
    Linear: _LINEAR,
    Elementwise: _ELEMENTWISE,
    Product: _PRODUCT,
    Scaling: _SCALING,
    Attributed: _ATTRIBUTED,
    Coded: _CODED,
    Selection: _SELECTION,
}


def add(rule: str, behaviour: type[Behaviour], carry: Callable[..., Contributions]) -> None:
    """Adds the function that carries out a rule on a kind of behaviour."""
    _TABLES[behaviour][rule] = carry


def remove(rule: str) -> None:
    """Takes a rule out of all tables."""
    for table in _TABLES.values():
        table.pop(rule, None)


def obstacle(rule: str, behaviour: Behaviour) -> str | None:
    """Why a rule cannot treat a behaviour, or None if it can."""
    if rule not in _TABLES.get(type(behaviour), {}):
        return f"rule {rule} is not for such a step"
    if isinstance(behaviour, Product) and rule == "proportional" and not (behaviour.elementwise or behaviour.quotient):
        return f"rule {rule} compares the factors element by element, which products of matrices do not have"
    if isinstance(behaviour, Linear):
        if rule in _ONE_SIGNED and not behaviour.one_signed:
            return f"rule {rule} needs coefficients of one sign"
        if rule == "absolute-magnitude" and not (behaviour.one_signed or absolute.is_one_function(behaviour)):
            return f"rule {rule} needs coefficients of one sign"
        if rule in _WEIGHTED and behaviour.kind != "linear":
            return f"rule {rule} is for weighted layers"
    return None


def receivers(rule: str, behaviour: Behaviour, p: Parameters) -> tuple[str, ...]:
    """The inputs that a rule sends relevance to."""
    if isinstance(behaviour, Elementwise) and rule != "gradient":
        return (behaviour.x,)
    one_sided = isinstance(behaviour, Product) and (rule == "signal" or (rule != "gradient" and behaviour.quotient))
    if one_sided and isinstance(behaviour, Product):
        factor = products.signal_of(behaviour, p)
        return behaviour.data if factor is None else (factor,)
    if isinstance(behaviour, Linear) and rule != "gradient":
        return tuple(dict.fromkeys(t.x for t in behaviour.terms))
    return behaviour.data


def carry_out(ctx: Context, rule: str, behaviour: Behaviour, given: Given, p: Parameters) -> Contributions:
    """Emits one step: relevance of its outputs in, contributions to its inputs out."""
    if isinstance(behaviour, Selection):
        return _SELECTION[rule](ctx, behaviour, given, p)
    r = given[behaviour.outputs[0]]
    if isinstance(behaviour, Linear):
        return _LINEAR[rule](ctx, behaviour, r, p)
    if isinstance(behaviour, Elementwise):
        return _ELEMENTWISE[rule](ctx, behaviour, r, p)
    if isinstance(behaviour, Product):
        return _PRODUCT[rule](ctx, behaviour, r, p)
    if isinstance(behaviour, Scaling):
        return _SCALING[rule](ctx, behaviour, r, p)
    if isinstance(behaviour, Attributed):
        return _ATTRIBUTED[rule](ctx, behaviour, r, p)
    if isinstance(behaviour, Coded):
        return _CODED[rule](ctx, behaviour, r, p)
    raise LookupError(f"{behaviour} carries no relevance")
