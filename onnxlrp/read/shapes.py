"""Types and shapes of all tensors of a model, from shape inference on its skeleton."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import onnx
from onnx import TensorProto, helper, shape_inference

from onnxlrp.graph.view import Dim, dimension
from onnxlrp.read import skeleton
from onnxlrp.read.external import byte_size, is_external
from onnxlrp.read.structure import import_domains, subgraphs

_SMALL = 4096


def dims(kind: onnx.TypeProto | None) -> tuple[Dim, ...] | None:
    """The shape in a tensor type: an int where it is known, a name where it is symbolic, None where it is
    unknown.

    None altogether where not even the rank is known, or where it is no tensor.
    """
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(map(dimension, kind.tensor_type.shape.dim))


def infer(
    model: onnx.ModelProto, read: Callable[[TensorProto], TensorProto] | None = None
) -> dict[str, onnx.TypeProto]:
    """Type and shape of each tensor of `model`, by name; a tensor of which nothing is known is missing.

    They follow from the graph inputs. What the model itself records of inner tensors and outputs may be left
    over from an older input shape; it fills gaps only as far as nothing in it contradicts what follows from
    the inputs. Names that are used for different tensors in several subgraphs are left out. `model` is left
    alone.

    read: gives an external tensor its values; used for small integer tensors, which may hold shapes.
    """
    light = skeleton.strip(model).light
    if read is not None:
        for tensor in light.graph.initializer:
            if is_external(tensor) and _may_hold_a_shape(tensor):
                tensor.CopyFrom(read(tensor))
    import_domains(light)
    for value in light.graph.input:
        _name_free_dims(value)
    _state_defaults(light.graph)
    recorded = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    _forget(light.graph)
    inferred = _run(light)
    believable = _believable(recorded, inferred, light.graph.input)
    if believable:
        _remember(light.graph, believable)
        inferred = _run(light)
    return inferred


def _may_hold_a_shape(tensor: TensorProto) -> bool:
    kinds = (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT)
    return tensor.data_type in kinds and byte_size(tensor) <= _SMALL


def _name_free_dims(value: onnx.ValueInfoProto) -> None:
    """Each dimension of an input that has neither a size nor a name gets one, so that it is known where it
    reappears.
    """
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if not isinstance(dimension(dim), int | str):
            dim.dim_param = f"{value.name}[{axis}]"


def _state_defaults(graph: onnx.GraphProto) -> None:
    """Shape inference takes an STFT that does not say so for a two-sided one; the standard says one-sided."""
    for node in graph.node:
        if node.op_type == "STFT" and all(a.name != "onesided" for a in node.attribute):
            node.attribute.append(helper.make_attribute("onesided", 1))
        for body in subgraphs(node):
            _state_defaults(body)


def _forget(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for value in graph.output:
        value.type.Clear()


def _remember(graph: onnx.GraphProto, values: Mapping[str, onnx.TypeProto]) -> None:
    outputs = {value.name: value for value in graph.output}
    for name, kind in values.items():
        (outputs[name] if name in outputs else graph.value_info.add(name=name)).type.CopyFrom(kind)


def _run(light: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """What shape inference finds. Where it stumbles over an operator with values, it goes again without
    them.
    """
    for data_prop in (True, False):
        try:
            result = shape_inference.infer_shapes(light, strict_mode=False, data_prop=data_prop)
        except Exception:  # the C++ code raises many unrelated classes; nothing known is a valid answer
            continue
        return _collect(result.graph)
    return _collect(light.graph)


def _collect(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    found: dict[str, onnx.TypeProto] = {}
    ambiguous: set[str] = set()
    for name, kind in _types(graph):
        if found.setdefault(name, kind) != kind:
            ambiguous.add(name)
    return {name: kind for name, kind in found.items() if name not in ambiguous}


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    for tensor in graph.initializer:
        yield tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, helper.make_tensor_type_proto(sparse.values.data_type, sparse.dims)
    constants = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name not in constants and value.type.WhichOneof("value") and _says_something(value.type):
            yield value.name, value.type
    for node in graph.node:
        for body in subgraphs(node):
            yield from _types(body)


def _says_something(kind: onnx.TypeProto) -> bool:
    return not kind.HasField("tensor_type") or kind.tensor_type.elem_type != TensorProto.UNDEFINED


def _believable(
    recorded: Mapping[str, onnx.ValueInfoProto],
    inferred: Mapping[str, onnx.TypeProto],
    inputs: Iterable[onnx.ValueInfoProto],
) -> dict[str, onnx.TypeProto]:
    """The recorded types that say more than the inferred ones; without dimensions where any of these is
    wrong.
    """
    symbols = {d for value in inputs for d in dims(inferred.get(value.name)) or () if isinstance(d, str)}
    stale = any(
        _contradict(value.type, inferred[name], symbols) for name, value in recorded.items() if name in inferred
    )
    result: dict[str, onnx.TypeProto] = {}
    for name, value in recorded.items():
        known = dims(inferred.get(name))
        if known is not None and (stale or all(isinstance(d, int) or d in symbols for d in known)):
            continue
        result[name] = onnx.TypeProto()
        result[name].CopyFrom(value.type)
        if stale:
            for dim in result[name].tensor_type.shape.dim:
                dim.Clear()
    return result


def _contradict(recorded: onnx.TypeProto, inferred: onnx.TypeProto, symbols: Collection[str]) -> bool:
    if recorded.tensor_type.elem_type != inferred.tensor_type.elem_type:
        return True
    left, right = dims(recorded), dims(inferred)
    if left is None or right is None:
        return False
    return len(left) != len(right) or any(
        isinstance(a, int) and a != b and (isinstance(b, int) or b in symbols) for a, b in zip(left, right, strict=True)
    )
