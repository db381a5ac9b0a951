"""Selective state-space scans written out: input and state receive relevance, what steers them does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.evaluate import relative_l2, run_reference, to_float64
from tests.support.models import Net

Array = np.ndarray
RNG = np.random.default_rng(8)
WIDTH, STATE, STEPS = 3, 2, 4
A = -RNG.uniform(0.2, 1.5, (WIDTH, STATE))
INTO = {
    "u": RNG.normal(size=(2, WIDTH)),
    "d": RNG.normal(size=(2, WIDTH)),
    "B": RNG.normal(size=(2, STATE)),
    "C": RNG.normal(size=(2, STATE)),
}
HEAD = RNG.normal(size=(WIDTH, 2))
X = RNG.normal(size=(1, STEPS, 2))


def network(read: str) -> onnx.ModelProto:
    """u, d, B, C of every step from x; the state read out at the last step, as a matrix product, a sum or an Einsum."""
    net = Net(np.float64)
    x = net.input("x", ["n", STEPS, 2])
    made = {name: net.op("MatMul", x, net.constant(weight)) for name, weight in INTO.items()}
    step = net.op("Unsqueeze", net.op("Softplus", made["d"]), net.constant([3]))
    kept = net.op("Exp", net.op("Mul", step, net.constant(A)))
    taken = net.op("Mul", step, net.op("Unsqueeze", made["B"], net.constant([2])))
    into = net.op("Mul", taken, net.op("Unsqueeze", made["u"], net.constant([3])))
    state = net.op("Gather", into, net.constant(0), axis=1)
    for t in range(1, STEPS):
        held = net.op("Mul", net.op("Gather", kept, net.constant(t), axis=1), state)
        state = net.op("Add", held, net.op("Gather", into, net.constant(t), axis=1))
    out = net.op("Gather", made["C"], net.constant(STEPS - 1), axis=1)
    if read == "MatMul":
        column = net.op("MatMul", state, net.op("Unsqueeze", out, net.constant([2])))
        y = net.op("Squeeze", column, net.constant([2]))
    elif read == "Einsum":
        y = net.op("Einsum", state, out, equation="nws,ns->nw")
    else:
        weighted = net.op("Mul", state, net.op("Unsqueeze", out, net.constant([1])))
        y = net.op("ReduceSum", weighted, net.constant([2]), keepdims=0)
    return net.model(net.op("MatMul", y, net.constant(HEAD)))


def expected(target: int) -> Array:
    """x times the derivative with d, B and C held constant: y is linear in u."""
    made = {name: X[0] @ weight for name, weight in INTO.items()}
    step = np.log1p(np.exp(made["d"]))
    gradient = np.zeros((STEPS, WIDTH))
    back = made["C"][-1] * HEAD[:, target, None]  # of the state, [width, state]
    for t in reversed(range(STEPS)):
        gradient[t] = (back * step[t, :, None] * made["B"][t]).sum(1)
        back = back * np.exp(step[t, :, None] * A)
    found: Array = X[0] * (gradient @ INTO["u"].T)
    return found


@pytest.mark.parametrize("read", ["MatMul", "Einsum", "Mul"])
def test_a_scan_is_linear_in_its_input(read: str) -> None:
    model = network(read)
    emitted = onnxlrp.convert(model, rules="mamba-lrp", target=1)
    found = run_reference(to_float64(emitted), {"x": X})
    assert relative_l2(found["x_relevance"][0], expected(1)) < 1e-9
    assert np.isclose(found["x_relevance"].sum(), found[model.graph.output[0].name][0, 1])


def test_the_plan_says_so() -> None:
    steps = onnxlrp.plan(network("MatMul"), rules="mamba-lrp").steps
    products = [step for step in steps if step.kind == "product"]
    assert sum("belongs to the scan over a state" in step.reason for step in products) == STEPS
    assert not any(step.rule == "half" for step in steps)


def blocked(read: str) -> onnx.ModelProto:
    """The same with one A for all, and the sums over earlier steps as a product with a matrix (Mamba-2)."""
    net = Net(np.float64)
    x = net.input("x", ["n", STEPS, 2])
    made = {name: net.op("MatMul", x, net.constant(weight)) for name, weight in INTO.items() if name != "d"}
    step = net.op("Softplus", net.op("MatMul", x, net.constant(INTO["d"][:, :1])))
    taken = net.op("Mul", step, made["u"])
    passed = net.op("CumSum", net.op("Mul", step, net.constant(np.array(A[0, 0]))), net.constant(1))
    between = net.op("Sub", passed, net.op("Transpose", passed, perm=[0, 2, 1]))
    earlier = net.constant(np.tri(STEPS, dtype=bool))
    decay = net.op("Exp", net.op("Where", earlier, between, net.constant(np.array(-np.inf))))
    if read == "Einsum":
        kernel = net.op("Mul", net.op("Einsum", made["C"], made["B"], equation="nts,nrs->ntr"), decay)
        y = net.op("Einsum", kernel, taken, equation="ntr,nrw->ntw")
    else:
        scores = net.op("MatMul", made["C"], net.op("Transpose", made["B"], perm=[0, 2, 1]))
        y = net.op("MatMul", net.op("Mul", decay, scores), taken)
    last = net.op("Gather", y, net.constant(STEPS - 1), axis=1)
    return net.model(net.op("MatMul", last, net.constant(HEAD)))


def expected_of_blocks(target: int) -> Array:
    made = {name: X[0] @ weight for name, weight in INTO.items()}
    step = np.log1p(np.exp(made["d"][:, 0]))
    gradient = np.zeros((STEPS, WIDTH))
    back = made["C"][-1] * HEAD[:, target, None]
    for t in reversed(range(STEPS)):
        gradient[t] = (back * step[t] * made["B"][t]).sum(1)
        back = back * np.exp(step[t] * A[0, 0])
    found: Array = X[0] * (gradient @ INTO["u"].T)
    return found


@pytest.mark.parametrize("read", ["MatMul", "Einsum"])
def test_a_scan_in_blocks_is_the_same(read: str) -> None:
    model = blocked(read)
    found = run_reference(to_float64(onnxlrp.convert(model, rules="mamba-lrp", target=1)), {"x": X})
    assert relative_l2(found["x_relevance"][0], expected_of_blocks(1)) < 1e-9
    assert np.isclose(found["x_relevance"].sum(), found[model.graph.output[0].name][0, 1])


def test_a_transpose_without_a_permutation_is_refused() -> None:
    """torch writes one of Mamba-2 by TorchScript; onnxruntime does not open that file either."""
    net = Net(np.float64)
    x = net.input("x", [1, 2, 3])
    model = net.model(net.op("Transpose", x, perm=[0, -1, 1]), ranks=[3])
    with pytest.raises(ConversionError, match="no permutation of axes"):
        onnxlrp.plan(model, target="seed")
