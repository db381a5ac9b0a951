"""About the least that a relevance pass can cost: the forward pass and one transposed pass without masks or divisions.

It is the table `gradient-x-input` with its masks taken out. What it computes means nothing. Max pooling back, sums and
changes of layout are still in it, as they are emitted, so that it is a bound for this way of emitting only.
"""

from __future__ import annotations

from pathlib import Path

import onnx

#: Stands where a rule table is asked for.
BOUND = "bound"
#: The table that it is made of.
SOURCE = "gradient-x-input"


def strip(path: Path) -> None:
    """Takes the masks out of a model converted with `SOURCE`, in place."""
    model = onnx.load(path)
    graph = model.graph
    masks = {
        o for node in graph.node if node.op_type == "HardSigmoid" and node.name.startswith("lrp/") for o in node.output
    }
    instead: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = instead.get(name, name)
        rest = [name for name in node.input if name not in masks]
        if node.op_type == "Mul" and len(rest) == 1:
            instead[node.output[0]] = rest[0]
        else:
            kept.append(node)
    needed = {output.name for output in graph.output}
    used = []
    for node in reversed(kept):
        if needed.intersection(node.output):
            needed.update(node.input)
            used.append(node)
    del graph.node[:]
    graph.node.extend(reversed(used))
    onnx.save(model, path)
