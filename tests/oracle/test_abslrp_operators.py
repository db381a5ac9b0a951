"""One operator at a time: absLRP by autograd on the operator and on its absolute form, and the first form (intline).

The seed is the relevance of the output as it is; tables have no contrast and no scale, so that only the rule is seen.
A factor 2 stands behind each operator, because a last Softmax or Sigmoid would be stepped over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import onnxlrp
from onnxlrp.tables import parse_table
from tests.oracle import absolute_magnitude as rule
from tests.support.evaluate import relative_l2, run_reference, to_float64

Array = np.ndarray
_MIXED = torch.tensor(np.random.default_rng(0).normal(size=(4, 4)))
_SCALE, _SHIFT = torch.tensor([1.5, -0.7, 0.4]), torch.tensor([0.3, 0.2, -0.6])
_MEAN, _VARIANCE = torch.tensor([0.2, -0.5, 0.1]), torch.tensor([0.5, 2.0, 1.3])


@dataclass(frozen=True)
class Case:
    """ONNX text from inputs a (and b) to y, the operator in torch, and the same with absolute weights."""

    text: str
    shapes: Sequence[tuple[int, ...]]
    run: Callable[..., Tensor]
    absolute: Callable[..., Tensor] | None = None


def _function(text: str, f: Callable[[Tensor], Tensor], *shape: int) -> Case:
    return Case(f"y = {text}", [shape or (2, 3, 4)], f)


def _batch_norm(v: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return functional.batch_norm(v, _MEAN.double(), _VARIANCE.double(), w.double(), b.double(), False, 0.0, 1e-5)


def _layer_norm(v: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return rule.centred(v, 1e-5, w.double(), b.double())


def _instance_norm(v: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean, variance = v.mean(-1, keepdim=True).detach(), v.var(-1, unbiased=False, keepdim=True).detach()
    return (v - mean) / (variance + 1e-5).sqrt() * w.double()[:, None] + b.double()[:, None]


CASES: Mapping[str, Case] = {
    "gelu": _function('Gelu<approximate="none">(a)', functional.gelu),
    "gelu-tanh": _function('Gelu<approximate="tanh">(a)', lambda v: functional.gelu(v, approximate="tanh")),
    "gelu-written-out": Case(
        "e = Mul(a, slope) f = Erf(e) g = Add(f, one) k = Mul(a, g) y = Mul(k, slope)",
        [(2, 3, 4)],
        lambda v: v * (torch.erf(v * 0.7) + 1) * 0.7,
    ),
    "silu-written-out": Case("s = Sigmoid(a) y = Mul(a, s)", [(2, 3, 4)], functional.silu),
    "tanh": _function("Tanh(a)", torch.tanh),
    "sigmoid": _function("Sigmoid(a)", torch.sigmoid),
    "softplus": _function("Softplus(a)", functional.softplus),
    "elu": _function("Elu(a)", functional.elu),
    "leaky-relu": _function("LeakyRelu<alpha = 0.1>(a)", lambda v: functional.leaky_relu(v, 0.1)),
    "exp": _function("Exp(a)", torch.exp),
    "hard-swish": _function("HardSwish(a)", functional.hardswish),
    "mean": _function("ReduceMean<keepdims = 0>(a, last)", lambda v: v.mean(-1)),
    "max-pool": _function("MaxPool<kernel_shape = [2], strides = [1]>(a)", lambda v: functional.max_pool1d(v, 2, 1)),
    "global-max-pool": _function("GlobalMaxPool(a)", lambda v: v.amax((2, 3), keepdim=True), 2, 3, 4, 5),
    "softmax": _function("Softmax(a)", rule.probabilities),
    "log-softmax": _function("LogSoftmax(a)", lambda v: v - torch.logsumexp(v, -1, keepdim=True).detach()),
    "batch-norm": Case(
        "y = BatchNormalization(a, scale, shift, mean, variance)",
        [(2, 3, 4)],
        lambda v: _batch_norm(v, _SCALE, _SHIFT),
        lambda v: _batch_norm(v, _SCALE.abs(), _SHIFT.abs()),
    ),
    "layer-norm": Case(
        "y = LayerNormalization(a, scale, shift)",
        [(2, 4, 3)],
        lambda v: _layer_norm(v, _SCALE, _SHIFT),
        lambda v: _layer_norm(v, _SCALE.abs(), _SHIFT.abs()),
    ),
    "instance-norm": Case(
        "y = InstanceNormalization(a, scale, shift)",
        [(2, 3, 4)],
        lambda v: _instance_norm(v, _SCALE, _SHIFT),
        lambda v: _instance_norm(v, _SCALE.abs(), _SHIFT.abs()),
    ),
    "dense": Case("y = MatMul(a, mixed)", [(2, 3, 4)], lambda v: v @ _MIXED, lambda v: v @ _MIXED.abs()),
    "add": Case("y = Add(a, b)", [(2, 3, 4), (2, 3, 4)], torch.add),
    "add-broadcast": Case("y = Add(a, b)", [(2, 3, 4), (2, 1, 4)], torch.add),
    "matmul": Case("y = MatMul(a, b)", [(2, 3, 4), (2, 4, 5)], torch.matmul),
    "mul": Case("y = Mul(a, b)", [(2, 3, 4), (2, 3, 4)], torch.mul),
    "einsum": Case(
        'y = Einsum<equation = "nij,njk->nik">(a, b)',
        [(2, 3, 4), (2, 4, 5)],
        torch.matmul,
    ),
}


def network(case: Case) -> onnx.ModelProto:
    inputs = ", ".join(f"double[N,{','.join(map(str, s[1:]))}] {n}" for n, s in zip("ab", case.shapes, strict=False))
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => (double[] z) {{ {case.text} z = Mul(y, two) }}'
    )
    rank = case.run(*(torch.zeros(s, dtype=torch.float64) for s in case.shapes)).ndim
    shape = model.graph.output[0].type.tensor_type.shape
    shape.ClearField("dim")
    for axis in range(rank):
        shape.dim.add(dim_param="N" if axis == 0 else f"s{axis}")
    numbers = {"last": np.array([-1]), "two": np.array(2.0), "one": np.array(1.0), "slope": np.array(0.7)}
    known = {"scale": _SCALE, "shift": _SHIFT, "mean": _MEAN, "variance": _VARIANCE, "mixed": _MIXED}
    used = {name for node in model.graph.node for name in node.input}
    tensors = {name: value.double().numpy() for name, value in known.items()} | numbers
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in tensors.items() if n in used)
    return model


def data(case: Case) -> list[Tensor]:
    return [torch.tensor(np.random.default_rng(i + 3).normal(size=s)) for i, s in enumerate(case.shapes)]


def found(case: Case, xs: Sequence[Tensor], seed: Tensor, normalize: str, form: str) -> list[Array]:
    """What the emitted graph says; the seed keeps its sum 1."""
    table = parse_table(
        f'start = "one"\nnormalize = "{normalize}"\nmerge_batch_normalization = false\n'
        f'[[rule]]\nkind = "movement"\nrule = "move"\n[[rule]]\nrule = "absolute-magnitude"\nform = "{form}"\n',
        name="t",
        source="t",
    )
    emitted = onnxlrp.convert(network(case), rules=table, target="seed", relevance_type="float64")
    feeds = {name: x.numpy() for name, x in zip("ab", xs, strict=False)} | {"lrp_seed": seed.numpy()}
    results = run_reference(to_float64(emitted), feeds)
    return [results[f"{name}_relevance"] for name in "ab"[: len(xs)]]


@pytest.mark.parametrize("name", CASES)
def test_the_rule_by_the_letter(name: str) -> None:
    case, xs = CASES[name], data(CASES[name])
    y = case.run(*xs)
    seed = rule.norm1(torch.tensor(np.random.default_rng(9).uniform(0.1, 1.0, size=y.shape)))
    expected = rule.explain(case.run, case.absolute or case.run, xs, seed)
    for one, other in zip(found(case, xs, seed, "operand", "magnitude"), expected, strict=True):
        assert relative_l2(one, other.numpy()) < 1e-6


def intline(case: Case, xs: Sequence[Tensor], r: Tensor) -> list[Tensor]:
    """P+ norm1(p) + |P-| norm1(n), the operands together; |h| for h_abs where an operator has no absolute weights."""
    leaves = [x.detach().requires_grad_() for x in xs]
    h = case.run(*leaves)
    # A sum or a product is linear in each operand; other operators without weights have their own absolute output.
    linear = case.absolute or (case.run if len(xs) > 1 or case.run(*(-x for x in xs)).allclose(-h) else None)
    h_abs = h.abs() if linear is None else linear(*(x.abs() for x in leaves))
    parts = []
    for sign in (1, -1):
        s = (sign * r).clamp(min=0) / (h.abs() + rule.EPSILON)
        made = torch.autograd.grad(((h + h_abs) * s.detach()).sum(), leaves, retain_graph=True)
        shares = [x.detach() * g for x, g in zip(leaves, made, strict=True)]
        total = sum(share.abs().flatten(1).sum(1) for share in shares)
        mass = (sign * r).clamp(min=0).flatten(1).sum(1)
        factor = torch.where(total > 0, mass / total, 0.0)
        parts.append([sign * share * factor.reshape(-1, *[1] * (share.ndim - 1)) for share in shares])
    return [p + n for p, n in zip(*parts, strict=True)]


@pytest.mark.parametrize(
    "name", ["dense", "add", "matmul", "mul", "tanh", "gelu", "softmax", "mean", "silu-written-out"]
)
def test_the_first_form_keeps_the_sum_of_each_sign(name: str) -> None:
    case, xs = CASES[name], data(CASES[name])
    y = case.run(*xs)
    r = rule.norm1(torch.tensor(np.random.default_rng(9).normal(size=y.shape)))
    results = found(case, xs, r, "sign", "intline")
    for one, other in zip(results, intline(case, xs, r), strict=True):
        assert relative_l2(one, other.numpy()) < 1e-6


def test_the_first_form_of_a_batch_norm_takes_two_steps() -> None:
    """h2 = h1 w + b with |h1||w| + |b|, then h1 = (x - mean)/sd with (|x| - |mean|)/sd."""
    case, (x,) = CASES["batch-norm"], data(CASES["batch-norm"])
    w, b, mean, variance = (t.double()[:, None] for t in (_SCALE, _SHIFT, _MEAN, _VARIANCE))
    sd = (variance + 1e-5).sqrt()
    r = rule.norm1(torch.tensor(np.random.default_rng(9).uniform(0.1, 1, size=x.shape)))
    outer = Case("", [x.shape], lambda v: v * w + b, lambda v: v * w.abs() + b.abs())
    inner = Case("", [x.shape], lambda v: (v - mean) / sd, lambda v: (v - mean.abs()) / sd)
    (middle,) = intline(outer, [(x - mean) / sd], r)
    (expected,) = intline(inner, [x], middle)
    assert relative_l2(found(case, [x], r, "sign", "intline")[0], expected.numpy()) < 1e-6
