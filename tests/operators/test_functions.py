"""Operators that are read as the function that the standard defines them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from onnxlrp.operators import catalogue
from tests.operators.examples import GRADIENT, expect_derivatives
from tests.support.case import Case
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient
from tests.support.models import Net

Array = np.ndarray


KERNEL = (3, 1, 3)


def convolved(*shapes: tuple[int, ...], **attributes: Any) -> Case:
    """Data, kernel and whatever more is given are inputs."""

    def build(net: Net, *operands: str) -> str:
        return net.op("CausalConvWithState", *operands, outputs=2, **attributes)

    return Case(shapes, build, 3, opset=27, frozen=(1, 2))


CONVOLUTIONS: Mapping[str, Case] = {
    "plain": convolved((2, 3, 4), KERNEL),
    "bias": convolved((2, 3, 4), KERNEL, (3,)),
    "past": convolved((2, 3, 4), KERNEL, (3,), (2, 3, 2)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_causal_convolutions(case: str) -> None:
    expect_derivatives(CONVOLUTIONS[case])


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention(rule: str, output: int) -> None:
    """Against the recurrence written out, in numpy and float64."""
    gated, delta = "gated" in rule, "delta" in rule
    shapes = [(1, 3, 4), (1, 3, 4), (1, 3, 4), (1, 2, 2, 2)]
    shapes += [(1, 3, 2)] if gated else []
    shapes += [(1, 3, 2)] if delta else []

    def build(net: Net, *operands: str) -> str:
        given = list(operands[:4])
        rest = list(operands[4:])
        given.append(rest.pop(0) if gated else "")
        given += rest
        y = net.op("LinearAttention", *given, outputs=2, update_rule=rule, q_num_heads=2, kv_num_heads=2, scale=0.7)
        return net.op("Neg", y if output == 0 else f"{y}_1")

    case = Case(tuple(shapes), build, 3 + output, opset=27)
    feeds = case.feeds()
    explained = explain_seeded(case.model(), GRADIENT, feeds)

    def recurrence(at: Mapping[str, Array]) -> float:
        value = -_linear_attention([at[n] for n in case.names], gated=gated, delta=delta, scale=0.7)[output]
        return float((explained.seed * value).sum())

    for name in explained.relevance:
        gradient = central_gradient(recurrence, feeds, name)
        # The state does not depend on the query, whose relevance is then zero.
        np.testing.assert_allclose(explained.relevance[name], feeds[name] * gradient, atol=1e-6)


def _linear_attention(operands: list[Array], *, gated: bool, delta: bool, scale: float) -> tuple[Array, Array]:
    """S = exp(g) S + beta k (v - exp(g) S' k)', o = scale S' q, step by step for two heads of size 2."""
    q, k, v = (x.reshape(1, 3, 2, 2) for x in operands[:3])
    state, rest = operands[3], operands[4:]
    decay = np.exp(rest[0]) if gated else np.ones((1, 3, 2))
    rate = rest[-1] if delta else np.ones((1, 3, 2))
    out = []
    for t in range(3):
        state = state * decay[:, t, :, None, None]
        read = np.einsum("bhij,bhi->bhj", state, k[:, t]) if delta else 0.0
        write = rate[:, t, :, None] * (v[:, t] - read)
        state = state + np.einsum("bhi,bhj->bhij", k[:, t], write)
        out.append(scale * np.einsum("bhij,bhi->bhj", state, q[:, t]))
    return np.stack(out, axis=1).reshape(1, 3, 4), state


def test_every_operator_that_a_function_defines_is_treated() -> None:
    have = {entry.op for entry in catalogue() if not entry.domain}
    schemas: list[Any] = [s for s in onnx.defs.get_all_schemas() if not s.domain]
    assert not {s.name for s in schemas if s.has_function or s.has_context_dependent_function} - have


def test_a_body_that_onnx_cannot_make_is_refused_with_the_reason() -> None:
    net = Net(np.float32, opset=27)
    operands = [net.input("x", (1, "channels", 4)), net.input("w", ("channels", 1, 3))]
    model = net.model(net.op("CausalConvWithState", *operands, outputs=2), ranks=[3])
    with pytest.raises(ConversionError, match="onnx cannot make the function that defines it"):
        onnxlrp.convert(model, rules=GRADIENT)
