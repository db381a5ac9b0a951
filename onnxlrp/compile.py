"""The stages put together: prepared model and request in, converted model and plan out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from onnxlrp.check import metadata
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.conversion import emit_conversion
from onnxlrp.graph.view import Graph
from onnxlrp.planning.conversion import plan_conversion
from onnxlrp.planning.model import Plan
from onnxlrp.read.prepare import Prepared
from onnxlrp.request import Request
from onnxlrp.summary import describe, summarise


@dataclass(frozen=True)
class Converted:
    """A converted model with everything that is known about it.

    `relevance` is the output name of each explained input (of the first explained output where there are several),
    `relevance_of` that of each other tensor that was asked for.
    """

    model: onnx.ModelProto
    plan: Plan
    relevance: Mapping[str, str]
    relevance_of: Mapping[str, str] = field(default_factory=dict)


def compile_model(prepared: Prepared, request: Request) -> Converted:
    """Plans the relevance pass and appends it to the prepared model, which is changed in place.

    Raises:
        UsageError: the request does not fit the model.
        ConversionError: nodes stand in the way; all of them are named.
    """
    b = Builder(Graph(prepared.model, prepared.inferred))
    conversion = plan_conversion(prepared, request, b)
    emission = emit_conversion(prepared.model, conversion, b)
    plan = summarise(prepared, conversion, emission)
    said = describe(prepared, conversion, emission, plan)
    metadata.write(prepared.model, said)
    first = conversion.question.targets[0].name
    further = (*conversion.hidden, *(c.name for c in conversion.components))
    return Converted(prepared.model, plan, said.relevance, {x: emission.names[x, first] for x in further})
