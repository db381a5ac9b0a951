"""Bring a model to a newer operator set with onnx's version converter, and keep what the converter would
lose.

The converter drops metadata of nodes and graph, quantisation annotations, sparse initializers and more.
Therefore only what it really changed (nodes, new constants) is taken over into a copy of the original.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import onnx
from onnx import helper, numpy_helper, version_converter

from onnxlrp.errors import ModelReadError
from onnxlrp.read import names, repair, skeleton, structure
from onnxlrp.read.external import is_external

#: Older models are lifted to this operator set: the newest for which onnxruntime has all its CUDA kernels.
TARGET_OPSET = 21

#: From here on a model stays as it is.
OLDEST_OPSET = 18

DEFAULT_DOMAINS = ("", "ai.onnx")
#: What onnxruntime has among the standard operators, and the standard has not.
_OF_THE_RUNTIME = frozenset({"SimplifiedLayerNormalization"})
_APART = "onnxlrp.apart"


def default_opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int | None:
    """The version of the standard operators among `imports`, None where they are not imported."""
    return max((entry.version for entry in imports if entry.domain in DEFAULT_DOMAINS), default=None)


def set_default_opset(model: onnx.ModelProto, opset: int) -> None:
    """Let `model`, in place, import the standard operators in version `opset`, under an IR version that knows
    them.

    The IR version is never lowered. Below IR 4 every initializer had to be a graph input too and onnxruntime
    took it for a constant; from IR 4 on it would be one that callers may override, so these inputs go.
    """
    others = [entry for entry in model.opset_import if entry.domain not in DEFAULT_DOMAINS]
    imports = [helper.make_opsetid("", opset), *others]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    if model.ir_version < 4:
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    needed = helper.find_min_ir_version_for(imports[:1])
    model.ir_version = max(model.ir_version, needed)


def lift(model: onnx.ModelProto, opset: int = TARGET_OPSET) -> onnx.ModelProto:
    """`model` in the standard operators of version `opset`, names, weights and metadata kept. It is left
    alone itself.

    ModelReadError: an operator has no counterpart in the newer version.
    """
    stripped = skeleton.strip(model)
    result = stripped.light
    _set_apart(result.graph)
    structure.import_domains(result)
    names.set_aside(result.graph)
    before = default_opset(model.opset_import) or 0
    try:
        converted = version_converter.convert_version(_with_room(result), opset)
        _take_over(result.graph, converted.graph, repair.Before.of(result, converted, before))
    except Exception as error:  # the C++ code raises many unrelated classes
        raise ModelReadError(
            f"the model uses opset {before} and cannot be lifted to opset {opset}: {one_line(error)}; "
            f"export it again with opset {OLDEST_OPSET} or newer"
        ) from error
    names.bring_back(result.graph)
    _put_back(result)
    set_default_opset(result, opset)
    skeleton.restore(result, stripped.heavy)
    return result


def _set_apart(graph: onnx.GraphProto) -> None:
    """Puts operators of which the converter knows no versions in a domain of their own, in place."""
    for node in structure.all_nodes([graph.node]):
        if node.domain in DEFAULT_DOMAINS and node.op_type in _OF_THE_RUNTIME:
            node.domain = _APART


def _put_back(model: onnx.ModelProto) -> None:
    """The same, undone."""
    for node in structure.all_nodes([model.graph.node]):
        if node.domain == _APART:
            node.domain = ""
    imports = [entry for entry in model.opset_import if entry.domain != _APART]
    del model.opset_import[:]
    model.opset_import.extend(imports)


def _with_room(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, from IR 4 on, where an initializer need not be an input. Tools that add constants to an older
    model leave them out of its inputs; onnxruntime runs it all the same, but the converter would not.
    """
    if model.ir_version >= 4:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = 4
    return result


def one_line(error: BaseException) -> str:
    """The text of `error` on one line, without the place in the C++ source it came from."""
    text = " ".join(str(error).split())
    return text.split("failed: ", 1)[-1] if "Assertion" in text else text


def _take_over(graph: onnx.GraphProto, converted: onnx.GraphProto, before: repair.Before) -> None:
    """Put the nodes and new initializers of `converted` into `graph`, the original ones where they still mean
    the same.
    """
    originals = {node.output[0]: node for node in graph.node if node.output}
    named = {node.name for node in converted.node}
    nodes = []
    for node in converted.node:
        original = originals.get(next(iter(node.output), ""))
        nodes.append(node if original is None else _reconcile(original, node, before, named))
    nodes = repair.spread_slopes(repair.unflatten(nodes, originals, before), before)
    del graph.node[:]
    graph.node.extend(nodes)
    own = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in converted.initializer:
        if tensor.name not in own:
            graph.initializer.append(tensor)
        elif not _same_values(own[tensor.name], tensor):
            own[tensor.name].CopyFrom(tensor)


def _reconcile(
    original: onnx.NodeProto, lifted: onnx.NodeProto, before: repair.Before, named: Container[str]
) -> onnx.NodeProto:
    """The `original` where it means the same in both versions, else `lifted`, repaired, with its name and
    metadata.

    named: the node names that the converter kept; where it made several nodes of one, another may bear the
        name.
    """
    if not original.domain:
        repair.repair_node(original, lifted, before)
    if _contents(original) == _contents(lifted):
        return original
    if original.name not in named:
        lifted.name = original.name
    lifted.doc_string = original.doc_string
    lifted.metadata_props.extend(original.metadata_props)
    bodies = {a.name: a.g for a in original.attribute if a.HasField("g")}
    for attribute in lifted.attribute:
        if attribute.HasField("g") and attribute.name in bodies:
            body = onnx.GraphProto()
            body.CopyFrom(bodies[attribute.name])
            _take_over(body, attribute.g, before)
            attribute.g.CopyFrom(body)
    return lifted


def _contents(node: onnx.NodeProto) -> tuple[object, ...]:
    attributes = {a.name: a.SerializeToString(deterministic=True) for a in node.attribute}
    return node.op_type, node.domain, list(node.input), list(node.output), attributes


def _same_values(a: onnx.TensorProto, b: onnx.TensorProto) -> bool:
    if (a.data_type, list(a.dims), a.data_location) != (b.data_type, list(b.dims), b.data_location):
        return False
    if is_external(a):
        return True
    left, right = numpy_helper.to_array(a), numpy_helper.to_array(b)
    if a.data_type == onnx.TensorProto.STRING:
        return bool(left.tolist() == right.tolist())
    return bool(left.tobytes() == right.tobytes())
