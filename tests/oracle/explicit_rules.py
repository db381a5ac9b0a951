"""AttnLRP's published rules in PyTorch, operator by operator (Achtibat et al. 2024, section 3): a slow replica.

Here relevance itself flows backward: each function of torch that computes something is replaced by one whose
"gradient" is the relevance of its inputs. Functions that only move values keep their own. Epsilons are added whatever
the sign, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LINEAR, SUM, PRODUCT = 1e-6, 1e-8, 1e-8
Back = Callable[[Tensor], Sequence[Tensor | None]]


class _Carried(torch.autograd.Function):
    """y, whose relevance `back` shares out among the inputs."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, back: Back, *inputs: Any) -> Tensor:
        ctx.back = back
        return y.clone()

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> Any:  # type: ignore[override]
        return (None, None, *ctx.back(r))


def carried(y: Tensor, back: Back, *inputs: Any) -> Tensor:
    made: Tensor = _Carried.apply(y.detach(), back, *inputs)
    return made


def _depends(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _fitted(r: Tensor, x: Tensor) -> Tensor:
    """Summed over what x was broadcast to."""
    return r.sum_to_size(x.shape)


def linear_map(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, epsilon: float = LINEAR) -> Tensor:
    """R_i = x_i sum_j w_ij R_j / (z_j + e), for any f that is linear in x but for a bias."""

    def back(r: Tensor) -> list[Tensor | None]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(f(leaf), leaf, r / (y.detach() + epsilon))
        return [x.detach() * g]

    return carried(y, back, x)


def add(a: Any, b: Any, y: Tensor, sign: float = 1.0) -> Tensor:
    """R_a = a R / (a + b + e), and likewise for b."""

    def back(r: Tensor) -> list[Tensor | None]:
        share = r / (y.detach() + SUM)
        parts = [a.detach() * share if _depends(a) else None, sign * b.detach() * share if _depends(b) else None]
        return [None if p is None else _fitted(p, x) for p, x in zip(parts, (a, b), strict=True)]

    return carried(y, back, a, b)


def mul(a: Any, b: Any, y: Tensor) -> Tensor:
    """An equal share to each factor that depends on the input."""

    def back(r: Tensor) -> list[Tensor | None]:
        count = _depends(a) + _depends(b)
        return [_fitted(r / count, x) if _depends(x) else None for x in (a, b)]

    return carried(y, back, a, b)


def matmul(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """R_A = A * ((R / (2 O + e)) B^T), R_B = B * (A^T (R / (2 O + e)))."""

    def back(r: Tensor) -> list[Tensor | None]:
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (a, b)]
            share = r / (2 * y.detach() + PRODUCT)
            grads = torch.autograd.grad(torch.matmul(*leaves), leaves, share)
        return [leaf.detach() * g for leaf, g in zip(leaves, grads, strict=True)]

    return carried(y, back, a, b)


def softmax(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """R_i = x_i (R_i - s_i sum_j R_j), masked scores counted as 0."""

    def back(r: Tensor) -> list[Tensor | None]:
        scores = torch.where(torch.isneginf(x), torch.zeros_like(x), x).detach()
        return [scores * (r - y.detach() * r.sum(axis, keepdim=True))]

    return carried(y, back, x)


def layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The epsilon rule with the standard deviation held constant."""
    axes = tuple(range(-len(shape), 0))
    centred = (x - x.mean(axes, keepdim=True)).detach()
    sd = (centred.pow(2).mean(axes, keepdim=True) + eps).sqrt()

    def f(t: Tensor) -> Tensor:
        y = (t - t.mean(axes, keepdim=True)) / sd
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    return linear_map(f, x, f(x.detach()))


def passed(x: Tensor, y: Tensor) -> Tensor:
    """R_x = R_y."""
    return carried(y, lambda r: [_fitted(r, x)], x)


_ACTIVATIONS = {
    *(nn.functional.gelu, nn.functional.silu, nn.functional.relu, torch.relu),
    *(torch.tanh, Tensor.tanh, torch.sigmoid, Tensor.sigmoid),
}
_SUMS = {torch.add: 1.0, Tensor.add: 1.0, Tensor.__add__: 1.0, Tensor.__radd__: 1.0, Tensor.__iadd__: 1.0}
_DIFFERENCES = {torch.sub: -1.0, Tensor.sub: -1.0, Tensor.__sub__: -1.0}
_PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}
_MATRIX_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
_QUOTIENTS = {torch.div, Tensor.div, Tensor.__truediv__}
_SOFTMAX = {torch.softmax, Tensor.softmax, nn.functional.softmax}
_NORMS = {torch.rsqrt, Tensor.rsqrt}
_LINEAR = {nn.functional.linear: 0, nn.functional.conv2d: 0, torch.addmm: 1}


class ExplicitRules(TorchFunctionMode):
    """While active, "gradients" are relevance; what models do in float32 is done in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if func is Tensor.float:
            return args[0].double()
        if func in _NORMS:
            return func(*args, **kwargs).detach()
        if not any(map(_depends, args)):
            return func(*args, **kwargs)
        if func is nn.functional.layer_norm:
            return layer_norm(*args, **kwargs)
        if func in _LINEAR:
            return self._linear(func, _LINEAR[func], args, kwargs)
        return self._by_operand(func, args, kwargs)

    @staticmethod
    def _linear(func: Any, place: int, args: Any, kwargs: Any) -> Tensor:
        def f(x: Tensor) -> Tensor:
            found: Tensor = func(*args[:place], x, *args[place + 1 :], **kwargs)
            return found

        with torch.no_grad():
            y = f(args[place])
        return linear_map(f, args[place], y)

    @staticmethod
    def _by_operand(func: Any, args: Any, kwargs: Any) -> Any:
        y = func(*args, **kwargs)
        if func in _ACTIVATIONS or func in (torch.neg, Tensor.neg, Tensor.__neg__):
            return passed(args[0], y)
        if func in _SUMS or func in _DIFFERENCES:
            return add(args[0], args[1], y, _SUMS.get(func, -1.0))
        if func in _PRODUCTS:
            return mul(args[0], args[1], y)
        if func in _QUOTIENTS:
            return passed(args[0], y)
        if func in _MATRIX_PRODUCTS:
            both = _depends(args[0]) and _depends(args[1])
            return matmul(args[0], args[1], y) if both else linear_map(lambda t: t @ args[1], args[0], y)
        if func in _SOFTMAX:
            return softmax(args[0], y, kwargs.get("dim", args[1] if len(args) > 1 else -1))
        return y


@contextmanager
def explicit_rules(model: nn.Module, activations: tuple[type[nn.Module], ...]) -> Any:
    """Runs `model` under the rules; modules of the `activations` classes are one function each."""
    patched = [m for m in model.modules() if isinstance(m, activations)]
    for module in patched:
        module.forward = _as_one(module.forward)  # type: ignore[method-assign]
    try:
        with ExplicitRules():
            yield
    finally:
        for module in patched:
            del module.forward


def _as_one(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapped(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch._C.DisableTorchFunction():
            return passed(x, forward(x, *args, **kwargs))

    return wrapped


def token_relevance(
    reader: nn.Module,
    model: nn.Module,
    run: Callable[[], Tensor],
    seed: Tensor,
    activations: tuple[type[nn.Module], ...],
) -> Tensor:
    """Relevance of each token that `reader` reads, of sum(seed * output)."""
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_(True))
        return leaves[-1]

    table = reader.get_input_embeddings().weight  # type: ignore[operator]
    tables = [m for m in reader.modules() if isinstance(m, nn.Embedding) and m.weight is table]
    handles = [m.register_forward_hook(cut) for m in tables]
    try:
        with explicit_rules(model, activations):
            y = run()
    finally:
        for handle in handles:
            handle.remove()
    y.backward(y.detach() * seed)
    return sum(x.grad.sum(-1) for x in leaves if x.grad is not None)  # type: ignore[union-attr,misc,return-value]


def input_relevance(
    run: Callable[[Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    seed: Tensor,
    activations: tuple[type[nn.Module], ...],
) -> Tensor:
    """Relevance of each element of a float input."""
    leaf = x.detach().clone().requires_grad_(True)
    with explicit_rules(model, activations):
        y = run(leaf)
    y.backward(y.detach() * seed)
    assert leaf.grad is not None
    return leaf.grad
