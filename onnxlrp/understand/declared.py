"""Operators that a rule table declares, as the reading graph has them: data of the table, no registered operators.

"pass" and "stop" become nodes of a domain of their own (`operators/declared.py`); a function is written out. The model
keeps its node in each case.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from onnxlrp.emit.builder import Builder
from onnxlrp.errors import UsageError
from onnxlrp.graph.renaming import renamed_body, renamed_node
from onnxlrp.graph.surgeon import node_proto
from onnxlrp.graph.view import Graph, Node, Shape, shape_text
from onnxlrp.operators.registry import DECLARED
from onnxlrp.read import shapes, structure
from onnxlrp.read.functions import DoesNotFitError, named, needed, written_out
from onnxlrp.tables.model import Declaration, RuleTable

#: The functions of each file that declarations name; "" is the model itself.
Libraries = Mapping[str, onnx.ModelProto]


@dataclass(frozen=True)
class Declared:
    """What a table declares, the functions that it names, and whether a BatchNormalization is read behind a Relu."""

    operators: Sequence[Declaration] = ()
    libraries: Libraries = field(default_factory=dict)
    through_relu: bool = False

    def of(self, node: Node) -> Declaration | None:
        """The declaration of a node's operator."""
        return next((d for d in self.operators if d.domain == node.domain and node.op in d.ops), None)

    def read(self, declaration: Declaration, node: Node, graph: Graph, b: Builder) -> list[onnx.NodeProto]:
        """The nodes to read in place of `node`; those of a function are left in `b` as well."""
        try:
            if declaration.treat == "function":
                return self._function(declaration, node, graph, b)
            if declaration.treat == "stop":
                return [_stand_in(node, "Stop", node.inputs, node.outputs, declaration.reason)]
            return _passing(declaration, node, graph)
        except DoesNotFitError as error:
            return [_stand_in(node, "Refused", node.inputs, node.outputs, str(error))]

    def _function(self, declaration: Declaration, node: Node, graph: Graph, b: Builder) -> list[onnx.NodeProto]:
        if any((a.domain, a.op) == (node.domain, node.op) for a in node.ancestors):
            raise DoesNotFitError(
                f"function {named(declaration.function)}, which stands for it, uses the operator itself"
            )
        library, proto = self.libraries[declaration.file], graph.node_protos[node.index]
        types = [_type(graph, name) for name in proto.input]
        body = written_out(library.functions, declaration.function, proto, types, graph.opset)
        kept = {name: name for name in (*node.inputs, *node.outputs) if name}
        found = _types_inside(body, graph)
        made = []
        for part in body.node:
            own = b.unique(part.op_type)
            for number, output in enumerate(part.output):
                if output:
                    kept.setdefault(output, f"{own}:{number}" if number else own)
            copy = renamed_node(part, kept, own)
            for attribute in copy.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    attribute.g.CopyFrom(renamed_body(attribute.g, f"{own}/{attribute.name}"))
            for old, new in zip(part.output, copy.output, strict=True):
                if old in found and new not in node.outputs:
                    b.declare(new, found[old])
            made.append(copy)
            # What the model computes itself is not computed again.
            if not set(copy.output) <= set(node.outputs):
                b.copy(_beside(copy, node.outputs))
        return made


NOTHING = Declared()


def _stand_in(
    node: Node, op: str, inputs: Sequence[str], outputs: Sequence[str], reason: str, name: str = ""
) -> onnx.NodeProto:
    return node_proto(op, name or node.name, inputs, outputs, {"reason": reason}, DECLARED)


def _passing(declaration: Declaration, node: Node, graph: Graph) -> list[onnx.NodeProto]:
    """From the first output to the input; further outputs, which the declaration says nothing of, hand nothing back."""
    x, y = node.input(declaration.input), node.outputs[0]
    if not x:
        raise DoesNotFitError(f"it has no input {declaration.input}, to which relevance is declared to pass")
    before, after = graph.shape(x), graph.shape(y)
    if before is not None and after is not None and _differ(before, after):
        raise DoesNotFitError(
            f"relevance is declared to pass unchanged from its output to its input {declaration.input}, but they have"
            f" the shapes {shape_text(after)} and {shape_text(before)}"
        )
    reason = f"declared on line {declaration.line}: passes to input {declaration.input}"
    if declaration.reason:
        reason = f"{reason}; {declaration.reason}"
    found = [_stand_in(node, "Pass", (x,), (y,), reason)] if y else []
    rest = [o for o in node.outputs[1:] if o]
    if rest:
        why = f"line {declaration.line} of the rule table declares only what passes from the first output"
        found.append(_stand_in(node, "Stop", node.inputs, rest, why, f"{node.name}/rest"))
    return found


def _differ(a: Shape, b: Shape) -> bool:
    """Whether two shapes cannot be the same."""
    pairs = zip(a, b, strict=False)
    return len(a) != len(b) or any(isinstance(i, int) and isinstance(j, int) and i != j for i, j in pairs)


def typed_like(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node that gives its outputs the types that shape inference should find."""
    if node.domain != DECLARED or node.op_type not in ("Pass", "Threshold"):
        return node
    return onnx.helper.make_node("Identity", node.input, node.output, name=node.name)


def libraries(table: RuleTable, model: onnx.ModelProto) -> Libraries:
    """The functions that the table's declarations name, by file, with all that these call; "" is `model` itself.

    Raises:
        UsageError: a file is no ONNX model.
    """
    found: dict[str, onnx.ModelProto] = {}
    for declaration in table.operators:
        if declaration.treat == "function":
            file = declaration.file
            source = _parsed(table, declaration) if file in table.files else model
            library = found.setdefault(file, onnx.ModelProto())
            there = [f.SerializeToString(deterministic=True) for f in library.functions]
            library.functions.extend(
                f
                for f in needed(source.functions, declaration.function)
                if f.SerializeToString(deterministic=True) not in there
            )
    return found


def _parsed(table: RuleTable, declaration: Declaration) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(table.files[declaration.file])
    except Exception as error:  # the parser raises a class of its own
        raise UsageError(
            f"{table.source} line {declaration.line}: {declaration.file} is not an ONNX model with functions"
        ) from error


def as_text(found: Libraries) -> dict[str, str]:
    """Libraries as a model's metadata can hold them."""
    return {file: base64.b64encode(library.SerializeToString()).decode("ascii") for file, library in found.items()}


def from_text(stored: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a table (`RuleTable.files`) from what `as_text` made."""
    return {file: base64.b64decode(text) for file, text in stored.items()}


def unused_declarations(table: RuleTable, model: onnx.ModelProto) -> tuple[str, ...]:
    """Warnings for declared operators that the model does not have."""
    had = {(node.domain, node.op_type) for node in structure.all_nodes([model.graph.node])}
    return tuple(
        f"{table.source} line {d.line}: the declared operator {d.domain}.{op} is not in the model"
        for d in table.operators
        for op in d.ops
        if (d.domain, op) not in had
    )


def _beside(node: onnx.NodeProto, outputs: Sequence[str]) -> onnx.NodeProto:
    """A copy that makes nothing under names that the model itself gives."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    result.output[:] = [f"{node.name}/again/{i}" if o in outputs and o else o for i, o in enumerate(node.output)]
    return result


def _type(graph: Graph, tensor: str) -> onnx.TypeProto | None:
    info = graph.info(tensor)
    return onnx.helper.make_tensor_type_proto(info.dtype, info.shape) if info.dtype else None


def _types_inside(body: onnx.GraphProto, graph: Graph) -> dict[str, int]:
    """Element types of the tensors of a written-out function."""
    model = onnx.ModelProto(ir_version=10, graph=body)
    model.opset_import.add(domain="", version=graph.opset)
    return {name: kind.tensor_type.elem_type for name, kind in shapes.infer(model).items()}
