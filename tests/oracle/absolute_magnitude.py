"""absLRP by the letter: every operator is run a second time on absolute values, and autograd does the rest.

For an operator f with inputs x_k: h = f(x), h_abs = f of absolute weights on |x|, s = R / (|h| + 1e-9),
r_k = x_k * d<h + h_abs, s>/dx_k, each divided by its absolute sum in each sample. Slow and obvious, on timm's modules;
nothing of onnxlrp is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-9
Forward = Callable[..., Tensor]


def norm1(r: Tensor) -> Tensor:
    return r / (r.abs().flatten(1).sum(1).reshape(-1, *[1] * (r.ndim - 1)) + EPSILON)


def normmax(r: Tensor) -> Tensor:
    return r / (r.abs().flatten(1).amax(1).reshape(-1, *[1] * (r.ndim - 1)) + EPSILON)


def explain(f: Forward, f_abs: Forward, inputs: Sequence[Tensor], r: Tensor, divide: bool = True) -> list[Tensor]:
    """Relevance of each input; `f_abs` is f with absolute weights, and is given absolute inputs."""
    xs = [x.detach().requires_grad_() for x in inputs]
    h = f(*xs)
    s = r / (h.abs() + EPSILON) if divide else r
    total = ((h + f_abs(*(x.abs() for x in xs))) * s.detach()).sum()
    return [norm1(x.detach() * g) for x, g in zip(xs, torch.autograd.grad(total, xs), strict=True)]


def one(f: Forward, f_abs: Forward, x: Tensor, r: Tensor, divide: bool = True) -> Tensor:
    return explain(f, f_abs, [x], r, divide)[0]


def filtered(x: Tensor, r: Tensor) -> Tensor:
    """What the released code does at a Dropout or an Identity."""
    return norm1(r * (x > 0))


def linear(module: nn.Linear, x: Tensor, r: Tensor) -> Tensor:
    w, b = module.weight, module.bias
    return one(
        lambda v: functional.linear(v, w, b),
        lambda v: functional.linear(v, w.abs(), None if b is None else b.abs()),
        x,
        r,
    )


def convolution(module: nn.Conv2d, x: Tensor, r: Tensor) -> Tensor:
    w, b = module.weight, module.bias

    def run(v: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return functional.conv2d(v, w, b, module.stride, module.padding, module.dilation, module.groups)

    return one(lambda v: run(v, w, b), lambda v: run(v, w.abs(), None if b is None else b.abs()), x, r)


def batch_norm(module: nn.BatchNorm2d, x: Tensor, r: Tensor) -> Tensor:
    def run(v: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.batch_norm(v, module.running_mean, module.running_var, w, b, False, 0.0, module.eps)

    w, b = module.weight, module.bias
    return one(lambda v: run(v, w, b), lambda v: run(v, w.abs(), b.abs()), x, r)


def centred(v: Tensor, epsilon: float, w: Tensor, b: Tensor) -> Tensor:
    """LayerNorm whose mean and deviation are constants to autograd."""
    mean, variance = v.mean(-1, keepdim=True), v.var(-1, unbiased=False, keepdim=True)
    return (v - mean.detach()) / (variance.detach() + epsilon).sqrt() * w + b


def layer_norm(module: nn.LayerNorm, x: Tensor, r: Tensor) -> Tensor:
    w, b, epsilon = module.weight, module.bias, module.eps
    return one(lambda v: centred(v, epsilon, w, b), lambda v: centred(v, epsilon, w.abs(), b.abs()), x, r)


def function(f: Callable[[Tensor], Tensor], x: Tensor, r: Tensor, divide: bool = True) -> Tensor:
    return one(lambda v: f(v.clone()), lambda v: f(v.clone()), x, r, divide)


def probabilities(v: Tensor) -> Tensor:
    """Softmax whose denominator is a constant to autograd."""
    raised = (v - v.amax(-1, keepdim=True).detach()).exp()
    return raised / raised.sum(-1, keepdim=True).detach()


def softmax(x: Tensor, r: Tensor) -> Tensor:
    return function(probabilities, x, r)


def residual(branch: Callable[[Tensor], Tensor], x: Tensor, r: Tensor, leaks: bool) -> list[Tensor]:
    """Relevance of branch(x) and of x where both are added.

    `leaks`: the branch is differentiated as well where the shortcut is, as happens in the released code.
    """
    with torch.no_grad():
        a = branch(x)
    found = added(a, x, r)
    if leaks:
        v = x.detach().requires_grad_()
        made = branch(v)
        s = r / ((made + v).abs() + EPSILON)
        total = ((made + v + made.abs() + v.abs()) * s.detach()).sum()
        found[1] = norm1(x.detach() * torch.autograd.grad(total, v)[0])
    return found


def added(a: Tensor, b: Tensor, r: Tensor) -> list[Tensor]:
    return explain(torch.add, torch.add, [a, b], r)


def multiplied(a: Tensor, b: Tensor, r: Tensor) -> list[Tensor]:
    return explain(torch.matmul, torch.matmul, [a, b], r)


def seeds(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    target = functional.one_hot(chosen, logits.shape[1]).to(logits.dtype)
    return norm1(target), norm1(1 - target)


def contrast(backward: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """The map of the winner against all others, from -1 to 1."""
    positive, negative = (backward(seed) for seed in seeds(logits, logits.argmax(1)))
    return normmax(positive - negative).detach()
