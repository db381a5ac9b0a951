"""If, Loop and Scan: their place in the table of operators. How relevance runs through them is planned in
`planning/control.py` and emitted in `emit/control.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, TensorProto, numpy_helper

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.inlined import inline
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Describe, Situation, register


def _planned_elsewhere(at: Situation) -> Refusal:
    return Refusal("its body is not read")


def _control(op: str, treatment: str) -> None:
    describe: Describe = _planned_elsewhere
    register(op, "control", treatment, "that of its body", data=None)(describe)


_control("If", "through the branch that ran; each step inside by its own rule")
_control("Loop", "backwards through the iterations; each step inside by its own rule")
_control("Scan", "backwards through the iterations; each step inside by its own rule")


#: Weights of a branch up to this many numbers may stand beside those of the model a second time.
_FEW = 1024


@lowers("If")
def known_branch(at: Situation, b: Builder) -> Sequence[str] | None:
    """The branch that runs, where the condition is known beforehand: exporters ask so for sizes that are fixed."""
    holds = _number(at, at.node.inputs[0])
    if holds is None:
        return None
    branch: GraphProto = at.node.attribute("then_branch" if holds else "else_branch")
    tensors = [numpy_helper.to_array(t) for t in branch.initializer] if _is_light(branch) else None
    if tensors is None:
        return None
    names = {t.name: b.constant(value) for t, value in zip(branch.initializer, tensors, strict=True)}
    inline(b, branch.node, names)
    return [names.get(o.name, o.name) for o in branch.output]


def _number(at: Situation, tensor: str) -> float | None:
    """The value of one number or truth that is constant, a fixed size, or a comparison of such; else None."""
    if at.facts.is_constant(tensor):
        return at.facts.scalar(tensor)
    node = at.graph.producer.get(tensor)
    if node is None or node.domain:
        return None
    if node.op in ("Cast", "Squeeze", "Unsqueeze", "Identity", "Reshape"):
        number = _number(at, node.inputs[0])
        # Every size but 0 is one and the same truth.
        is_truth = node.op == "Cast" and node.attribute("to") == TensorProto.BOOL
        return float(number != 0.0) if is_truth and number is not None else number
    if node.op in ("Equal", "Not"):
        given = [_number(at, i) for i in node.inputs]
        known = [g for g in given if g is not None]
        if len(known) < len(given):
            return None
        return float(not known[0] if node.op == "Not" else known[0] == known[1])
    shape = at.graph.producer.get(node.inputs[0]) if node.op == "Gather" else None
    if shape is None or shape.op != "Shape" or shape.attributes:
        return None
    sizes, index = at.graph.shape(shape.inputs[0]), at.facts.scalar(node.inputs[1])
    size = sizes[int(index)] if sizes is not None and index is not None and -len(sizes) <= index < len(sizes) else None
    return float(size) if isinstance(size, int) else None


def _is_light(branch: GraphProto) -> bool:
    sizes = [int(np.prod(t.dims)) for t in branch.initializer]
    return sum(sizes) <= _FEW and not branch.sparse_initializer
