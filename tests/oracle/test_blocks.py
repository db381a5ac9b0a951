"""The parts that are recognised in what torch's exporters write of real architectures."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxlrp
from tests.oracle.transformer_models import case, export

#: Family -> what a model of two layers (swin: three, t5: encoder and decoder) is made of.
_PARTS = {
    "bert": {"LayerNorm": 5, "attention": 2, "GELU": 2, "feed-forward": 2},
    "deberta-v2": {"LayerNorm": 5, "attention": 2, "GELU": 2, "feed-forward": 2},
    "phi": {"LayerNorm": 3, "rotary embedding": 4, "attention": 2, "GELU": 2, "feed-forward": 2},
    "qwen3": {"RMSNorm": 9, "rotary embedding": 4, "attention": 2, "SiLU": 2, "gated feed-forward": 2},
    "t5-encoder": {"RMSNorm": 5, "attention": 2, "GELU": 2, "gated feed-forward": 2},
    "vit": {"LayerNorm": 5, "attention": 2, "GELU": 2, "feed-forward": 2},
}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", _PARTS)
def test_the_parts_of_a_family_are_recognised(tmp_path: Path, name: str, exporter: str) -> None:
    given = case(name)
    model = export(given, tmp_path / "model.onnx", exporter == "dynamo")
    plan = onnxlrp.plan(model, rules="attnlrp", target="seed", inputs=(given.names[0],))
    assert dict(plan.blocks) == _PARTS[name]
