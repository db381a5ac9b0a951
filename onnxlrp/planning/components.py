"""Which parts of a transformer have relevance of their own to show: heads, and neurons of feed-forward layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxlrp.errors import UsageError
from onnxlrp.operators.behaviour import Product
from onnxlrp.planning.program import Program
from onnxlrp.understand.blocks import ATTENTION, FEED_FORWARD, GATED, Block

HEADS, NEURONS = "heads", "neurons"
KINDS = (HEADS, NEURONS)


@dataclass(frozen=True)
class Component:
    """One layer's heads or neurons.

    Attributes:
        name: `heads_0`, `neurons_0`, ..., counted from the input on; its output is `<name>_relevance`.
        kind: HEADS or NEURONS.
        tensor: of heads the attention weights [batch, heads, query, key], of neurons the tensor that the last matrix
            of the layer reads; the output has its shape.
        mixed: of heads the product of the weights with the values.
    """

    name: str
    kind: str
    tensor: str
    mixed: str = ""


def find_components(kinds: Sequence[str], blocks: Sequence[Block], programs: Sequence[Program]) -> list[Component]:
    """Those of the kinds that are asked for, in the order of the graph.

    Raises:
        UsageError: a kind is unknown, or the model has none of it on the way of relevance.
    """
    found: list[Component] = []
    for kind in dict.fromkeys(kinds):
        if kind not in KINDS:
            raise UsageError(f"components {kind!r} are none of {', '.join(KINDS)}")
        here = _heads(blocks, programs) if kind == HEADS else _neurons(blocks, programs)
        if not here:
            what = "attention whose weights" if kind == HEADS else "feed-forward layer whose neurons"
            raise UsageError(
                f"the model has no {what} get relevance from this target; 'onnxlrp plan' shows the blocks that are"
                " found, and --relevance-of names any other tensor"
            )
        found += here
    return found


def _heads(blocks: Sequence[Block], programs: Sequence[Program]) -> list[Component]:
    products = _products(programs)
    mixed = [(b.tensors["weights"], b.tensors["mixed"]) for b in blocks if b.name == ATTENTION]
    reached = [(weights, y) for weights, y in mixed if y in products and weights in products[y].data]
    return [Component(f"{HEADS}_{i}", HEADS, weights, y) for i, (weights, y) in enumerate(reached)]


def _products(programs: Sequence[Program]) -> Mapping[str, Product]:
    steps = (step for program in programs for step in program.steps)
    return {step.behaviour.y: step.behaviour for step in steps if isinstance(step.behaviour, Product)}


def _neurons(blocks: Sequence[Block], programs: Sequence[Program]) -> list[Component]:
    received = {x for program in programs for step in program.steps for x in step.receivers}
    read = [b.tensors["neurons"] for b in blocks if b.name in (FEED_FORWARD, GATED)]
    reached = [tensor for tensor in read if tensor in received]
    return [Component(f"{NEURONS}_{i}", NEURONS, tensor) for i, tensor in enumerate(reached)]
