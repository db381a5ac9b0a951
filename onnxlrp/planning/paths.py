"""Which tensors lie between the explained inputs and the target, and where on the way each node stands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from onnxlrp.graph.view import Graph, Node, reads
from onnxlrp.operators.registry import find


def data_inputs(node: Node) -> tuple[str, ...]:
    """The inputs through which a node can hand relevance back; all of them for an operator that is not known."""
    entry = find(node)
    if entry is None or entry.data is None:
        return reads(node)
    return tuple(node.inputs[p] for p in entry.data if p < len(node.inputs) and node.inputs[p])


def data_outputs(node: Node, graph: Graph) -> tuple[str, ...]:
    """The outputs from which relevance can come: floats, and integers that stand for real numbers."""
    entry = find(node)
    if entry is not None and entry.codes:
        return tuple(node.outputs[p] for p in entry.codes if p < len(node.outputs))
    return tuple(o for o in node.outputs if o and (graph.is_float(o) or not graph.dtype(o)))


class Paths:
    """Float paths from explained inputs to the target tensors."""

    def __init__(self, graph: Graph, explained: Sequence[str], targets: Sequence[str]) -> None:
        self.graph, self.targets, self.explained = graph, tuple(targets), frozenset(explained)
        #: Tensors that depend on an explained input through data inputs and floats alone.
        self.forward: set[str] = set(explained)
        for node in graph.nodes:
            entry = find(node)
            if entry is not None and entry.kind == "stop":
                continue
            if any(i in self.forward for i in data_inputs(node)):
                self.forward.update(data_outputs(node, graph))
        #: Those of them that the target depends on.
        self.between: set[str] = set(targets) & self.forward
        for node in reversed(graph.nodes):
            if any(o in self.between for o in node.outputs):
                self.between.update(i for i in data_inputs(node) if i in self.forward)

    def reaches(self, explained: str) -> bool:
        """Whether the target depends on that input."""
        return explained in self.between

    def _on_way(self, node: Node) -> list[str]:
        return [i for i in data_inputs(node) if i in self.between]

    @cached_property
    def _is_layer(self) -> dict[int, bool]:
        found = {}
        for node in self.graph.nodes:
            entry = find(node)
            data = self._on_way(node)
            layer = entry is not None and entry.kind == "linear" and len(data) == 1
            found[node.index] = layer and any(o in self.between for o in node.outputs)
        return found

    @cached_property
    def _layer_before(self) -> set[str]:
        """Tensors with a weighted layer somewhere between them and an explained input."""
        tensors: set[str] = set()
        for node in self.graph.nodes:
            if self._is_layer[node.index] or any(i in tensors for i in self._on_way(node)):
                tensors.update(node.outputs)
        return tensors

    @cached_property
    def _layer_after(self) -> set[str]:
        """Tensors with a weighted layer somewhere between them and the target."""
        tensors: set[str] = set()
        for node in reversed(self.graph.nodes):
            if not any(o in self.between for o in node.outputs):
                continue
            if self._is_layer[node.index] or any(o in tensors for o in node.outputs):
                tensors.update(self._on_way(node))
        return tensors

    def is_first(self, node: Node) -> bool:
        """Whether no weighted layer stands between the explained inputs and this node."""
        return not any(i in self._layer_before for i in self._on_way(node))

    def is_last(self, node: Node) -> bool:
        """Whether no weighted layer stands between this node and the target."""
        return not any(o in self._layer_after for o in node.outputs)

    @cached_property
    def _inner_layer_after(self) -> set[str]:
        """Tensors with a weighted layer that is not the last one somewhere between them and the target."""
        tensors: set[str] = set()
        for node in reversed(self.graph.nodes):
            inner = self._is_layer[node.index] and not self.is_last(node)
            if inner or any(o in tensors for o in node.outputs):
                tensors.update(self._on_way(node))
        return tensors

    def is_in_head(self, node: Node) -> bool:
        """Whether at most the last weighted layer stands between this node and the target."""
        return not any(o in self._inner_layer_after for o in node.outputs)

    @cached_property
    def _steps_from_input(self) -> dict[str, int]:
        steps: dict[str, int] = {}
        for node in self.graph.nodes:
            data = self._on_way(node)
            if data:
                count = 1 + max(steps.get(i, 0) for i in data)
                steps.update(dict.fromkeys(node.outputs, count))
        return steps

    @cached_property
    def _steps_to_target(self) -> dict[str, int]:
        steps: dict[str, int] = dict.fromkeys(self.targets, 0)
        for node in reversed(self.graph.nodes):
            known = [steps[o] for o in node.outputs if o in steps]
            if known:
                for i in self._on_way(node):
                    steps[i] = max(steps.get(i, 0), 1 + max(known))
        return steps

    def depth(self, node: Node) -> float:
        """How far along the way from input (0) to target (1) a node stands, counted in nodes."""
        before = max((self._steps_from_input.get(i, 0) for i in self._on_way(node)), default=0)
        after = max((self._steps_to_target.get(o, 0) for o in node.outputs), default=0)
        return before / (before + after) if before + after else 0.0

    def ends(self) -> tuple[Node, ...]:
        """Nodes behind the target at which relevance ends: they read what depends on an input and hand nothing back.

        Shapes and sizes are left out: they say nothing of values.
        """
        needed = set(self.targets)
        found: list[Node] = []
        for node in reversed(self.graph.nodes):
            if not needed.intersection(node.outputs):
                continue
            needed.update(i for i in node.inputs if i)
            entry = find(node)
            silent = entry is not None and entry.kind == "stop" and node.op not in ("Shape", "Size")
            if silent and any(i in self.forward for i in node.inputs):
                found.append(node)
        return tuple(found)
