"""Relevance by head and by neuron (Jantsch et al. 2026): what each of them contributed to the target.

The relevance of attention's output is shared out among its terms A[q, k] V[k], which are the contributions of each pair
of query and key in each head, <t_mid[q], A[q, k] V_k W_o>; no rule for products comes into it. The contribution of a
neuron, <t, a_i W_i>, is its relevance.
"""

from __future__ import annotations

from onnxlrp.emit.backward import Walked
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.relevance import Relevance
from onnxlrp.operators.behaviour import Product
from onnxlrp.planning.components import HEADS, Component
from onnxlrp.planning.program import Program
from onnxlrp.understand.facts import Facts


def component_relevance(
    b: Builder, facts: Facts, component: Component, program: Program, walked: Walked
) -> Relevance | None:
    """Relevance in the shape of the component's tensor; None where none arrived."""
    if component.kind != HEADS:
        return walked.relevance.get(component.tensor)
    for number, step in enumerate(program.steps):
        op = step.behaviour
        if isinstance(op, Product) and op.y == component.mixed and number in walked.arrived:
            m = walked.arrived[number][0].as_multiplier(b, facts, op.y)
            return Relevance(op.partial(b, m, component.tensor), component.tensor)
    return None
