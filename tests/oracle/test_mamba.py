"""Mamba's rule tables against a modified gradient times the input in PyTorch (Jafari et al. 2024, section 4).

In the oracle the discretised A and B and C are detached, SiLU has the derivative silu(x)/x, the product with the gate
half of the ordinary derivative (for images none to the gate), and norms are held constant.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers.models.mamba import modeling_mamba
from transformers.models.mamba2 import modeling_mamba2

import onnxlrp
from tests.oracle.modified_gradient import through
from tests.oracle.transformer_models import _shake
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64

IDS = torch.tensor([[4, 9, 9, 30, 7], [12, 3, 25, 8, 31]])


class Widened(TorchFunctionMode):
    """What the model does in float32 is done in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        return args[0].double() if func is torch.Tensor.float else func(*args, **kwargs)


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits


def mamba() -> nn.Module:
    config = transformers.MambaConfig(
        vocab_size=40,
        hidden_size=12,
        state_size=4,
        num_hidden_layers=2,
        conv_kernel=3,
        expand=2,
        time_step_rank=3,
        use_associative_scan=False,
    )
    return transformers.MambaForCausalLM(config)


def mamba2() -> nn.Module:
    """Blocks of two positions, so that states are handed on twice and the last block is padded."""
    config = transformers.Mamba2Config(
        vocab_size=40,
        hidden_size=12,
        state_size=4,
        num_hidden_layers=2,
        conv_kernel=3,
        expand=2,
        head_dim=6,
        num_heads=4,
        n_groups=2,
        chunk_size=2,
    )
    return transformers.Mamba2ForCausalLM(config)


#: The network and its exporters; torch writes no valid file of Mamba-2 by TorchScript (a negative axis in a Transpose).
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], bool]] = {
    "mamba-torchscript": (mamba, False),
    "mamba-dynamo": (mamba, True),
    "mamba2-dynamo": (mamba2, True),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, onnx.ModelProto]:
    """A language model and its export."""
    build, dynamo = NETWORKS[request.param]
    torch.manual_seed(0)
    model = Logits(_shake(build())).eval()
    return model, exported(model, tmp_path_factory.mktemp("mamba") / "model.onnx", dynamo)


def silu(x: Tensor) -> Tensor:
    return through(x, functional.silu(x))


def _halves(y: Tensor, gate: Tensor) -> Tensor:
    product = y * gate
    return product / 2 + (product / 2).detach()


#: Rule table -> its product with the gate.
GATED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mamba-lrp": _halves,
    "mamba-lrp-vision": lambda y, gate: y * gate.detach(),
}


def scan(
    gated: Callable[[Tensor, Tensor], Tensor],
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    **more: Any,
) -> Tensor:
    """h_t = exp(A d_t) h_(t-1) + d_t B_t u_t, y_t = C_t h_t + D u_t, y silu(z); u [batch, width, time]."""
    step = functional.softplus(dt + more["delta_bias"][:, None]).detach()
    state, outputs = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype), []
    for t in range(u.shape[2]):
        kept = torch.exp(A * step[:, :, t, None]).detach()
        taken = (step[:, :, t, None] * B[:, None, :, t]).detach()
        state = kept * state + taken * u[:, :, t, None]
        outputs.append((state * C[:, None, :, t].detach()).sum(-1))
    return gated(torch.stack(outputs, -1) + u * D[:, None], silu(z))


def blocks(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor, **_: Any) -> Tensor:
    """The same for Mamba-2, step by step: A and d are one number for each head; u [batch, time, heads, width]."""
    step = functional.softplus(dt + dt_bias).detach()
    heads = u.shape[2] // B.shape[2]
    B, C = (x.detach().repeat_interleave(heads, 2) for x in (B, C))
    state, outputs = torch.zeros(u.shape[0], *u.shape[2:], B.shape[-1], dtype=u.dtype), []
    for t in range(u.shape[1]):
        kept = torch.exp(A * step[:, t])[..., None, None].detach()
        state = kept * state + (step[:, t, :, None] * u[:, t])[..., None] * B[:, t, :, None]
        outputs.append((state * C[:, t, :, None]).sum(-1) + D[:, None] * u[:, t])
    return torch.stack(outputs, 1)


def convolution(x: Tensor, weight: Tensor, bias: Tensor, **_: Any) -> Tensor:
    y = functional.conv1d(x, weight[:, None], bias, padding=weight.shape[-1] - 1, groups=x.shape[1])
    return silu(y[:, :, : x.shape[2]])


def norm(self: Any, x: Tensor) -> Tensor:
    scaled: Tensor = self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).detach()
    return scaled


def gated_norm(gated: Callable[[Tensor, Tensor], Tensor], self: Any, x: Tensor, gate: Tensor) -> Tensor:
    y = gated(x, silu(gate))
    groups = y.unflatten(-1, (-1, self.group_size))
    scale = torch.rsqrt(groups.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).detach()
    scaled: Tensor = self.weight * (groups * scale).flatten(-2)
    return scaled


@pytest.fixture(params=GATED)
def rules(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a rule table, while the model is what it says."""
    gated = GATED[request.param]
    monkeypatch.setattr(modeling_mamba, "mamba_selective_scan", partial(scan, gated))
    monkeypatch.setattr(modeling_mamba2, "mamba2_chunk_scan", blocks)
    gated_forward = lambda self, x, gate: gated_norm(gated, self, x, gate)  # noqa: E731
    monkeypatch.setattr(modeling_mamba2.MambaRMSNormGated, "forward", gated_forward)
    for module, layer in ((modeling_mamba, "MambaRMSNorm"), (modeling_mamba2, "Mamba2RMSNorm")):
        monkeypatch.setattr(module, "causal_conv1d_fn", convolution)
        monkeypatch.setattr(getattr(module, layer), "forward", norm)
    with Widened():
        yield request.param


def expected_relevance(model: nn.Module, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(relevance of the tokens, logits), in float64."""
    wide, leaves = copy.deepcopy(model).double().requires_grad_(False), []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_(True))
        return leaves[-1]

    wide.model.backbone.embeddings.register_forward_hook(cut)
    y = wide(IDS)
    (y * torch.from_numpy(seed)).sum().backward()
    return (leaves[0] * leaves[0].grad).sum(-1).detach().numpy(), y.detach().numpy()


def exported(model: nn.Module, path: Path, dynamo: bool) -> onnx.ModelProto:
    how: dict[str, Any] = {"dynamo": True, "dynamic_shapes": ({0: "batch"},), "verbose": False}
    if not dynamo:
        how = {"dynamo": False, "dynamic_axes": {"ids": {0: "batch"}}, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (IDS,), str(path), input_names=["ids"], output_names=["y"], **how)
    return onnx.load(path)


def test_the_table_is_the_modified_gradient(network: tuple[nn.Module, onnx.ModelProto], rules: str) -> None:
    model, written = network
    seed = np.zeros((2, 5, 40))
    seed[:, -1] = np.random.default_rng(5).normal(size=(2, 40))
    expected, logits = expected_relevance(model, seed)
    emitted = onnxlrp.convert(written, rules=rules, target="seed")
    wide = run_reference(to_float64(emitted), {"ids": IDS.numpy(), "lrp_seed": seed})
    assert relative_l2(wide["y"], logits) < 1e-6
    assert relative_l2(wide["ids_relevance"], expected) < 1e-6
    narrow = run_onnxruntime(emitted, {"ids": IDS.numpy(), "lrp_seed": seed.astype(np.float32)})
    assert relative_l2(narrow["ids_relevance"], expected) < 1e-4
