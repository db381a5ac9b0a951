"""AttnLRP and CP-LRP in PyTorch, as a modified gradient times the input (Achtibat et al. 2024, sections 3 and B).

Every primitive is given the derivative that its rule amounts to in the limit of small epsilons:

* a linear map, a sum, a mean, a reshape: the ordinary one;
* an activation f: f(x)/x;
* a product of two tensors that both depend on the input: half of the ordinary one (AttnLRP), or for attention weights
  and gates times values all of it to the values (CP-LRP);
* a normalisation: the ordinary one with the norm held constant;
* softmax: the ordinary one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ACTIVATIONS = {
    nn.functional.gelu,
    nn.functional.silu,
    nn.functional.relu,
    torch.relu,
    torch.tanh,
    torch.Tensor.tanh,
    torch.sigmoid,
    torch.Tensor.sigmoid,
}
_PRODUCTS = {torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__}
_MATRIX_PRODUCTS = {
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.bmm,
    torch.Tensor.bmm,
    torch.baddbmm,
}
_NORMS = {torch.rsqrt, torch.Tensor.rsqrt}
_QUOTIENTS = {torch.div, torch.Tensor.div, torch.Tensor.__truediv__}


def _depends(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def through(x: Tensor, y: Tensor) -> Tensor:
    """y with the derivative y/x (its limit, f'(0), never matters: x is not exactly zero in these tests)."""
    return x * (y / x).detach()


class ModifiedGradient(TorchFunctionMode):
    """While active, torch functions have the derivatives of the rules; what models do in float32 is done in float64.

    Args:
        conservative: CP-LRP in place of AttnLRP.
    """

    def __init__(self, conservative: bool = False) -> None:
        super().__init__()
        self.conservative = conservative
        self.probabilities: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if func is torch.Tensor.float:
            return args[0].double()
        if func in _ACTIVATIONS and _depends(args[0]):
            return through(args[0], func(*args, **kwargs))
        if func is nn.functional.layer_norm and _depends(args[0]):
            return _layer_norm(*args, **kwargs)
        if func in _NORMS:
            return func(*args, **kwargs).detach()
        if func in _QUOTIENTS and _depends(args[1] if len(args) > 1 else None):
            return func(args[0], args[1].detach(), **kwargs)
        if func in (*_PRODUCTS, *_MATRIX_PRODUCTS) and _depends(args[0]) and _depends(args[1]):
            if args[0] is args[1]:
                return func(*args, **kwargs)
            if self.conservative and func in _MATRIX_PRODUCTS:
                # Queries with keys are cut off behind the softmax; what is left is attention with values.
                return func(args[0].detach(), args[1], **kwargs)
            y = func(*args, **kwargs)
            return y / 2 + (y / 2).detach()
        return func(*args, **kwargs)


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    y = centred / (centred.pow(2).mean(axes, keepdim=True) + eps).sqrt().detach()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _as_one(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An activation module as one function of its input, however it is written inside."""

    def wrapped(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch._C.DisableTorchFunction():
            return through(x, forward(x, *args, **kwargs))

    return wrapped


@contextmanager
def rules(model: nn.Module, activations: tuple[type[nn.Module], ...], conservative: bool = False) -> Any:
    """Runs `model` under the rules; modules of the `activations` classes are one function each."""
    patched = [m for m in model.modules() if isinstance(m, activations)]
    for module in patched:
        module.forward = _as_one(module.forward)  # type: ignore[method-assign]
    try:
        with ModifiedGradient(conservative):
            yield
    finally:
        for module in patched:
            del module.forward


def token_relevance(reader: nn.Module, model: nn.Module, run: Callable[[], Tensor], seed: Tensor, **how: Any) -> Tensor:
    """Relevance of each token that `reader` reads for sum(seed * output): that of its word embedding, summed up."""
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_(True))
        return leaves[-1]

    table = reader.get_input_embeddings().weight  # type: ignore[operator]
    tables = [m for m in reader.modules() if isinstance(m, nn.Embedding) and m.weight is table]
    handles = [m.register_forward_hook(cut) for m in tables]
    try:
        with rules(model, **how):
            y = run()
    finally:
        for handle in handles:
            handle.remove()
    (y * seed).sum().backward()
    return sum((x * x.grad).sum(-1) for x in leaves if x.grad is not None).detach()  # type: ignore[union-attr]


def input_relevance(run: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor, seed: Tensor, **how: Any) -> Tensor:
    """Relevance of each element of a float input."""
    leaf = x.detach().clone().requires_grad_(True)
    with rules(model, **how):
        y = run(leaf)
    (y * seed).sum().backward()
    assert leaf.grad is not None
    return (leaf * leaf.grad).detach()
