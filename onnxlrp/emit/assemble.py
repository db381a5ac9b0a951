"""From a list of new nodes to a model: what is used, where it goes (main graph, If, Loop), and the overlay.

New nodes are appended to a copy of the forward model; its own nodes, names and initializers are not touched.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxlrp.emit.builder import PREFIX, Builder, Emitted
from onnxlrp.emit.inputs import EXPLAIN_INPUT
from onnxlrp.emit.seed import LOOP_INDEX
from onnxlrp.errors import ConversionError
from onnxlrp.graph import surgeon
from onnxlrp.graph.view import Dim


@dataclass(frozen=True)
class Output:
    """A tensor to be returned.

    Attributes:
        name: of the graph output.
        tensor: what it is.
        like: the forward tensor whose shape it has.
        dtype: its element type.
    """

    name: str
    tensor: str
    shape: tuple[Dim, ...] | None
    like: str | None = None
    dtype: int = TensorProto.FLOAT


def used_nodes(nodes: Sequence[Emitted], wanted: Iterable[str]) -> list[Emitted]:
    """The nodes that the wanted tensors depend on, in order."""
    needed = set(wanted)
    kept: list[Emitted] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads)
            kept.append(node)
    return kept[::-1]


def depending_on(nodes: Sequence[Emitted], sources: Iterable[str]) -> set[str]:
    """Tensors that depend on any of `sources`."""
    found = set(sources)
    for node in nodes:
        if found.intersection(node.reads):
            found.update(node.outputs)
    return found


def split(nodes: Sequence[Emitted], inside: set[str]) -> tuple[list[Emitted], list[Emitted]]:
    """(nodes outside, nodes inside), a node being inside when its outputs are in `inside`."""
    outer = [n for n in nodes if not inside.intersection(n.outputs)]
    return outer, [n for n in nodes if inside.intersection(n.outputs)]


def forward_first(nodes: Sequence[Emitted], seeds: Iterable[str], constants: Iterable[str] = ()) -> list[Emitted]:
    """What can be computed without relevance, then the rest, each in the order given.

    Of two inputs of a node onnxruntime computes first what is last in the list. So divisors and the like wait until
    relevance has arrived; otherwise they are all computed in the forward pass, and held until relevance comes by. Of
    what is reduced (variances, the largest score of a row) the opposite is true: it takes less room than what it is
    made of, and comes just before what reads it.
    """
    dependent = depending_on(nodes, seeds)
    large, _ = split(nodes, dependent | _reduced(nodes, constants))
    ordered = {n.name: n for n in used_nodes(nodes, [o for n in large for o in n.outputs])}
    producer = {o: n for n in nodes for o in n.outputs}
    for node in nodes:
        if dependent.intersection(node.outputs):
            for needed in _missing(node, producer, ordered):
                ordered[needed.name] = needed
    return [*ordered.values(), *(n for n in nodes if n.name not in ordered)]


def _missing(node: Emitted, producer: Mapping[str, Emitted], present: Container[str]) -> list[Emitted]:
    """A node behind those that it depends on and that are not present yet, in order."""
    found: dict[str, Emitted] = {}
    pending = [(node, False)]
    while pending:
        latest, is_ready = pending.pop()
        if is_ready:
            found[latest.name] = latest
        elif latest.name not in found and latest.name not in present:
            pending.append((latest, True))
            pending += [(producer[i], False) for i in latest.reads if i in producer]
    return list(found.values())


def _reduced(nodes: Sequence[Emitted], constants: Iterable[str]) -> set[str]:
    """Tensors that are reduced along some axis, and what is made of these and constants alone."""
    found, known = set[str](), {*constants, ""}
    for node in nodes:
        if known.issuperset(node.reads):
            known.update(node.outputs)
        elif node.op.startswith("Reduce") or (known | found).issuperset(node.reads):
            found.update(node.outputs)
    return found


def protos(nodes: Sequence[Emitted]) -> list[onnx.NodeProto]:
    return [surgeon.node_proto(n.op, n.name, n.inputs, n.outputs, n.attributes, n.domain) for n in nodes]


def _type(output: Output, name: str, lead: Sequence[Dim] = ()) -> onnx.ValueInfoProto:
    shape = None if output.shape is None else [*lead, *output.shape]
    return helper.make_tensor_value_info(name, output.dtype, shape)


def loop_over_targets(b: Builder, nodes: Sequence[Emitted], outputs: Sequence[Output], k: int) -> list[onnx.NodeProto]:
    """Runs what depends on the loop counter K times; each output gets an axis 1 of length K behind the batch."""
    inside = depending_on(nodes, [LOOP_INDEX])
    outer, inner = split(nodes, inside)
    collected = [f"{PREFIX}/each/{i}" for i in range(len(outputs))]
    body_outputs = [helper.make_tensor_value_info(f"{PREFIX}/more", TensorProto.BOOL, [])]
    body_nodes = [helper.make_node("Identity", [f"{PREFIX}/always"], [f"{PREFIX}/more"])]
    body_nodes += protos(inner)
    for i, output in enumerate(outputs):
        body_nodes.append(helper.make_node("Identity", [output.tensor], [f"{PREFIX}/one/{i}"]))
        body_outputs.append(_type(output, f"{PREFIX}/one/{i}"))
    body = helper.make_graph(
        body_nodes,
        f"{PREFIX}/each target",
        [
            helper.make_tensor_value_info(LOOP_INDEX, TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{PREFIX}/always", TensorProto.BOOL, []),
        ],
        body_outputs,
    )
    loop = helper.make_node("Loop", [b.constant_int(k), ""], collected, name=f"{PREFIX}/loop", body=body)
    after = []
    for i, output in enumerate(outputs):
        if output.shape is None:
            raise ConversionError("the rank of an explained input is not known, so K maps cannot be stacked")
        perm = [1, 0, *range(2, len(output.shape) + 1)]
        after.append(
            helper.make_node("Transpose", [collected[i]], [output.name], name=f"{PREFIX}/stack/{i}", perm=perm)
        )
    return [*protos(outer), loop, *after]


def stacked(output: Output, k: int) -> Output:
    """The output of a loop over K targets, as the graph declares it."""
    shape = output.shape or ()
    return Output(output.name, output.name, (*shape[:1], k, *shape[1:]), output.like, output.dtype)


def plain(nodes: Sequence[Emitted], outputs: Sequence[Output]) -> list[onnx.NodeProto]:
    """The nodes as they are; the last node of each output takes on its name."""
    rename: dict[str, str] = {}
    extra: list[onnx.NodeProto] = []
    made = {o for n in nodes for o in n.outputs}
    for output in outputs:
        if output.tensor in made and output.tensor not in rename:
            rename[output.tensor] = output.name
        else:
            source = rename.get(output.tensor, output.tensor)
            extra.append(helper.make_node("Identity", [source], [output.name], name=f"{PREFIX}/{output.name}"))
    result = protos(nodes)
    for proto in result:
        for names in (proto.input, proto.output):
            for i, name in enumerate(names):
                if name in rename:
                    names[i] = rename[name]
    return result + extra


def on_demand(
    b: Builder, inner: Sequence[onnx.NodeProto], outputs: Sequence[Output]
) -> tuple[list[onnx.NodeProto], onnx.ValueInfoProto]:
    """Wraps nodes in an If that runs when any element of the input `lrp_explain` [batch, 1] is true."""
    zeros: list[onnx.NodeProto] = []
    branch = [f"{PREFIX}/then/{o.name}" for o in outputs]
    other = [f"{PREFIX}/else/{o.name}" for o in outputs]
    for output, name in zip(outputs, other, strict=True):
        size = _size_source(b, output)
        if isinstance(size, str):
            source = size
        else:
            zeros.extend(size)
            source = size[-1].output[0]
        zero = np.zeros((1,), helper.tensor_dtype_to_np_dtype(output.dtype))
        zeros.append(helper.make_node("ConstantOfShape", [source], [name], value=onnx.numpy_helper.from_array(zero)))
    moved = [onnx.NodeProto() for _ in inner]
    for copy, proto in zip(moved, inner, strict=True):
        copy.CopyFrom(proto)
        for i, name in enumerate(copy.output):
            for output, renamed in zip(outputs, branch, strict=True):
                if name == output.name:
                    copy.output[i] = renamed
        for i, name in enumerate(copy.input):
            for output, renamed in zip(outputs, branch, strict=True):
                if name == output.name:
                    copy.input[i] = renamed
    then_graph = helper.make_graph(
        moved, f"{PREFIX}/explain", [], [_type(o, n) for o, n in zip(outputs, branch, strict=True)]
    )
    else_graph = helper.make_graph(
        zeros, f"{PREFIX}/skip", [], [_type(o, n) for o, n in zip(outputs, other, strict=True)]
    )
    number, any_ = f"{PREFIX}/explain/number", f"{PREFIX}/explain/any"
    return [
        helper.make_node("Cast", [EXPLAIN_INPUT], [number], name=number, to=TensorProto.INT32),
        helper.make_node("ReduceMax", [number], [any_ + "/number"], name=any_ + "/number", keepdims=0),
        helper.make_node("Cast", [any_ + "/number"], [any_], name=any_, to=TensorProto.BOOL),
        helper.make_node(
            "If",
            [any_],
            [o.name for o in outputs],
            name=f"{PREFIX}/explain",
            then_branch=then_graph,
            else_branch=else_graph,
        ),
    ], helper.make_tensor_value_info(EXPLAIN_INPUT, TensorProto.BOOL, ["lrp_batch", 1])


def _size_source(b: Builder, output: Output) -> str | list[onnx.NodeProto]:
    """The shape of an output: a constant where it is static, otherwise nodes that compute it."""
    shape = output.shape
    if shape is not None and all(isinstance(d, int) for d in shape):
        return b.integers([d for d in shape if isinstance(d, int)])
    if output.like is None:
        raise ConversionError(f"the shape of {output.name} is not known")
    stem = f"{PREFIX}/else/{output.name}/shape"
    nodes = [helper.make_node("Shape", [output.like], [stem])]
    like_rank = b.graph.rank(output.like)
    if shape is not None and like_rank is not None and len(shape) == like_rank + 1 and isinstance(shape[1], int):
        count = b.integers([shape[1]])
        first, rest = b.integers([0]), b.integers([1])
        nodes += [
            helper.make_node("Slice", [stem, first, rest], [stem + "/batch"]),
            helper.make_node("Slice", [stem, rest, b.integers([2**62])], [stem + "/rest"]),
            helper.make_node("Concat", [stem + "/batch", count, stem + "/rest"], [stem + "/all"], axis=0),
        ]
    return nodes


def overlay(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    values: Sequence[onnx.ValueInfoProto] = (),
) -> None:
    """Appends to the model, in place, the new nodes, those constants that they use, inputs, outputs and value infos.

    In place, because a copy would hold all the weights a second time.
    """
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants[name] for name in sorted(_constants_used(nodes) & set(constants)))
    model.graph.input.extend(inputs)
    model.graph.output.extend(outputs)
    made = {o for node in nodes for o in node.output} - {v.name for v in outputs}
    model.graph.value_info.extend(v for v in values if v.name in made)


def _constants_used(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    used: set[str] = set()
    for node in nodes:
        used.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                used |= _constants_used(attribute.g.node)
    return used
