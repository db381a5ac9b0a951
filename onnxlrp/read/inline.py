"""Put the bodies of model-local functions in place of their calls, with onnx's inliner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import inliner, shape_inference

from onnxlrp.errors import ModelReadError
from onnxlrp.read import skeleton, structure
from onnxlrp.read.lift import TARGET_OPSET, default_opset, lift, one_line


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without model-local functions. It is left alone itself.

    Functions may be written for another opset than the model. They are lifted to the model's, or the model to
    theirs.
    ModelReadError: a function calls itself or cannot be lifted.
    """
    opset = default_opset(model.opset_import) or TARGET_OPSET
    newest = max(default_opset(function.opset_import) or opset for function in model.functions)
    if newest > opset:
        opset = max(newest, TARGET_OPSET)
        model = lift(model, opset)
    stripped = skeleton.strip(model)
    structure.import_domains(stripped.light)
    _write_out_defaults(stripped.light)
    try:
        result = _inline(stripped.light, opset)
    except Exception as error:  # the C++ code raises many unrelated classes
        raise ModelReadError(
            f"the model's local functions cannot be inlined: {one_line(error)}; export the model without them"
        ) from error
    imported = {entry.domain for entry in result.opset_import}
    for entry in (entry for function in model.functions for entry in function.opset_import):
        if entry.domain not in imported:
            imported.add(entry.domain)
            result.opset_import.append(entry)
    skeleton.restore(result, stripped.heavy)
    return result


def _inline(light: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """First the functions of the model's own opset; the others can be lifted only where all types around are
    known.
    """
    others = {
        (function.domain, function.name)
        for function in light.functions
        if default_opset(function.opset_import) not in (None, opset)
    }
    if not others:
        return inliner.inline_local_functions(light)
    light = inliner.inline_selected_functions(light, sorted(others), exclude=True)
    recorded = list(light.graph.value_info)
    typed = shape_inference.infer_shapes(light)
    result = inliner.inline_local_functions(typed, convert_version=True)
    del result.graph.value_info[:]
    result.graph.value_info.extend(recorded)
    return result


def _write_out_defaults(model: onnx.ModelProto) -> None:
    """Give each call the default attributes of its function, in place: the inliner leaves them out."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    for node in _all_nodes((model.graph.node, *(function.node for function in model.functions))):
        function = functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(a for a in function.attribute_proto if a.name not in given)


def _all_nodes(lists: Iterable[Iterable[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    for nodes in lists:
        for node in nodes:
            yield node
            yield from _all_nodes(body.node for body in structure.subgraphs(node))
