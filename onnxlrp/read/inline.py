"""Put the bodies of model-local functions in place of their calls, with onnx's inliner.

Functions may be written for another opset than the model. The inliner could lift them, but with the faults of
the version converter that `lift` corrects; so their nodes are marked, inlined as they are and lifted
afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import inliner

from onnxlrp.errors import ModelReadError
from onnxlrp.read import shapes, skeleton, structure
from onnxlrp.read.lift import DEFAULT_DOMAINS, TARGET_OPSET, default_opset, lift, one_line, set_default_opset

_MARK = "onnxlrp.opset."
_HIDDEN = "onnxlrp.hidden"


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without model-local functions. It is left alone itself.

    Functions of an older opset are lifted to the model's, or the model to that of the newest function.
    ModelReadError: a function calls itself or cannot be lifted.
    """
    opset = default_opset(model.opset_import) or TARGET_OPSET
    newest = max(default_opset(function.opset_import) or opset for function in model.functions)
    if newest > opset:
        opset = max(newest, TARGET_OPSET)
        model = lift(model, opset)
    stripped = skeleton.strip(model)
    light = stripped.light
    structure.import_domains(light)
    types = shapes.infer(light)
    _write_out_defaults(light)
    _agree_on_versions(light)
    older = _mark_older(light.functions, opset)
    try:
        result = inliner.inline_local_functions(light)
    except Exception as error:  # the C++ code raises many unrelated classes
        raise ModelReadError(
            f"the model's local functions cannot be inlined: {one_line(error)}; export the model without them"
        ) from error
    for version in older:
        result = _lift_marked(result, version, opset, types)
    _refuse_marked(result)
    _import_as_functions_do(result, model.functions)
    skeleton.restore(result, stripped.heavy)
    return result


def _write_out_defaults(model: onnx.ModelProto) -> None:
    """Give each call the default attributes of its function, in place: the inliner leaves them out."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    for node in structure.all_nodes((model.graph.node, *(function.node for function in model.functions))):
        function = functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(a for a in function.attribute_proto if a.name not in given)


def _agree_on_versions(model: onnx.ModelProto) -> None:
    """Let functions import other domains in the model's versions, in place: the inliner leaves out those that do not.

    ModelReadError: an operator that a function uses means something else in the model's version.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain not in DEFAULT_DOMAINS}
    for function in model.functions:
        for entry in function.opset_import:
            version = versions.setdefault(entry.domain, entry.version)
            if entry.domain in DEFAULT_DOMAINS or entry.version == version:
                continue
            for node in structure.all_nodes([function.node]):
                if node.domain == entry.domain and _changed(node, entry.version, version):
                    raise ModelReadError(
                        f"function {function.domain}::{function.name} uses {node.domain}.{node.op_type} of version "
                        f"{entry.version}, which is another operator in version {version} that the model imports; "
                        "export the model with one version"
                    )
            entry.version = version


def _changed(node: onnx.NodeProto, before: int, after: int) -> bool:
    """Whether an operator differs between two versions of its domain; one that onnx does not know does not."""
    try:
        schemas = [onnx.defs.get_schema(node.op_type, version, node.domain) for version in (before, after)]
    except onnx.defs.SchemaError:
        return False
    return schemas[0].since_version != schemas[1].since_version


def _mark_older(functions: Iterable[onnx.FunctionProto], opset: int) -> list[int]:
    """Move the standard nodes of functions of older opsets to a domain of their own, in place. Returns these
    opsets.
    """
    versions = set()
    for function in functions:
        version = default_opset(function.opset_import)
        if version is not None and version != opset:
            versions.add(version)
            _change_domains(function.node, {"": f"{_MARK}{version}"})
            function.opset_import.add(domain=f"{_MARK}{version}", version=1)
            for entry in function.opset_import:
                if entry.domain in ("", "ai.onnx"):
                    entry.version = opset
    return sorted(versions)


def _change_domains(nodes: Iterable[onnx.NodeProto], new: Mapping[str, str]) -> None:
    for node in structure.all_nodes([nodes]):
        domain = "" if node.domain == "ai.onnx" else node.domain
        node.domain = new.get(domain, domain)


def _lift_marked(
    model: onnx.ModelProto, version: int, opset: int, types: Mapping[str, onnx.TypeProto]
) -> onnx.ModelProto:
    """Lift the nodes marked with `version` while all others are hidden from the converter.

    types: of the tensors around them, which the hidden nodes no longer tell.
    """
    recorded = list(model.graph.value_info)
    _expose(model.graph.node, f"{_MARK}{version}")
    set_default_opset(model, version)
    made = {name for node in model.graph.node for name in node.output} - {v.name for v in model.graph.output}
    del model.graph.value_info[:]
    for name in sorted(made & types.keys()):
        model.graph.value_info.add(name=name).type.CopyFrom(types[name])
    lifted = lift(model, opset)
    _change_domains(lifted.graph.node, {_HIDDEN: ""})
    del lifted.graph.value_info[:]
    lifted.graph.value_info.extend(recorded)
    return lifted


def _expose(nodes: Iterable[onnx.NodeProto], mark: str) -> bool:
    """Show the converter the nodes with that mark, and those around them whose bodies it has to enter, and hide all
    other standard nodes, in place. Whether there was any with that mark.
    """
    found = False
    for node in nodes:
        own = node.domain in DEFAULT_DOMAINS or node.domain.startswith(_MARK)
        # The converter does not enter the bodies of operators that it does not know.
        bodies = [_expose(body.node, mark) for body in structure.subgraphs(node) if own]
        inside = any(bodies)
        if node.domain == mark or inside:
            # If, Loop and Scan are the same in all versions but the oldest, which the converter refuses.
            node.domain = ""
        elif node.domain in DEFAULT_DOMAINS:
            node.domain = _HIDDEN
        found = found or inside or node.domain == ""
    return found


def _refuse_marked(model: onnx.ModelProto) -> None:
    for node in structure.all_nodes([model.graph.node]):
        if node.domain.startswith(_MARK):
            raise ModelReadError(
                f"{structure.describe(node)} comes from a function of opset {node.domain.removeprefix(_MARK)} and "
                "stands where it cannot be lifted; export the model with one opset"
            )


def _import_as_functions_do(model: onnx.ModelProto, functions: Iterable[onnx.FunctionProto]) -> None:
    own = [entry for entry in model.opset_import if not entry.domain.startswith("onnxlrp.")]
    imported = {entry.domain for entry in own}
    for entry in (entry for function in functions for entry in function.opset_import):
        if entry.domain not in imported and entry.domain != "ai.onnx":
            imported.add(entry.domain)
            own.append(entry)
    del model.opset_import[:]
    model.opset_import.extend(own)
