"""attnlrp-explicit: the published rules and their epsilons, against a replica in PyTorch and the authors' own code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import onnxlrp
from tests.oracle import explicit_rules as replica
from tests.oracle.transformer_models import ACTIVATIONS, Case, case, export
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64
from tests.support.models import Net

Array = np.ndarray


def _expected(given: Case, seed: Array) -> Array:
    runner, wide = given.double(), torch.from_numpy(seed)
    if len(given.inputs) > 1:
        return replica.token_relevance(
            runner.explained, runner.model, lambda: runner(*given.inputs), wide, ACTIVATIONS
        ).numpy()
    return replica.input_relevance(runner, runner.model, given.inputs[0].double(), wide, ACTIVATIONS).numpy()


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3", "t5-encoder", "vit"])
def test_the_table_is_the_published_rules(tmp_path: Path, name: str, exporter: str) -> None:
    given = case(name)
    model = export(given, tmp_path / "model.onnx", exporter == "dynamo")
    emitted = onnxlrp.convert(model, rules="attnlrp-explicit", target="seed", inputs=(given.names[0],))
    feeds = given.feeds(model)
    with torch.no_grad():
        shape = given.runner(*given.inputs).shape
    seed = np.random.default_rng(5).normal(size=tuple(shape))
    if len(given.inputs) == 2:
        seed *= given.inputs[1].numpy()[..., None]
    expected = _expected(given, seed)
    output = f"{given.names[0]}_relevance"
    widened = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in feeds.items()}
    wide = run_reference(to_float64(emitted), {**widened, "lrp_seed": seed})[output]
    narrow = run_onnxruntime(emitted, {**feeds, "lrp_seed": seed.astype(np.float32)})[output]
    assert relative_l2(wide, expected) < 1e-6
    assert relative_l2(narrow, expected) < 1e-4


# -- operator by operator, against the functions of lxt.explicit


@pytest.fixture(scope="module")
def lxt() -> ModuleType:
    """The authors' functions (lxt 2.1), whose package asks for an older transformers: install it with --no-deps."""
    return pytest.importorskip("lxt.explicit.functional")


def _values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


_X, _W, _B = _values(2, 3, 4), _values(4, 5, seed=1), _values(5, seed=2)
_Q, _K = _values(2, 3, 4, seed=3), _values(2, 4, 3, seed=4)
_SCALE, _SHIFT = _values(4, seed=5), _values(4, seed=6)

#: label -> (operator, data inputs, constants, attributes, the same in lxt).
_OPERATORS: dict[str, tuple[str, tuple[Array, ...], tuple[Array, ...], dict[str, Any], Callable[..., Any]]] = {
    "linear": ("Gemm", (_X[0],), (_W, _B), {}, lambda f, x, w, b: f.linear_epsilon(x, w.T, b)),
    "add": ("Add", (_X, _Q), (), {}, lambda f, a, b: f.add2(a, b)),
    "product": ("Mul", (_X, _Q), (), {}, lambda f, a, b: f.mul2(a, b)),
    "product with a constant": ("Mul", (_X,), (_SCALE,), {}, lambda f, a, b: f.mul2(a, b)),
    "matmul": ("MatMul", (_Q, _K), (), {}, lambda f, a, b: f.matmul(a, b)),
    "softmax": ("Softmax", (_X,), (), {"axis": -1}, lambda f, x: f.softmax(x, -1)),
    "layer norm": (
        "LayerNormalization",
        (_X,),
        (_SCALE, _SHIFT),
        {"epsilon": 1e-5},
        lambda f, x, w, b: f.layer_norm(x, w, b, 1e-5),
    ),
    "rms norm": (
        "RMSNormalization",
        (_X,),
        (_SCALE,),
        {"epsilon": 1e-5},
        lambda f, x, w: f.rms_norm_identity(x.float(), w.float(), 1e-5).double(),
    ),
    "l2 norm": ("LpNormalization", (_X,), (), {"axis": -1, "p": 2}, lambda f, x: f.normalize(x, 2.0, -1)),
}


@pytest.mark.parametrize("label", _OPERATORS)
def test_an_operator_is_treated_as_by_its_authors(label: str, lxt: ModuleType) -> None:
    op, data, constants, attributes, peer = _OPERATORS[label]
    net = Net(np.float64, opset=23)
    names = [net.input(f"x{i}", list(x.shape)) for i, x in enumerate(data)]
    y = net.op(op, *names, *(net.constant(c) for c in constants), **attributes)
    y = net.op("Mul", y, net.constant(np.array(1.0)))  # a softmax that is the output itself is stepped over
    model = net.model(y, ranks=[data[0].ndim])
    leaves = [torch.from_numpy(x).requires_grad_() for x in data]
    out: Tensor = peer(lxt, *leaves, *(torch.from_numpy(c) for c in constants))
    seed = _values(*out.shape, seed=9)
    out.backward(out.detach() * torch.from_numpy(seed))
    emitted = to_float64(onnxlrp.convert(model, rules="attnlrp-explicit", target="seed"))
    found = run_reference(emitted, {**dict(zip(names, data, strict=True)), "lrp_seed": seed})
    for name, leaf in zip(names, leaves, strict=True):
        assert leaf.grad is not None
        assert relative_l2(found[f"{name}_relevance"], leaf.grad.numpy()) < (1e-6 if "rms" in label else 1e-12)


# -- cp-lrp, against the modified gradient of lxt.efficient


class _Block(torch.nn.Module):
    """One head of attention with a residual, and a gated layer; `lxt` puts the authors' rules in."""

    def __init__(self, lxt: ModuleType | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lxt = lxt
        self.q, self.k, self.v, self.o, self.gate, self.up, self.down = (torch.nn.Linear(4, 4) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2) / 2.0, -1)
        weights = weights if self.lxt is None else self.lxt.stop_gradient(weights)
        h = x + self.o(weights @ self.v(x))
        gate = torch.sigmoid(self.gate(h))
        gate = gate if self.lxt is None else self.lxt.stop_gradient(gate)
        return h + self.down(gate * self.up(h))


def _efficient_rules() -> ModuleType:
    """The file lxt/efficient/rules.py by itself: its package imports models of an older transformers."""
    found = importlib.util.find_spec("lxt")
    if found is None or not found.submodule_search_locations:
        pytest.skip("lxt is not installed")
    path = Path(found.submodule_search_locations[0]) / "efficient" / "rules.py"
    spec = importlib.util.spec_from_file_location("lxt_efficient_rules", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_conservative_propagation_is_that_of_its_authors(tmp_path: Path) -> None:
    rules = _efficient_rules()
    x = torch.from_numpy(_values(2, 3, 4))
    path = tmp_path / "block.onnx"
    plain = _Block().eval()
    torch.onnx.export(plain, (x.float(),), str(path), dynamo=False, input_names=["x"], opset_version=17)
    emitted = to_float64(onnxlrp.convert(path, rules="cp-lrp", target="seed"))
    leaf, seed = x.clone().requires_grad_(), _values(2, 3, 4, seed=9)
    (_Block(rules).double()(leaf) * torch.from_numpy(seed)).sum().backward()
    assert leaf.grad is not None
    found = run_reference(emitted, {"x": x.numpy(), "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, (leaf * leaf.grad).detach().numpy()) < 1e-6
