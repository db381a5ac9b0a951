"""Randomised copies of models made by others run, and compute something else."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from onnxlrp.evaluation.randomise import randomise, weighted_layers
from onnxlrp.read.load import load
from tests.breadth.real import ALL, Feeds, Real, fetched

#: Counted in each file: operators with weights of their own, those that share a weight once.
LAYERS = {
    "mobilenetv2": 54,
    "mnist-conv": 3,
    "yunet": 53,
    "silero-vad": 7,
    "pulsevad": 14,
    "pulsevad-int8": 14,
    "mini-semantic": 41,
    "chars2vec": 4,
}


def _outputs(model: bytes, feeds: Feeds) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [one for one in session.run(None, feeds) if np.issubdtype(one.dtype, np.floating)]


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_randomised_models_run(model: Real) -> None:
    source, feeds = load(fetched(model.name)), model.feeds()
    layers = weighted_layers(source.model)
    assert layers == LAYERS.get(model.name, layers)
    assert layers > 0
    original = _outputs(source.model.SerializeToString(), feeds)
    for depth in (1, layers):
        changed = _outputs(randomise(source.model, depth, 0).SerializeToString(), feeds)
        assert [one.shape for one in changed] == [one.shape for one in original]
        assert any(not np.allclose(a, b, atol=1e-4) for a, b in zip(original, changed, strict=True)), depth
