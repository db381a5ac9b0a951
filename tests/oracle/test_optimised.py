"""Transformers that onnxruntime rewrote before they are converted: the same map, and the same parts recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxlrp
from tests.oracle.transformer_models import case, export
from tests.support.evaluate import relative_l2, run_onnxruntime

#: The model family as the offline optimiser names it, by ours.
_KINDS: Mapping[str, str] = {"bert": "bert", "gpt2": "gpt2", "vit": "bert", "llama": "bert", "t5-encoder": "t5"}


def _by_session(path: Path) -> onnx.ModelProto:
    """What a session writes at level "extended"."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_name("optimised.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def _by_fusion(kind: str) -> Callable[[Path], onnx.ModelProto]:
    """What onnxruntime.transformers.optimizer writes."""

    def optimise(path: Path) -> onnx.ModelProto:
        optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
        found = optimizer.optimize_model(str(path), model_type=kind, num_heads=2, hidden_size=16, opt_level=0)
        model: onnx.ModelProto = found.model
        return model

    return optimise


def _map(model: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray], rules: str) -> np.ndarray:
    y = run_onnxruntime(model, dict(feeds))[model.graph.output[0].name]
    seed = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    emitted = onnxlrp.convert(model, rules=rules, target="seed", inputs=(name,))
    found: np.ndarray = run_onnxruntime(emitted, {**feeds, "lrp_seed": seed})[f"{name}_relevance"]
    return found


@pytest.mark.parametrize("how", ["session", "fusion"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", _KINDS)
def test_an_optimised_transformer_is_explained_as_before(tmp_path: Path, name: str, exporter: str, how: str) -> None:
    given = case(name)
    plain = export(given, tmp_path / "model.onnx", exporter == "dynamo")
    optimised = (_by_session if how == "session" else _by_fusion(_KINDS[name]))(tmp_path / "model.onnx")
    assert any(node.domain == "com.microsoft" for node in optimised.graph.node)
    feeds = given.feeds(plain)
    for rules in ("attnlrp", "epsilon"):
        before, after = (_map(m, given.names[0], feeds, rules) for m in (plain, optimised))
        assert relative_l2(after, before) < (1e-5 if rules == "attnlrp" else 1e-3)
    plans = [onnxlrp.plan(m, rules="attnlrp", target="seed", inputs=(given.names[0],)) for m in (plain, optimised)]
    assert dict(plans[1].blocks) == dict(plans[0].blocks)
