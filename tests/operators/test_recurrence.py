"""LSTM, GRU and RNN: the derivative in every form, and the rule of Arras et al. against its own arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxlrp
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, run_reference, to_float64
from tests.support.gradients import central_gradient, distinct
from tests.support.models import Net

Array = np.ndarray
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}


@dataclass(frozen=True)
class Cell:
    """A recurrent operator with random weights; every output is part of what is explained."""

    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] | None = None
    initial: bool = False
    bias: bool = True
    peepholes: bool = False
    time: int = 3
    batch: int = 2
    inputs: int = 3
    hidden: int = 2

    @property
    def batch_first(self) -> bool:
        return bool(self.attributes.get("layout"))

    @property
    def directions(self) -> int:
        return 2 if self.attributes.get("direction") == "bidirectional" else 1

    def _shape(self, lead: int, *rest: int) -> list[int]:
        return [self.batch, lead, *rest] if self.batch_first else [lead, self.batch, *rest]

    def feeds(self) -> dict[str, Array]:
        found = {"x": distinct(*self._shape(self.time, self.inputs), seed=3)}
        if self.initial:
            for k in range(_STATES[self.op]):
                found[f"state{k}"] = distinct(*self._shape(self.directions, self.hidden), seed=5 + k)
        return found

    def integers(self) -> dict[str, Array]:
        return {} if self.lengths is None else {"lengths": np.array(self.lengths, np.int32)}

    def weights(self) -> list[Array | None]:
        rng, d, rows = np.random.default_rng(0), self.directions, _GATES[self.op] * self.hidden
        w, r, b = (rng.normal(size=s) for s in ((d, rows, self.inputs), (d, rows, self.hidden), (d, 2 * rows)))
        return [w, r, b if self.bias else None, rng.normal(size=(d, 3 * self.hidden)) if self.peepholes else None]

    def model(self, dtype: type = np.float64, *, dynamic: bool = False) -> onnx.ModelProto:
        net, feeds = Net(dtype), self.feeds()
        for name, value in feeds.items():
            net.input(name, [f"{name}{i}" if dynamic and i < 2 else n for i, n in enumerate(value.shape)])
        for name, value in self.integers().items():
            net.input(name, list(value.shape), np.int32)
        *matrices, peep = ("" if v is None else net.constant(v) for v in self.weights())
        states = [f"state{k}" if self.initial else "" for k in range(_STATES[self.op])]
        given = [*matrices, "lengths" if self.lengths else "", *states, *([peep] if self.op == "LSTM" else [])]
        count = 1 + _STATES[self.op]
        y = net.op(self.op, "x", *given, outputs=count, hidden_size=self.hidden, **self.attributes)
        flat = [net.op("Reshape", o, net.constant(np.array([-1]))) for o in (y, *(f"{y}_{k}" for k in range(1, count)))]
        return net.model(net.op("Identity", net.op("Concat", *flat, axis=0)), ranks=[1])


CELLS: Mapping[str, Cell] = {
    "rnn": Cell("RNN"),
    "rnn-bidirectional": Cell("RNN", {"direction": "bidirectional"}, initial=True),
    "rnn-leaky": Cell("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
    "rnn-lengths": Cell("RNN", lengths=(3, 1)),
    "rnn-reverse-lengths": Cell("RNN", {"direction": "reverse"}, lengths=(3, 1)),
    "gru": Cell("GRU", initial=True),
    "gru-linear-before-reset": Cell("GRU", {"linear_before_reset": 1}),
    "gru-reverse": Cell("GRU", {"direction": "reverse"}, bias=False),
    "gru-batch-first": Cell("GRU", {"layout": 1, "direction": "bidirectional"}, initial=True),
    "gru-clip": Cell("GRU", {"clip": 0.8}),
    "lstm": Cell("LSTM"),
    "lstm-without-bias": Cell("LSTM", bias=False),
    "lstm-peepholes": Cell("LSTM", initial=True, peepholes=True),
    "lstm-bidirectional": Cell("LSTM", {"direction": "bidirectional"}, initial=True, peepholes=True),
    "lstm-clip": Cell("LSTM", {"clip": 0.8, "direction": "reverse"}),
    "lstm-coupled": Cell("LSTM", {"input_forget": 1}),
    "lstm-lengths": Cell("LSTM", lengths=(3, 1), initial=True),
    "lstm-bidirectional-lengths": Cell("LSTM", {"direction": "bidirectional"}, lengths=(3, 1), initial=True),
    "lstm-batch-first": Cell("LSTM", {"layout": 1}, lengths=(2, 3), initial=True),
    "lstm-functions": Cell(
        "LSTM",
        {
            "activations": ["HardSigmoid", "Softsign", "ScaledTanh"],
            "activation_alpha": [0.3, 1.2],
            "activation_beta": [0.4, 0.7],
        },
    ),
    "lstm-one-step": Cell("LSTM", time=1, batch=1),
}


def _narrow(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "open"])
@pytest.mark.parametrize("name", CELLS)
def test_the_derivative_is_exact(name: str, dynamic: bool) -> None:
    cell = CELLS[name]
    model, feeds = cell.model(dynamic=dynamic), {**cell.feeds(), **cell.integers()}
    forward = reference(model)
    output = model.graph.output[0].name
    seed = np.random.default_rng(1).normal(size=forward(feeds)[output].shape)
    emitted = onnxlrp.convert(model, rules="gradient-x-input", target="seed", inputs=list(cell.feeds()))
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    for key in cell.feeds():
        gradient = central_gradient(lambda at: float((seed * forward(at)[output]).sum()), feeds, key)
        assert relative_l2(found[f"{key}_relevance"], feeds[key] * gradient) < 1e-7


@pytest.mark.parametrize("name", [n for n, c in CELLS.items() if not c.batch_first])
def test_onnxruntime_computes_the_same(name: str) -> None:
    """It has no kernels for layout 1."""
    cell = CELLS[name]
    feeds = {**cell.feeds(), **cell.integers()}
    emitted = onnxlrp.convert(
        cell.model(np.float32), rules="gradient-x-input", target="seed", inputs=list(cell.feeds())
    )
    onnx.checker.check_model(emitted, full_check=True)
    exact = to_float64(emitted)
    shape = run_reference(to_float64(cell.model(np.float32)), feeds)
    seed = np.random.default_rng(1).normal(size=next(iter(shape.values())).shape)
    narrow = run_onnxruntime(emitted, {**_narrow(feeds), "lrp_seed": seed.astype(np.float32)})
    wide = run_reference(exact, {**feeds, "lrp_seed": seed})
    for output in narrow:
        assert relative_l2(narrow[output], wide[output]) < 1e-5


@pytest.mark.parametrize("rules", ["epsilon", "default"])
@pytest.mark.parametrize(
    "name", ["rnn-lengths", "gru", "gru-linear-before-reset", "lstm-bidirectional", "lstm-lengths"]
)
def test_the_ledger_closes(name: str, rules: str) -> None:
    cell = CELLS[name]
    report = onnxlrp.verify(cell.model(np.float32), _narrow({**cell.feeds(), **cell.integers()}), rules=rules)
    # All samples are flattened into one output, so that batches cannot be taken apart.
    assert [c.name for c in report.checks if not c.passed and c.name != "batch independence"] == []


# -- the rule for LSTMs (Arras et al. 2017), written out ------------------------------------------------------------

_TABLE = """
name = "lrp-all"
[[rule]]
kind = ["linear", "sum"]
rule = "epsilon"
epsilon = {epsilon}
"""


def _sign(z: Array) -> Array:
    return np.where(z >= 0, 1.0, -1.0)


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def _lrp_linear(x: Array, weight: Array, z: Array, r: Array, epsilon: float) -> Array:
    """R_i = sum_j x_i w_ij R_j / (z_j + epsilon sign z_j); the bias is in z and keeps its share."""
    return x * (weight @ (r / (z + epsilon * _sign(z))))


def _signal_takes_all(gate: Array, signal: Array) -> tuple[Array, Array]:
    return np.zeros_like(gate), np.ones_like(signal)


def _proportional(gate: Array, signal: Array) -> tuple[Array, Array]:
    return gate / (gate + signal), signal / (gate + signal)


def _absolute(gate: Array, signal: Array) -> tuple[Array, Array]:
    return _proportional(np.abs(gate), np.abs(signal))


def _half(gate: Array, signal: Array) -> tuple[Array, Array]:
    return np.full_like(gate, 0.5), np.full_like(signal, 0.5)


Share = Callable[[Array, Array], tuple[Array, Array]]


def lstm_relevance(
    x: Array, w: Array, r: Array, b: Array, seed: Array, epsilon: float, share: Share = _signal_takes_all
) -> Array:
    """Relevance of x [time, inputs] for `seed` (relevance of the last h), gate order i, o, f, c.

    Args:
        share: what gate and signal get of the relevance of their product.
    """
    hidden = r.shape[1]
    h, c = [np.zeros(hidden)], [np.zeros(hidden)]
    steps = []
    for element in x:
        z = w @ element + r @ h[-1] + b[: 4 * hidden] + b[4 * hidden :]
        i, o, f = (_sigmoid(part) for part in np.split(z, 4)[:3])
        pre = np.split(z, 4)[3]
        c.append(f * c[-1] + i * np.tanh(pre))
        h.append(o * np.tanh(c[-1]))
        steps.append((i, o, f, z))
    found, rh, rc = np.zeros_like(x), seed.copy(), np.zeros(hidden)
    for t in reversed(range(len(x))):
        i, o, f, z = steps[t]
        signal = np.tanh(z[3 * hidden :])
        to_output, to_memory = share(o, np.tanh(c[t + 1]))
        rc = rc + to_memory * rh
        stable = c[t + 1] + epsilon * _sign(c[t + 1])
        new, old = i * signal / stable * rc, f * c[t] / stable * rc
        to_input, to_new = share(i, signal)
        to_forget, to_old = share(f, c[t])
        gates = np.concatenate([to_input * new, to_output * rh, to_forget * old, to_new * new])
        rc = to_old * old
        found[t] = _lrp_linear(x[t], w.T, z, gates, epsilon)
        rh = _lrp_linear(h[t], r.T, z, gates, epsilon)
    return found


_PRODUCTS: Mapping[str, tuple[str, Share]] = {
    "all": ("", _signal_takes_all),
    "half": ('rule = "half"', _half),
    "proportional": ('rule = "proportional"', _proportional),
    "absolute": ('rule = "proportional"\nshares = "absolute"', _absolute),
}


@pytest.mark.parametrize(("epsilon", "products"), [(1e-3, "all"), *((1e-9, name) for name in _PRODUCTS)])
def test_an_lstm_follows_the_rules_for_products_of_gates(tmp_path: Path, epsilon: float, products: str) -> None:
    rule, share = _PRODUCTS[products]
    cell = Cell("LSTM", time=5, batch=1, inputs=4, hidden=3)
    w, r, b, _ = cell.weights()
    assert w is not None and r is not None and b is not None
    net = Net(np.float64)
    net.input("x", [5, 1, 4])
    net.op("LSTM", "x", *(net.constant(v) for v in (w, r, b)), outputs=3, hidden_size=3)
    model = net.model("lstm0_1", ranks=[3])
    table = tmp_path / "lrp-all.toml"
    entry = f'[[rule]]\nop = "LSTM"\nkind = "product"\n{rule}\n' if rule else ""
    table.write_text(_TABLE.format(epsilon=epsilon) + entry)
    emitted = onnxlrp.convert(model, rules=table, target="seed")
    x, seed = cell.feeds()["x"], np.array([0.7, -1.3, 0.4])
    # What is explained is seed * h, so that the relevance of the last h is that product.
    h = run_reference(model, {"x": x})["lstm0_1"].ravel()
    found = run_reference(to_float64(emitted), {"x": x, "lrp_seed": seed.reshape(1, 1, 3)})["x_relevance"]
    assert relative_l2(found[:, 0], lstm_relevance(x[:, 0], w[0], r[0], b[0], seed * h, epsilon, share)) < 1e-6


def gru_relevance(x: Array, w: Array, r: Array, b: Array, seed: Array, epsilon: float, before: bool) -> Array:
    """The same for a GRU, gate order z, r, h.

    h_t = (1 - z) n + z h_(t-1) shares out its relevance, n passes its part to what is in the Tanh, and the gates z and
    r receive nothing.

    Args:
        before: whether r multiplies U h + b (linear_before_reset) and not h itself.
    """
    size = r.shape[1]
    h, steps = [np.zeros(size)], []
    wn, un = w[2 * size :], r[2 * size :]
    bias, recurrent_bias = b[: 3 * size], b[3 * size :]
    for element in x:
        gates = _sigmoid((w @ element + bias + r @ h[-1] + recurrent_bias)[: 2 * size])
        update, reset = gates[:size], gates[size:]
        inner = un @ (h[-1] if before else reset * h[-1])
        factor = reset if before else np.ones(size)
        pre = wn @ element + bias[2 * size :] + factor * inner + factor * recurrent_bias[2 * size :]
        steps.append((update, reset, pre, factor))
        h.append((1 - update) * np.tanh(pre) + update * h[-1])
    found, rh = np.zeros_like(x), seed.copy()
    for t in reversed(range(len(x))):
        update, reset, pre, factor = steps[t]
        stable = h[t + 1] + epsilon * _sign(h[t + 1])
        rn, rh = (1 - update) * np.tanh(pre) / stable * rh, update * h[t] / stable * rh
        found[t] = _lrp_linear(x[t], wn.T, pre, rn, epsilon)
        signal = h[t] if before else reset * h[t]
        rh = rh + _lrp_linear(signal, un.T * factor, pre, rn, epsilon)
    return found


@pytest.mark.parametrize("before", [False, True], ids=["reset-first", "linear-before-reset"])
def test_a_gru_follows_the_same_rule(tmp_path: Path, before: bool) -> None:
    """In the limit of small epsilons, where it does not matter at which sums they are added."""
    cell = Cell("GRU", time=5, batch=1, inputs=4, hidden=3)
    w, r, b, _ = cell.weights()
    assert w is not None and r is not None and b is not None
    net = Net(np.float64)
    net.input("x", [5, 1, 4])
    weights = (net.constant(v) for v in (w, r, b))
    net.op("GRU", "x", *weights, outputs=2, hidden_size=3, linear_before_reset=int(before))
    model = net.model("gru0_1", ranks=[3])
    table = tmp_path / "lrp-all.toml"
    table.write_text(_TABLE.format(epsilon=1e-9))
    emitted = onnxlrp.convert(model, rules=table, target="seed")
    x, seed = cell.feeds()["x"], np.array([0.7, -1.3, 0.4])
    h = run_reference(model, {"x": x})["gru0_1"].ravel()
    found = run_reference(to_float64(emitted), {"x": x, "lrp_seed": seed.reshape(1, 1, 3)})["x_relevance"]
    expected = gru_relevance(x[:, 0], w[0], r[0], b[0], seed * h, 1e-9, before)
    assert relative_l2(found[:, 0], expected) < 1e-6


class _Text:
    """The nodes of one LSTM step, as text that can stand in a graph or in the body of a Loop."""

    CELL = """
      {p}a = MatMul({x}, w) {p}b = MatMul({h}, r) {p}c = Add({p}a, {p}b) {p}z = Add({p}c, bias)
      {p}i, {p}o, {p}f, {p}g = Split <axis = 1, num_outputs = 4> ({p}z)
      {p}gi = Sigmoid({p}i) {p}go = Sigmoid({p}o) {p}gf = Sigmoid({p}f) {p}s = Tanh({p}g)
      {p}kept = Mul({p}gf, {c}) {p}new = Mul({p}gi, {p}s) {p}cell = Add({p}kept, {p}new)
      {p}t = Tanh({p}cell) {p}out = Mul({p}go, {p}t)
    """

    @classmethod
    def cell(cls, prefix: str, x: str, h: str, c: str) -> str:
        return cls.CELL.format(p=prefix, x=x, h=h, c=c)


def _model(nodes: str, cell: Cell) -> onnx.ModelProto:
    """A model of x [time, batch, inputs] with the cell's weights under the names w, r, bias, none (zeros)."""
    w, r, b, _ = cell.weights()
    assert w is not None and r is not None and b is not None
    hidden = cell.hidden
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (double[{cell.time},{cell.batch},{cell.inputs}] x) => (double[{cell.batch},{hidden}] y) {{ {nodes} }}"""
    model = parser.parse_model(text)
    bias = b[0, : 4 * hidden] + b[0, 4 * hidden :]
    given = {"w": w[0].T, "r": r[0].T, "bias": bias, "none": np.zeros((cell.batch, hidden))}
    given |= {"steps": np.array(cell.time), **{f"t{t}": np.array(t) for t in range(cell.time)}}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in given.items())
    return model


def _written_out(cell: Cell) -> onnx.ModelProto:
    """The same LSTM as separate nodes, one copy of the cell for each step."""
    nodes, h, c = [], "none", "none"
    for t in range(cell.time):
        nodes += [f"x{t} = Gather <axis = 0> (x, t{t})", _Text.cell(f"k{t}", f"x{t}", h, c)]
        h, c = f"k{t}out", f"k{t}cell"
    return _model("\n".join([*nodes, f"y = Identity({h})"]), cell)


def _as_loop(cell: Cell) -> onnx.ModelProto:
    size = f"double[{cell.batch},{cell.hidden}]"
    return _model(
        f"""last, memory = Loop (steps, , none, none) <body = b (int64 t, bool go, {size} h, {size} c) =>
          (bool more, {size} kout, {size} kcell) {{
            more = Identity(go) e = Gather <axis = 0> (x, t) {_Text.cell("k", "e", "h", "c")}
          }}>
        y = Identity(last)""",
        cell,
    )


def _as_operator(cell: Cell) -> onnx.ModelProto:
    net = Net(np.float64)
    net.input("x", [cell.time, cell.batch, cell.inputs])
    given = ["" if v is None else net.constant(v) for v in cell.weights()[:3]]
    net.op("LSTM", "x", *given, outputs=3, hidden_size=cell.hidden)
    return net.model(net.op("Squeeze", "lstm0_1", net.constant(np.array([0]))), ranks=[2])


_ZERO = """
name = "zero"
[[rule]]
kind = ["linear", "sum"]
rule = "z"
"""


def test_an_lstm_as_one_operator_as_a_loop_and_unrolled_has_one_relevance(tmp_path: Path) -> None:
    """Under LRP-0, whose shares do not depend on how sums are grouped."""
    cell = Cell("LSTM", time=4)
    table = tmp_path / "zero.toml"
    table.write_text(_ZERO)
    x, seed = cell.feeds()["x"], distinct(2, 2, seed=9)
    maps = []
    for model in (_as_operator(cell), _as_loop(cell), _written_out(cell)):
        emitted = onnxlrp.convert(model, rules=table, target="seed")
        maps.append(run_reference(to_float64(emitted), {"x": x, "lrp_seed": seed})["x_relevance"])
    assert relative_l2(maps[0], maps[2]) < 1e-9
    assert relative_l2(maps[1], maps[2]) < 1e-9
