"""What an emitted model says about itself survives the way through a file."""

from __future__ import annotations

import onnx
import pytest

from onnxlrp.check import metadata
from onnxlrp.check.metadata import Metadata
from onnxlrp.errors import ModelReadError

VALUE = Metadata(
    version="0.1.0",
    rules="epsilon-plus",
    target="top:5",
    relevance={"z": "z_relevance", "a": "a_relevance"},
    explained_output="logits",
    settings={"on_demand": True, "axis": None, "outputs": ["logits"]},
)


def written(value: Metadata = VALUE) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.metadata_props.add(key="author", value="somebody")
    metadata.write(model, value)
    return onnx.ModelProto.FromString(model.SerializeToString())


def test_what_was_written_is_read() -> None:
    found = metadata.read(written())
    assert found == VALUE
    assert list(found.relevance) == ["z", "a"]  # the order of the outputs


def test_other_entries_stay_and_writing_again_replaces() -> None:
    model = written()
    metadata.write(model, Metadata("0.2.0", "z", "argmax", {}, "y"))
    assert metadata.read(model) == Metadata("0.2.0", "z", "argmax", {}, "y")
    keys = [entry.key for entry in model.metadata_props]
    assert len(keys) == len(set(keys)) == 7
    assert {"author", "onnxlrp.version", "onnxlrp.rules", "onnxlrp.target"} < set(keys)
    assert {"onnxlrp.relevance", "onnxlrp.explained_output", "onnxlrp.settings"} < set(keys)


def test_a_model_that_was_not_converted_has_none() -> None:
    model = onnx.ModelProto()
    model.metadata_props.add(key="onnxlrp.something", value="1")
    assert metadata.read(model) is None
    assert metadata.converted_by(model) is None
    assert metadata.converted_by(written()) == "0.1.0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("onnxlrp.relevance", "{"),
        ("onnxlrp.relevance", "[]"),
        ("onnxlrp.relevance", '{"x": 1}'),
        ("onnxlrp.settings", "3"),
        ("onnxlrp.rules", None),
    ],
)
def test_damage_is_named(key: str, value: str | None) -> None:
    model = written()
    entry = next(entry for entry in model.metadata_props if entry.key == key)
    if value is None:
        model.metadata_props.remove(entry)
    else:
        entry.value = value
    with pytest.raises(ModelReadError, match="metadata is damaged"):
        metadata.read(model)
