"""Make a loaded model ready to be read: whole, without model-local functions, at a recent opset, with
shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import defs

from onnxlrp.check import metadata
from onnxlrp.errors import ConversionError, ModelReadError
from onnxlrp.read import external, shapes, structure
from onnxlrp.read.inline import inline
from onnxlrp.read.lift import OLDEST_OPSET, TARGET_OPSET, default_opset, lift, set_default_opset
from onnxlrp.read.load import Source


@dataclass(frozen=True)
class Prepared:
    """A model that the later stages can read.

    model: what will be the forward part of the emitted model; the very object of the source where nothing had
        to change,
        so copy it before adding to it.
    inferred: type and shape of each tensor by name, those of subgraphs included; tensors of which nothing is
        known are
        missing. Kept apart so that the forward part stays as it was.
    notes: what was changed, in words.
    source: where the model came from.
    """

    model: onnx.ModelProto
    inferred: Mapping[str, onnx.TypeProto]
    notes: tuple[str, ...]
    source: Source


def prepare(source: Source) -> Prepared:
    """Check `source`, inline its functions, lift it to a recent operator set, sort it and infer shapes, as
    far as needed.

    ConversionError: the model was already converted. ModelReadError: it is damaged, too new, or cannot be
        lifted.
    """
    model = source.model
    _refuse_converted(model)
    _refuse_unknown_opset(model)
    notes: list[str] = []
    for step in (_modernise, _sort, _inline, _lift, _sort):
        changed, note = step(model)
        if changed is not model:
            model = changed
            notes.append(note)
    inferred = shapes.infer(model, lambda tensor: external.with_values(tensor, source.data_folders))
    return Prepared(model, inferred, tuple(dict.fromkeys(notes)), source)


def _refuse_converted(model: onnx.ModelProto) -> None:
    version = metadata.converted_by(model)
    if version is not None:
        raise ConversionError(
            f"the model was already converted by onnxlrp {version}: give the original model "
            "(it can be run and explained as it is)"
        )


def _refuse_unknown_opset(model: onnx.ModelProto) -> None:
    opset, newest = default_opset(model.opset_import), defs.onnx_opset_version()
    if opset is not None and opset > newest:
        raise ModelReadError(
            f"the model uses opset {opset}, but the installed onnx {onnx.__version__} knows opsets up to "
            f"{newest}: "
            "update onnx, or export the model with an older opset"
        )
    standard = next((node for node in model.graph.node if node.domain in ("", "ai.onnx")), None)
    if opset is None and standard is not None:
        raise ModelReadError(
            f"the model is damaged: it uses standard operators ({structure.describe(standard)}) "
            "but does not say in which opset"
        )


def _modernise(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A recent opset in a header from before IR 4 leaves no room for constants that are not inputs."""
    opset = default_opset(model.opset_import)
    if opset is not None and (opset < OLDEST_OPSET or model.ir_version >= 4):
        return model, ""
    opset = TARGET_OPSET if opset is None else opset
    result = _copy(model)
    set_default_opset(result, opset)
    return result, f"header brought to IR version {result.ir_version} and opset {opset}"


def _sort(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    structure.check(model.graph)
    if structure.is_sorted(model.graph):
        return model, ""
    result = _copy(model)
    structure.sort(result.graph)
    return result, "nodes put into an order of computation"


def _lift(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    opset = default_opset(model.opset_import)
    if opset is None or opset >= OLDEST_OPSET:
        return model, ""
    return lift(model), f"lifted from opset {opset} to {TARGET_OPSET}"


def _inline(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    if not model.functions:
        return model, ""
    names = dict.fromkeys(f"{function.domain}::{function.name}" for function in model.functions)
    return inline(model), f"inlined {len(names)} model-local functions ({', '.join(names)})"


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result
