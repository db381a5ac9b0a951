"""BatchNormalizations in front of a Relu, read behind it, where the layers that follow can take them.

relu(k x + c) = k u + c with t = -c/k and u = max(x, t) where k > 0, u = min(x, t) where k < 0: the Relu becomes a
threshold on what the BatchNormalization reads, and the BatchNormalization stands next to the layer behind, which it is
merged into. (Guillemot et al. 2020 for the merging; the threshold is known from A. Binder's LRP of DenseNets.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnxlrp.emit.builder import NARROW_TYPES, Builder
from onnxlrp.graph.surgeon import node_proto
from onnxlrp.graph.view import Graph, Node
from onnxlrp.operators.normalization import batch_norm_factors, channel_shape
from onnxlrp.operators.registry import DECLARED
from onnxlrp.understand.facts import Facts
from onnxlrp.understand.regions import is_layer, takes_scale

THRESHOLD = "Threshold"


def behind_threshold(node: Node, graph: Graph, facts: Facts, b: Builder) -> list[onnx.NodeProto] | None:
    """The nodes to read in place of a Relu: the threshold and the BatchNormalization; None where it stays as it is.

    What the threshold makes is left in `b` as nodes that compute it.
    """
    norm = _norm_before(node, graph, facts)
    if norm is None or not _is_wanted(node, norm, graph, facts):
        return None
    x, y = norm.inputs[0], node.outputs[0]
    k, c = batch_norm_factors(b, norm.inputs, norm.attribute("epsilon", 1e-5))
    limit = channel_shape(b, b.op("Neg", b.div(c, k)), graph.rank(x) or 2)
    u = b.where(b.is_positive(y), x, limit)
    threshold = node_proto(THRESHOLD, f"{node.name}/threshold", [x], [u], {}, DECLARED)
    moved = node_proto("BatchNormalization", f"{norm.name}/moved", [u, *norm.inputs[1:]], [y], norm.attributes)
    return [threshold, moved]


def _norm_before(node: Node, graph: Graph, facts: Facts) -> Node | None:
    """The BatchNormalization in front of a Relu, with constants and in inference mode, that nothing else reads."""
    if node.op != "Relu" or node.domain:
        return None
    norm = graph.producer.get(node.inputs[0])
    if norm is None or norm.op != "BatchNormalization" or norm.domain or norm.attribute("training_mode", 0):
        return None
    alone = len(graph.value_readers(norm.outputs[0])) == 1 and norm.outputs[0] not in graph.outputs
    return norm if alone and all(facts.is_constant(i) for i in norm.inputs[1:5]) else None


def _is_wanted(node: Node, norm: Node, graph: Graph, facts: Facts) -> bool:
    """Whether no layer in front takes the BatchNormalization, all behind can, and no channel is scaled by zero."""
    before, readers = graph.producer.get(norm.inputs[0]), graph.value_readers(node.outputs[0])
    if before is not None and is_layer(before, facts) and len(graph.value_readers(norm.inputs[0])) == 1:
        return False
    narrow = graph.dtype(norm.inputs[0]) in NARROW_TYPES
    if narrow or graph.rank(norm.inputs[0]) is None or not readers or node.outputs[0] in graph.outputs:
        return False
    scale = facts.value(norm.inputs[1])
    return _all_take(readers, node.outputs[0], graph, facts) and scale is not None and bool(np.all(scale != 0))


def _all_take(readers: Sequence[Node], y: str, graph: Graph, facts: Facts) -> bool:
    return all(r.inputs[0] == y and is_layer(r, facts) and takes_scale(r, graph) for r in readers)
