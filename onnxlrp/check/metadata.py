"""What an emitted model says about itself, in its `metadata_props`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

from onnxlrp.emit.inputs import is_added_input
from onnxlrp.errors import ModelReadError

VERSION = "onnxlrp.version"
NAMESPACE = "onnxlrp."
RULES = "onnxlrp.rules"
TARGET = "onnxlrp.target"
RELEVANCE = "onnxlrp.relevance"
EXPLAINED_OUTPUT = "onnxlrp.explained_output"
SETTINGS = "onnxlrp.settings"


@dataclass(frozen=True)
class Metadata:
    """How a model was converted.

    version: of onnxlrp.  rules: name of the rule table.  target: as given on the command line.
    relevance: name of the output with the relevance of each explained input, by input name, in the order of
        the outputs.
    explained_output: the tensor that relevance started from.  settings: all further options (JSON values).
    """

    version: str
    rules: str
    target: str
    relevance: Mapping[str, str]
    explained_output: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def write(model: onnx.ModelProto, value: Metadata) -> None:
    """Put `value` into the metadata of `model`, in place; other entries stay, earlier ones of onnxlrp are
    replaced.
    """
    entries = {
        VERSION: value.version,
        RULES: value.rules,
        TARGET: value.target,
        RELEVANCE: json.dumps(dict(value.relevance)),
        EXPLAINED_OUTPUT: value.explained_output,
        SETTINGS: json.dumps(dict(value.settings)),
    }
    others = [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in entries]
    del model.metadata_props[:]
    for key, text in (*others, *entries.items()):
        model.metadata_props.add(key=key, value=text)


def read(model: onnx.ModelProto) -> Metadata | None:
    """The metadata of a converted model, None for any other. ModelReadError where it is damaged."""
    if converted_by(model) is None:
        return None
    entries = {entry.key: entry.value for entry in model.metadata_props}
    try:
        relevance = json.loads(entries[RELEVANCE])
        settings = json.loads(entries[SETTINGS])
        if not isinstance(settings, dict) or not isinstance(relevance, dict):
            raise ValueError("not a mapping")
        if not all(isinstance(name, str) for name in relevance.values()):
            raise ValueError("not output names")
        return Metadata(
            entries[VERSION], entries[RULES], entries[TARGET], relevance, entries[EXPLAINED_OUTPUT], settings
        )
    except (KeyError, ValueError) as error:
        raise ModelReadError(f"the model's onnxlrp metadata is damaged ({error}): convert it again") from error


def converted_by(model: onnx.ModelProto) -> str | None:
    """The version of onnxlrp that converted `model`, None where it was not converted."""
    return next((entry.value for entry in model.metadata_props if entry.key == VERSION), None)


def relevance_outputs(value: Metadata) -> frozenset[str]:
    """Names of all outputs that the conversion added, those of further explained outputs and tensors included."""
    by_output = value.settings.get("relevance_by_output", {})
    further = further_outputs(value).values()
    return frozenset(value.relevance.values()).union(further, *(maps.values() for maps in by_output.values()))


def further_outputs(value: Metadata) -> dict[str, str]:
    """The relevance output of each hidden tensor and component that was asked for, and of positions, by its name."""
    kinds = ("relevance_of", "component_outputs", "position_outputs")
    return {name: output for kind in kinds for name, output in value.settings.get(kind, {}).items()}


def is_added(value: Metadata, name: str) -> bool:
    """Whether an input was added by the conversion."""
    return is_added_input(name) or any(name == mask["input"] for mask in value.settings.get("masks", {}).values())
