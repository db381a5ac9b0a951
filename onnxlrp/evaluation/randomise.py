"""A model with the parameters of its last layers permuted at random, for sanity checks of explanations.

An explanation that stays the same when the weights are no longer those that were learnt does not explain the model
(Adebayo et al. 2018, "Sanity checks for saliency maps"). Parameters are permuted within each tensor: their
distribution, and so the scale of what the layers compute, stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxlrp.errors import UsageError
from onnxlrp.read import external, structure
from onnxlrp.read.inline import inline


@dataclass(frozen=True)
class _Places:
    """The inputs of an operator that hold its parameters."""

    weights: tuple[int, ...]
    biases: tuple[int, ...] = ()


_PLACES: Mapping[str, _Places] = {
    "Conv": _Places((1,), (2,)),
    "com.microsoft.FusedConv": _Places((1,), (2,)),
    "ConvTranspose": _Places((1,), (2,)),
    "DeformConv": _Places((1,), (3,)),
    "ConvInteger": _Places((1,)),
    "QLinearConv": _Places((3,), (8,)),
    "Gemm": _Places((0, 1), (2,)),
    "com.microsoft.FusedGemm": _Places((0, 1), (2,)),
    "com.microsoft.QGemm": _Places((3,), (6,)),
    "MatMul": _Places((0, 1)),
    "com.microsoft.FusedMatMul": _Places((0, 1)),
    "MatMulInteger": _Places((0, 1)),
    "QLinearMatMul": _Places((0, 3)),
    "com.microsoft.DynamicQuantizeMatMul": _Places((1,), (4,)),
    "com.microsoft.MatMulIntegerToFloat": _Places((1,), (6,)),
    "com.microsoft.MatMulNBits": _Places((1,)),
    "LSTM": _Places((1, 2), (3,)),
    "GRU": _Places((1, 2), (3,)),
    "RNN": _Places((1, 2), (3,)),
    "com.microsoft.Attention": _Places((1,), (2,)),
    "Gather": _Places((0,)),
}
#: Types that hold indices and shapes, never weights.
_NOT_WEIGHTS = frozenset({TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING})
_CHANCE = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"})


@dataclass
class _Layer:
    """The parameters that are permuted together, as positions in `_Constants.tensors`."""

    weights: list[int]
    biases: list[int] = field(default_factory=list)


def weighted_layers(
    model: onnx.ModelProto, folders: tuple[Path, ...] = (), outputs: Collection[str] | None = None
) -> int:
    """How many layers `randomise` can permute; the arguments are the same."""
    del folders  # counting reads no values
    copy = _own(model)
    return len(_layers(copy, _Constants(), outputs))


def randomise(
    model: onnx.ModelProto,
    layers: int,
    seed: int,
    folders: tuple[Path, ...] = (),
    outputs: Collection[str] | None = None,
) -> onnx.ModelProto:
    """A copy of `model` in which the parameters of its last `layers` weighted layers are permuted.

    Weighted layers are convolutions, Gemm, MatMul with a constant, recurrent layers and tables of embeddings (Gather
    from a constant of two or more axes), in subgraphs too. They are counted from the output back, in the reverse of
    an order of computation. A layer has its weights and biases, an Add of a constant right after it included. A
    weight that several layers share counts once, with the layer that comes last. A weight that is computed from
    constants (transposed, converted from 8 bits) is permuted where it is stored. Scales and shifts of normalisations
    stay as they are.

    The permutation of a layer depends on the seed and on its number from the output back, not on `layers`: with one
    layer more, the others stay as they were.

    Args:
        model: left alone. With model-local functions, the copy has their bodies in place of the calls.
        layers: 0 to `weighted_layers(model)`.
        seed: of the permutations, not negative.
        folders: where external data lies, as `Source.data_folders`. What is permuted comes into the copy, the rest
            stays outside, so a copy that is written to a file belongs into the same folder.
        outputs: only layers that these tensors depend on; the model's outputs when None.

    Raises:
        UsageError: the model has fewer layers.
        ModelReadError: external data cannot be read.
    """
    copy = _own(model)
    constants = _Constants()
    found = _layers(copy, constants, outputs)
    if not 0 <= layers <= len(found):
        raise UsageError(
            f"cannot randomise {layers} layers: the model has {len(found)} weighted layers; ask for 0 to {len(found)}"
        )
    for number, layer in enumerate(found[:layers]):
        generator = np.random.default_rng([seed, number])
        for index in (*layer.weights, *layer.biases):
            _permute(constants.tensors[index], generator, folders)
    return copy


def _own(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(inline(model) if model.functions else model)
    structure.sort(copy.graph)
    return copy


def _permute(tensor: TensorProto, generator: np.random.Generator, folders: tuple[Path, ...]) -> None:
    values = external.values(tensor, folders)
    order = generator.permutation(values.size)
    permuted = numpy_helper.from_array(values.reshape(-1)[order].reshape(values.shape), tensor.name)
    tensor.CopyFrom(permuted)


class _Constants:
    """The tensors that hold constants and, by name, which of them a constant value is computed from."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []

    def add(self, tensor: TensorProto) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def weight(self, tensor: int) -> bool:
        return self.tensors[tensor].data_type not in _NOT_WEIGHTS

    def size(self, tensor: int) -> int:
        return math.prod(self.tensors[tensor].dims)

    def axes(self, tensor: int) -> int:
        return len(self.tensors[tensor].dims)

    def main(self, candidates: list[int]) -> int:
        """The tensor that holds the values of what is computed from several: the others are scales and shapes."""
        return max(candidates, key=lambda one: (self.weight(one), self.size(one), -one))


#: The stored constant that each constant value comes from, by the value's name.
_Known = dict[str, int]


def _layers(model: onnx.ModelProto, constants: _Constants, outputs: Collection[str] | None) -> list[_Layer]:
    """From the output back, each stored weight once."""
    graph = model.graph
    wanted = _needed(graph, [value.name for value in graph.output] if outputs is None else outputs)
    result: list[_Layer] = []
    owner: dict[int, _Layer] = {}
    taken: set[int] = set()
    for layer in reversed(list(_walk(graph, {}, constants, wanted))):
        fresh = [index for index in layer.weights if index not in taken]
        # The bias of a layer whose weights are all another's goes with that one.
        home = _Layer(fresh) if fresh else owner[layer.weights[0]]
        if fresh:
            result.append(home)
        home.biases += [index for index in layer.biases if index not in taken]
        taken.update(layer.weights, layer.biases)
        for index in layer.weights:
            owner.setdefault(index, home)
    return result


def _needed(graph: onnx.GraphProto, outputs: Collection[str]) -> set[str]:
    """Names of all tensors that `outputs` depend on. `graph` is in an order of computation."""
    needed = set(outputs)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed |= structure.uses(node)
    return needed


def _walk(
    graph: onnx.GraphProto, outer: Mapping[str, int], constants: _Constants, wanted: set[str] | None
) -> Iterator[_Layer]:
    """The weighted layers of a graph in an order of computation; those of `wanted` outputs, or all when None."""
    known: _Known = dict(outer)
    known.update((tensor.name, constants.add(tensor)) for tensor in graph.initializer)
    known.update((sparse.values.name, constants.add(sparse.values)) for sparse in graph.sparse_initializer)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        _note_constant(node, known, constants)
        for name in set(node.input):
            users.setdefault(name, []).append(node)
    for node in graph.node:
        if wanted is not None and not wanted.intersection(node.output):
            continue
        if (layer := _layer(node, known, constants, users)) is not None:
            yield layer
        for body in structure.subgraphs(node):
            yield from _walk(body, {**known, **_kept_states(node, body, known)}, constants, None)


def _kept_states(node: onnx.NodeProto, body: onnx.GraphProto, known: _Known) -> dict[str, int]:
    """Constants that a Loop hands from one iteration to the next as they are, by their name in the body.

    That is how TensorFlow's recurrent layers hand their weights in.
    """
    if node.op_type != "Loop":
        return {}
    copies = {one.output[0]: one.input[0] for one in body.node if one.op_type == "Identity"}

    def origin(name: str) -> str:
        while name in copies:
            name = copies[name]
        return name

    states = zip(node.input[2:], body.input[2:], body.output[1:], strict=False)
    return {
        inside.name: known[name]
        for name, inside, after in states
        if name in known and origin(after.name) == inside.name
    }


def _note_constant(node: onnx.NodeProto, known: _Known, constants: _Constants) -> None:
    """Enters the outputs of a node that computes from constants alone."""
    inputs = [name for name in node.input if name]
    if node.op_type == "Constant":
        known.update((name, constants.add(_value(node))) for name in node.output)
        return
    computed = node.op_type not in _CHANCE and next(structure.subgraphs(node), None) is None
    if computed and inputs and all(name in known for name in inputs):
        source = constants.main([known[name] for name in inputs])
        known.update((name, source) for name in node.output if name)


def _value(node: onnx.NodeProto) -> TensorProto:
    """The tensor in a Constant node, in place; numbers in a list become one."""
    attribute = node.attribute[0]
    if attribute.name == "value_floats":
        values = numpy_helper.from_array(np.asarray(attribute.floats, np.float32))
        attribute.CopyFrom(helper.make_attribute("value", values))
    # Single numbers, integers and texts are no weights: an empty tensor of integers stands for them.
    none = TensorProto(data_type=TensorProto.INT64, dims=[0])
    held: Mapping[str, TensorProto] = {"value": attribute.t, "sparse_value": attribute.sparse_tensor.values}
    return held.get(attribute.name, none)


def _layer(
    node: onnx.NodeProto, known: _Known, constants: _Constants, users: Mapping[str, list[onnx.NodeProto]]
) -> _Layer | None:
    places = _PLACES.get(f"{node.domain}.{node.op_type}".removeprefix("ai.onnx.").removeprefix("."))
    if places is None or all(name in known for name in node.input if name):
        return None
    weights = _stored(node, places.weights, known, constants)
    if node.op_type == "Gather":
        weights = [index for index in weights if constants.axes(index) > 1]
    if not weights:
        return None
    biases = _stored(node, places.biases, known, constants)
    return _Layer(weights, biases or _added(node, known, constants, users))


def _stored(node: onnx.NodeProto, places: tuple[int, ...], known: _Known, constants: _Constants) -> list[int]:
    names = [node.input[place] for place in places if place < len(node.input)]
    found = dict.fromkeys(known[name] for name in names if name in known)
    return [index for index in found if constants.weight(index)]


def _added(
    node: onnx.NodeProto, known: _Known, constants: _Constants, users: Mapping[str, list[onnx.NodeProto]]
) -> list[int]:
    """The constant that an Add puts on top, where nothing else uses the layer's output."""
    readers = users.get(node.output[0], [])
    if node.op_type == "Gather" or len(readers) != 1 or readers[0].op_type != "Add":
        return []
    found = _stored(readers[0], (0, 1), known, constants)
    return [index for index in found if constants.size(index) == max(constants.tensors[index].dims, default=1)]
