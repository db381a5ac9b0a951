"""A read-only view of an ONNX graph: nodes in topological order, who makes and who reads each tensor.

The view reads the ModelProto itself and keeps everything by name. (graphsurgeon's import drops or rejects some
attributes; it is used for building the new nodes, see `surgeon.py`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx
from onnx import TensorProto, helper

#: A dimension is a number, a symbol (equal symbols are equal sizes), or None when nothing is known.
Dim = int | str | None
Shape = tuple[Dim, ...]

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
WHOLE_TYPES = frozenset(
    {
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    }
)


def shape_text(shape: Sequence[Dim]) -> str:
    """A shape as messages show it."""
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


@dataclass(frozen=True)
class TensorInfo:
    """Element type (a TensorProto number, 0 if unknown) and shape (None if even the rank is unknown)."""

    dtype: int = 0
    shape: Shape | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """One node, with its attributes as Python values."""

    index: int
    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)
    origin: Node | None = field(default=None, repr=False)
    """The node of the model that this one was made from, where a composite operator was taken apart."""
    within: str = ""
    """What the names of all nodes of this subgraph begin with."""

    @property
    def title(self) -> str:
        """Its name without what tells it apart from others in the emitted model: as people know it."""
        return self.name.removeprefix(self.within).removeprefix("lrp/of/")

    def input(self, position: int) -> str:
        """Name of the input at `position`, or "" where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    @property
    def label(self) -> str:
        """The node as messages name it: as it stands in the model."""
        if self.origin is not None:
            return self.origin.label
        domain = f"{self.domain}." if self.domain else ""
        return f"{self.title} ({domain}{self.op})"

    @property
    def ancestors(self) -> tuple[Node, ...]:
        """The nodes that this one was made from, the nearest first."""
        return () if self.origin is None else (self.origin, *self.origin.ancestors)


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a Python value."""
    value = helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [item.decode("utf-8", "replace") for item in value]
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value


def _read_node(index: int, proto: onnx.NodeProto, origin: Node | None, within: str) -> Node:
    return Node(
        index,
        proto.name or f"{proto.op_type}_{index}",
        proto.op_type,
        "" if proto.domain == "ai.onnx" else proto.domain,
        tuple(proto.input),
        tuple(proto.output),
        {a.name: attribute_value(a) for a in proto.attribute if not a.ref_attr_name},
        origin,
        within,
    )


def _info(kind: onnx.TypeProto) -> TensorInfo:
    if not kind.HasField("tensor_type"):
        return TensorInfo()
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return TensorInfo(tensor.elem_type, None)
    return TensorInfo(tensor.elem_type, tuple(map(dimension, tensor.shape.dim)))


def dimension(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """An int where it is known, a name where it is symbolic, None where it is unknown."""
    # Some exporters write -1 for a dimension that is free; onnxruntime reads it so.
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None


class Graph:
    """The main graph of a model, as it stands or with other nodes in place of some of its own.

    Args:
        model: the forward pass; read, never changed.
        inferred: types of tensors by name, for those that the model itself says nothing of.
        nodes: the nodes to read in place of the model's own.
        constants: initializers in addition to the model's own.
        origins: for nodes that were made from others, by name.
        within: what the names of all nodes begin with, in a subgraph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        inferred: Mapping[str, onnx.TypeProto] | None = None,
        nodes: Sequence[onnx.NodeProto] | None = None,
        constants: Sequence[onnx.TensorProto] = (),
        origins: Mapping[str, Node] | None = None,
        within: str = "",
    ) -> None:
        self.proto = model
        self.within = within
        graph = model.graph
        self.node_protos: Sequence[onnx.NodeProto] = graph.node if nodes is None else nodes
        self.initializers: Mapping[str, onnx.TensorProto] = {t.name: t for t in (*graph.initializer, *constants)}
        self.sparse_initializers = frozenset(t.values.name for t in graph.sparse_initializer)
        self.types: Mapping[str, onnx.TypeProto] = inferred or {}
        known = origins or {}
        self.nodes: tuple[Node, ...] = tuple(
            _read_node(i, proto, known.get(proto.name), within) for i, proto in enumerate(self.node_protos)
        )
        self.producer: dict[str, Node] = {o: n for n in self.nodes for o in n.outputs if o}
        self.inputs: tuple[str, ...] = tuple(
            v.name for v in graph.input if v.name not in self.initializers and v.name not in self.sparse_initializers
        )
        self.outputs: tuple[str, ...] = tuple(v.name for v in graph.output)
        self._info: dict[str, TensorInfo] = {}
        for value in (*graph.value_info, *graph.output, *graph.input):
            self._info[value.name] = _info(value.type)
        for name, kind in self.types.items():
            self._info[name] = _info(kind)
        for tensor in self.initializers.values():
            self._info[tensor.name] = TensorInfo(tensor.data_type, tuple(tensor.dims))
        for name in self.sparse_initializers:
            sparse = next(t for t in graph.sparse_initializer if t.values.name == name)
            self._info[name] = TensorInfo(sparse.values.data_type, tuple(sparse.dims))
        self.opset: int = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Readers of each tensor, also those whose subgraphs capture it; a node that reads twice stands once."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in reads(node):
                readers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    def value_readers(self, tensor: str) -> tuple[Node, ...]:
        """Who reads the values of a tensor, and not only its shape."""
        return tuple(n for n in self.consumers.get(tensor, ()) if n.domain or n.op not in ("Shape", "Size"))

    def info(self, tensor: str) -> TensorInfo:
        return self._info.get(tensor, TensorInfo())

    def shape(self, tensor: str) -> Shape | None:
        return self.info(tensor).shape

    def dtype(self, tensor: str) -> int:
        return self.info(tensor).dtype

    def is_float(self, tensor: str) -> bool:
        return self.dtype(tensor) in FLOAT_TYPES

    def rank(self, tensor: str) -> int | None:
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def static_shape(self, tensor: str) -> tuple[int, ...] | None:
        """The shape when every dimension is a number, otherwise None."""
        shape = self.shape(tensor)
        if shape is None:
            return None
        numbers = tuple(d for d in shape if isinstance(d, int))
        return numbers if len(numbers) == len(shape) else None

    def exists(self, tensor: str) -> bool:
        return tensor in self.producer or tensor in self.inputs or tensor in self.initializers


def reads(node: Node) -> tuple[str, ...]:
    """What a node reads, each tensor once: its inputs, and what its subgraphs take from the graph around it."""
    bodies = (value for value in node.attributes.values() if isinstance(value, onnx.GraphProto))
    captured = (name for body in bodies for name in sorted(captured_names(body)))
    return tuple(dict.fromkeys(name for name in (*node.inputs, *captured) if name))


def proto_reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads: its inputs, and what its subgraphs take from the graph around it."""
    names = {i for i in node.input if i}
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            names |= captured_names(attribute.g)
    return names


def graph_names(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """All names of tensors and all names of nodes in a graph, subgraphs included."""
    tensors = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    tensors |= {t.values.name for t in graph.sparse_initializer}
    nodes: set[str] = set()
    for node in graph.node:
        nodes.add(node.name)
        tensors.update(node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner_tensors, inner_nodes = graph_names(attribute.g)
                tensors |= inner_tensors
                nodes |= inner_nodes
    return tensors, nodes


def captured_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a subgraph takes from the graph around it."""
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    own |= {o for node in graph.node for o in node.output}
    used = {v.name for v in graph.output}
    for node in graph.node:
        used.update(i for i in node.input if i)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                used |= captured_names(attribute.g)
    return used - own
