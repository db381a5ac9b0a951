"""Losses, which some training exports keep at the end of the network: logarithms picked by their labels."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation


def _picked(at: Situation, b: Builder, logarithms: str) -> str:
    """The negative logarithm at each label, weighted, and reduced as the node says.

    Args:
        logarithms: [batch, classes, ...]; the labels are [batch, ...].
    """
    node, labels, weights = at.node, at.node.inputs[1], at.node.input(2)
    ignored = node.attribute("ignore_index")
    axis = b.integers([1])
    counts = ""
    if ignored is not None:
        kept = b.op("Not", b.op("Equal", labels, b.full((), ignored, labels)))
        counts = b.op("Cast", kept, to=b.dtype(logarithms))
        labels = b.where(kept, labels, b.full((), 0, labels))
    at_label = b.op("GatherElements", logarithms, b.op("Unsqueeze", labels, axis), axis=1)
    loss = b.op("Neg", b.op("Squeeze", at_label, axis))
    if weights:
        each = b.op("Gather", weights, labels, axis=0)
        counts = b.mul(each, counts) if counts else each
    loss = b.mul(loss, counts) if counts else loss
    reduction = node.attribute("reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "mean" and not counts:
        return b.op("ReduceMean", loss, keepdims=0)
    total = b.op("ReduceSum", loss, keepdims=0)
    return b.div(total, b.op("ReduceSum", counts, keepdims=0)) if reduction == "mean" else total


@lowers("NegativeLogLikelihoodLoss", treatment="taken apart: the element at each label, and their mean or sum")
def negative_log_likelihood(at: Situation, b: Builder) -> Sequence[str]:
    """-x at the label."""
    return (_picked(at, b, at.node.inputs[0]),)


@lowers(
    "SoftmaxCrossEntropyLoss",
    treatment="taken apart: logarithms of probabilities, the element at each label, mean or sum",
)
def softmax_cross_entropy(at: Situation, b: Builder) -> Sequence[str]:
    """The loss, and the logarithms of the probabilities."""
    x = at.node.inputs[0]
    # Not as LogSoftmax, which would be taken for a head where the logarithms are the output that is explained.
    logarithms = b.sub(x, b.op("ReduceLogSumExp", x, b.integers([1]), keepdims=1))
    return (_picked(at, b, logarithms), logarithms)
