"""Softmax and LogSoftmax inside a network, linear around the model's own x (Achtibat et al. 2024, prop. 3.1).

y = J x + c with J the Jacobian at x and c = y - J x, the constant term of the expansion, which acts as a bias. The
derivative is J as well, so that every rule without a choice of signs gives x * J^T (R / y).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Node
from onnxlrp.operators.behaviour import Fixed, Frozen, Linear, Map, Refusal, Term
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation, register

_TREATMENT = "linear around the input: its Jacobian; the constant term of the expansion acts as a bias"

#: Steps behind which minus infinity can stand although the data are finite: masks come in by the first, and pass the
#: others.
_MASKING = frozenset({"Add", "Sub", "Where", "Sum", "Concat", "Pad", "ScatterND", "ScatterElements"})
_PASSING = frozenset(
    {
        "Mul",
        "Div",
        "Cast",
        "CastLike",
        "Identity",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Slice",
        "Gather",
        "Neg",
    }
)


def _masks(value: np.ndarray[Any, Any]) -> bool:
    """Whether a constant holds what takes a score out of a softmax: minus infinity or a number nearly as low."""
    lowest = np.finfo(value.dtype if np.issubdtype(value.dtype, np.floating) else np.float32).min
    wide = value.astype(np.float64)
    return not np.isfinite(wide).all() or bool((wide < 0.5 * float(lowest)).any())


def _may_be_masked(at: Situation, x: str) -> bool:
    """Whether a tensor may hold minus infinity, or a number as low as there is, where the data are ordinary."""
    seen: set[tuple[str, bool]] = set()
    pending = [(x, False)]
    while pending:
        tensor, behind_a_mask = latest = pending.pop()
        if latest in seen:
            continue
        seen.add(latest)
        node = at.graph.producer.get(tensor)
        if at.facts.is_constant(tensor):
            value = at.facts.value(tensor)
            if value is None or _masks(value):
                return True
        elif node is None:
            if behind_a_mask:
                return True
        elif node.op == "Log":
            return True
        elif not node.domain and node.op in _MASKING | _PASSING:
            further = behind_a_mask or node.op in _MASKING
            pending += [(i, further) for i in node.inputs if i and at.graph.is_float(i)]
    return False


def only_with_keys(b: Builder, probabilities: str, scores: str, axis: int = -1) -> str:
    """The softmax of scores that are bounded below, and zero where all of them are masked."""
    return b.where(_has_key(b, scores, axis), probabilities, b.scalar(0.0, probabilities))


def _has_key(b: Builder, scores: str, axis: int) -> str:
    """Whether any of the scores is not masked, along `axis`."""
    largest = b.op("ReduceMax", scores, b.integers([axis]), keepdims=1)
    return b.op("Greater", largest, b.scale(b.lowest(scores), 0.5))


def _is_guarded(at: Situation, tensor: str) -> bool:
    """Whether what reads a softmax sorts out rows of which everything is masked, and which are no numbers."""
    readers = at.graph.consumers.get(tensor, ())
    return any(
        node.op in ("Where", "IsNaN") or (node.op in ("Cast", "CastLike") and _is_guarded(at, node.outputs[0]))
        for node in readers
    )


@lowers("Softmax LogSoftmax")
def masked_softmax(at: Situation, b: Builder) -> Sequence[str] | None:
    """Where scores are masked by minus infinity, of scores that are bounded below: 0 times infinity is no number.

    A row of which everything is masked does not depend on its scores, which are lost beside the mask, whatever the
    derivative says. It is the softmax of zeros, which is the same, and nothing goes back through it.
    """
    node, (x,) = at.node, at.node.inputs
    if not _may_be_masked(at, x):
        return None
    if node.op != "Softmax":
        return (b.op(node.op, b.at_least(x, b.lowest(x)), **node.attributes),)
    scores, has_key = _with_keys(b, node)
    found = b.op(node.op, scores, **node.attributes)
    return (b.where(has_key, found, b.scalar(0.0, found)) if _is_guarded(at, at.y) else found,)


@lowers("Where")
def softmax_without_gaps(at: Situation, b: Builder) -> Sequence[str] | None:
    """Where(IsNaN(softmax), 0, softmax): rows of which all is masked by minus infinity are zero, not NaN.

    It is read as one softmax, whose output is the model's own tensor and finite.
    """
    condition, zero, y = at.node.inputs
    asking, node = at.graph.producer.get(condition), at.graph.producer.get(y)
    if node is None or node.op != "Softmax" or node.domain or asking is None or asking.op != "IsNaN":
        return None
    if asking.inputs[0] != y or at.facts.scalar(zero) != 0.0 or not _may_be_masked(at, node.inputs[0]):
        return None
    scores, _ = _with_keys(b, node)
    return (b.op("Softmax", scores, **node.attributes),)


def _with_keys(b: Builder, softmax: Node) -> tuple[str, str]:
    """(the scores, bounded below, and zeros where all of a row are masked; whether a row is not)."""
    (x,) = softmax.inputs
    scores = b.at_least(x, b.lowest(x))
    has_key = _has_key(b, x, softmax.attribute("axis", -1))
    return b.where(has_key, scores, b.scalar(0.0, scores)), has_key


@register("Softmax LogSoftmax", "normalization", _TREATMENT, "y (m - sum y m), m - softmax(x) sum m")
def softmax(at: Situation) -> Linear | Refusal:
    node, x, y = at.node, at.node.inputs[0], at.y
    axis, logarithm = node.attribute("axis", -1), node.op == "LogSoftmax"

    def total(b: Builder, t: str) -> str:
        return b.op("ReduceSum", t, b.integers([axis]), keepdims=1)

    def probabilities(b: Builder) -> str:
        return b.op("Exp", y) if logarithm else y

    def forward(b: Builder, value: str, bias: str | None) -> str:
        s = probabilities(b)
        moved = b.sub(value, total(b, b.mul(s, value)))
        out = moved if logarithm else b.mul(s, moved)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, m: str) -> str:
        s = probabilities(b)
        if logarithm:
            return b.sub(m, b.mul(s, total(b, m)))
        return b.mul(s, b.sub(m, total(b, b.mul(s, m))))

    def constant_term(b: Builder) -> str:
        # A mask adds -inf, whose share is 0: so is that of any number that is low enough.
        return b.sub(y, forward(b, b.at_least(x, b.scalar(-1e30, x)), None))

    def slope(b: Builder, magnitudes: bool) -> str:
        """exp(x) over the sum of exponentials, which is held constant, as their logarithm is."""
        if logarithm:
            return b.scalar(1.0, x)
        if not magnitudes:
            return y
        # What has no share at all, a masked score say, must not take everything once its sign is gone.
        scores = b.where(b.is_positive(y), b.op("Abs", x), x)
        return b.op("Softmax", scores, axis=axis)

    return Linear(
        "normalization",
        (Term(x, Fixed(Map(forward, adjoint), sign=0)),),
        y,
        bias=constant_term,
        frozen=Frozen(slope),
        note="linear around the input",
    )
