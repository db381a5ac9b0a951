"""The way back: what a conversion added can be taken away again, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

import onnxlrp
from onnxlrp.check.strip import strip
from onnxlrp.errors import ModelReadError
from tests.emit.test_emitted import MODELS, OPTIONS
from tests.graph.written import classifier, prepared


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", [o for o in OPTIONS if o != "ledger"])
def test_strip_gives_the_original_back_byte_for_byte(model: str, options: str) -> None:
    original = prepared(MODELS[model][0]()).model
    more = {"inputs": ("x",)} if model.startswith("with") else {}
    converted = onnxlrp.convert(MODELS[model][0](), **OPTIONS[options], **more)
    assert converted.ByteSize() > original.ByteSize()
    assert strip(converted).SerializeToString(deterministic=True) == original.SerializeToString(deterministic=True)


def test_metadata_of_others_stay_and_the_converted_model_is_left_alone() -> None:
    model = classifier()
    model.metadata_props.add(key="author", value="me")
    converted = onnxlrp.convert(model, outputs=("probabilities", "s"), target="seed")
    before = converted.SerializeToString(deterministic=True)
    assert strip(converted).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert converted.SerializeToString(deterministic=True) == before
    assert np.any([p.key == "author" for p in strip(converted).metadata_props])


def test_a_model_that_was_not_converted_cannot_be_stripped() -> None:
    with pytest.raises(ModelReadError, match="was not converted by onnxlrp"):
        strip(classifier())
