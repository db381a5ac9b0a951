"""What stands in the reading graph for operators that a rule table declares (see `understand/declared.py`).

Their domain is no domain of a model. They are found like all others, but are not in the catalogue: whether there are
any, and what they do, depends on the table.
"""

from __future__ import annotations

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Elementwise, Refusal, Stop
from onnxlrp.operators.registry import DECLARED, Situation, register

#: The kind of a step that the table has decided already, whatever its rules are.
KIND = "declared"


@register("Pass", KIND, "passes relevance through, as the rule table declares", "not known", domain=DECLARED)
def passes(at: Situation) -> Elementwise:
    def unknown(b: Builder, g: str) -> str:
        raise LookupError("the derivative of an operator that is only declared")

    return Elementwise(at.node.inputs[0], at.y, unknown, KIND, at.node.attribute("reason"))


@register("Threshold", "activation", "passes relevance through", "1 above the threshold, else 0", domain=DECLARED)
def threshold(at: Situation) -> Elementwise:
    """u = x where a Relu behind a BatchNormalization is open, and its threshold elsewhere."""
    x, u = at.node.inputs[0], at.y
    note = "the Relu as a threshold in front of its BatchNormalization"
    return Elementwise(x, u, lambda b, g: b.mask(b.op("Equal", x, u), g), note=note)


@register("Stop", "stop", "relevance ends, as the rule table declares", "0", data=(), domain=DECLARED)
def stops(at: Situation) -> Stop:
    return Stop(at.node.attribute("reason"))


@register(
    "Refused", KIND, "what the rule table declares does not fit the node", "not known", data=None, domain=DECLARED
)
def refused(at: Situation) -> Refusal:
    return Refusal(at.node.attribute("reason"), "correct its declaration in the rule table")
