"""The models and images kept in models/ go the whole way, as the demo does without a registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import onnxlrp
from onnxlrp.explain.images import explain_images

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_all_kept_digits_are_recognised_and_explained(tmp_path):
    results = explain_images(MODELS / "mnist-conv.onnx", [MODELS / "digits"], rules="epsilon", out_dir=tmp_path)
    assert [result.top[0].index for result in results] == list(range(10))
    assert not any(result.notes for result in results)
    assert len(list(tmp_path.iterdir())) == 40


def test_the_saved_relevance_is_the_explainers_own(tmp_path):
    (result,) = explain_images(MODELS / "mnist-conv.onnx", [MODELS / "digits" / "3.png"], out_dir=tmp_path)
    with np.load(result.files[-1]) as saved:
        direct = onnxlrp.Explainer(MODELS / "mnist-conv.onnx").explain(saved["input"][None])
        np.testing.assert_array_equal(saved["relevance"], direct.relevance["Input3"][0])
        np.testing.assert_array_equal(saved["explained_output"], direct.outputs["Plus214_Output_0"][0])
