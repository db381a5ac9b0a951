"""LSTM, GRU and RNN, taken apart into a Scan over their cell, one for each direction.

The parts then have the rules that the table gives them: a gate receives nothing and the signal all of it
(signal-take-all, Arras et al. 2017), the state is shared in proportion to what it was added up from, and what the cell
reads (x and the last h, as one linear layer) by the rule for linear layers. Gates and the signal are layers of their
own, so that the relevance pass runs the signal's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, TensorProto, helper

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.surgeon import node_proto
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation

#: (builder, x, alpha or None, beta or None) -> f(x)
Function = Callable[[Builder, str, float | None, float | None], str]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _affine(b: Builder, x: str, alpha: float | None, beta: float | None) -> str:
    return b.add(b.scale(x, _or(alpha, 1.0)), b.scalar(_or(beta, 0.0), x))


def _scaled_tanh(b: Builder, x: str, alpha: float | None, beta: float | None) -> str:
    return b.scale(b.op("Tanh", b.scale(x, _or(beta, 1.0))), _or(alpha, 1.0))


def _standard(op: str, *names: str) -> Function:
    """An operator of the standard whose attributes are alpha and beta, as far as it has them."""

    def apply(b: Builder, x: str, *numbers: float | None) -> str:
        given: dict[str, Any] = {n: v for n, v in zip(names, numbers, strict=False) if v is not None}
        return b.op(op, x, **given)

    return apply


_ACTIVATIONS: Mapping[str, Function] = {
    "relu": _standard("Relu"),
    "tanh": _standard("Tanh"),
    "sigmoid": _standard("Sigmoid"),
    "softsign": _standard("Softsign"),
    "softplus": _standard("Softplus"),
    "leakyrelu": _standard("LeakyRelu", "alpha"),
    "thresholdedrelu": _standard("ThresholdedRelu", "alpha"),
    "elu": _standard("Elu", "alpha"),
    "hardsigmoid": _standard("HardSigmoid", "alpha", "beta"),
    "affine": _affine,
    "scaledtanh": _scaled_tanh,
}
#: How many numbers each takes from activation_alpha and activation_beta.
_TAKES: Mapping[str, tuple[bool, bool]] = {
    "affine": (True, True),
    "scaledtanh": (True, True),
    "hardsigmoid": (True, True),
    "leakyrelu": (True, False),
    "thresholdedrelu": (True, False),
    "elu": (True, False),
}


@dataclass(frozen=True)
class _Layer:
    """The activation functions of one direction, and what is done before they are applied."""

    functions: tuple[Callable[[Builder, str], str], ...]
    clip: float | None

    def apply(self, b: Builder, number: int, x: str) -> str:
        """Function `number` (f, g, h of the standard) of clipped x."""
        if self.clip is not None:
            x = b.op("Clip", x, b.scalar(-self.clip, x), b.scalar(self.clip, x))
        return self.functions[number](b, x)


def _layers(at: Situation, defaults: Sequence[str], directions: int) -> list[_Layer] | Refusal:
    node = at.node
    names = [n.lower() for n in node.attribute("activations") or [*defaults] * directions]
    alphas, betas = list(node.attribute("activation_alpha") or ()), list(node.attribute("activation_beta") or ())
    functions: list[Callable[[Builder, str], str]] = []
    for name in names:
        if name not in _ACTIVATIONS:
            return Refusal(f"its activation {name!r} is not one of the standard", "export it with a standard one")
        with_alpha, with_beta = _TAKES.get(name, (False, False))
        alpha = alphas.pop(0) if with_alpha and alphas else None
        beta = betas.pop(0) if with_beta and betas else None
        functions.append(_bound(_ACTIVATIONS[name], alpha, beta))
    each, clip = len(defaults), node.attribute("clip")
    return [_Layer(tuple(functions[d * each : (d + 1) * each]), clip) for d in range(directions)]


def _bound(function: Function, alpha: float | None, beta: float | None) -> Callable[[Builder, str], str]:
    return lambda b, x: function(b, x, alpha, beta)


@dataclass(frozen=True)
class _Weights:
    """The weights of one direction: `w` [k H, inputs], `r` [k H, H], `wb` and `rb` [k H] or "", `p` [3 H] or ""."""

    w: str
    r: str
    wb: str
    rb: str
    p: str
    size: int

    def rows(self, b: Builder, tensor: str, first: int, count: int = 1) -> str:
        """The rows of `count` gates from gate `first` on."""
        if not tensor:
            return ""
        span = b.integers([first * self.size]), b.integers([(first + count) * self.size]), b.integers([0])
        return b.op("Slice", tensor, *span)

    def bias(self, b: Builder, first: int, count: int = 1) -> str:
        """Both biases of some gates, added."""
        if not self.wb:
            return ""
        return b.add(self.rows(b, self.wb, first, count), self.rows(b, self.rb, first, count))

    def joint(self, b: Builder, first: int, count: int = 1) -> str:
        """[count H, inputs + H]: what maps x and h, side by side, to some gates."""
        return b.op("Concat", self.rows(b, self.w, first, count), self.rows(b, self.r, first, count), axis=1)


#: (builder inside the body, builder around it, weights, layer, x, states) -> next states, h first.
Cell = Callable[[Builder, Builder, _Weights, _Layer, str, Sequence[str]], Sequence[str]]


def _dense(b: Builder, x: str, weight: str, bias: str) -> str:
    return b.op("Gemm", x, weight, bias, transB=1)


def _rnn_cell(b: Builder, outer: Builder, w: _Weights, layer: _Layer, x: str, states: Sequence[str]) -> Sequence[str]:
    (h,) = states
    joined = b.op("Concat", x, h, axis=1)
    return (layer.apply(b, 0, _dense(b, joined, w.joint(outer, 0), w.bias(outer, 0))),)


def _gru_cell(before_reset: bool) -> Cell:
    """Gate order z, r, h."""

    def cell(b: Builder, outer: Builder, w: _Weights, layer: _Layer, x: str, states: Sequence[str]) -> Sequence[str]:
        (h,) = states
        gates = _dense(b, b.op("Concat", x, h, axis=1), w.joint(outer, 0, 2), w.bias(outer, 0, 2))
        z, r = b.ops("Split", layer.apply(b, 0, gates), outputs=2, axis=1, num_outputs=2)
        if before_reset:
            recurrent = _dense(b, h, w.rows(outer, w.r, 2), w.rows(outer, w.rb, 2))
            pre = b.add(_dense(b, x, w.rows(outer, w.w, 2), w.rows(outer, w.wb, 2)), b.mul(r, recurrent))
        else:
            pre = _dense(b, b.op("Concat", x, b.mul(r, h), axis=1), w.joint(outer, 2), w.bias(outer, 2))
        n = layer.apply(b, 1, pre)
        return (b.add(b.mul(b.sub(b.scalar(1.0, z), z), n), b.mul(z, h)),)

    return cell


def _lstm_cell(couple: bool) -> Cell:
    """Gate order i, o, f, c; peepholes i, o, f. With `couple` the forget gate is 1 - i."""

    def cell(b: Builder, outer: Builder, w: _Weights, layer: _Layer, x: str, states: Sequence[str]) -> Sequence[str]:
        h, c = states
        joined = b.op("Concat", x, h, axis=1)
        gates = _dense(b, joined, w.joint(outer, 0, 3), w.bias(outer, 0, 3))
        i, o, f = b.ops("Split", gates, outputs=3, axis=1, num_outputs=3)

        def peep(gate: str, number: int, state: str) -> str:
            return b.add(gate, b.mul(w.rows(outer, w.p, number), state)) if w.p else gate

        i = layer.apply(b, 0, peep(i, 0, c))
        f = b.sub(b.scalar(1.0, i), i) if couple else layer.apply(b, 0, peep(f, 2, c))
        signal = layer.apply(b, 1, _dense(b, joined, w.joint(outer, 3), w.bias(outer, 3)))
        following = b.add(b.mul(f, c), b.mul(i, signal))
        o = layer.apply(b, 0, peep(o, 1, following))
        return b.mul(o, layer.functions[2](b, following)), following

    return cell


def _per_direction(b: Builder, tensor: str, d: int, axis: int = 0) -> str:
    """One direction's part of a tensor, its axis taken away."""
    return b.op("Gather", tensor, b.constant_int(d), axis=axis) if tensor else ""


def _weights(at: Situation, b: Builder, d: int, gates: int, size: int, peepholes: int) -> _Weights:
    bias = _per_direction(b, at.node.input(3), d)
    wb, rb = b.ops("Split", bias, outputs=2, axis=0, num_outputs=2) if bias else ("", "")
    peephole = _per_direction(b, at.node.input(peepholes), d) if peepholes else ""
    w, r = (_per_direction(b, at.node.inputs[k], d) for k in (1, 2))
    return _Weights(w, r, wb, rb, peephole, size)


@dataclass(frozen=True)
class _Sequence:
    """What one direction runs over: `x` [time, batch, inputs], and the length of each sample or ""."""

    x: str
    lengths: str
    backwards: bool


def _run(
    b: Builder, s: _Sequence, initial: Sequence[str], cell: Callable[[Builder, str, Sequence[str]], Sequence[str]]
) -> tuple[str, ...]:
    """(h of every step [time, batch, H], last h, last c): one Scan."""
    # Samples of different length are turned around one by one.
    turned = bool(s.lengths) and s.backwards
    x = _turned(b, s.x, s.lengths) if turned else s.x
    stem, inner = b.unique("cell"), b.inside(b.graph, b.scope_name)
    element, states = f"{stem}/x", [f"{stem}/state/{i}" for i in range(len(initial))]
    for name in (*states, element):
        inner.declare(name, b.dtype(x))
    following = list(cell(inner, element, states))
    out, count = following[0], len(states)
    types = [b.dtype(x)] * count
    if s.lengths:
        # The number of the step is carried along: behind its end a sample keeps its state and returns zeros.
        step = f"{stem}/step"
        inner.declare(step, int(TensorProto.INT64))
        lengths = b.op("Unsqueeze", b.op("Cast", s.lengths, to=int(TensorProto.INT64)), b.integers([1]))
        runs = inner.op("Less", step, lengths)
        out = inner.where(runs, out, inner.scalar(0.0, out))
        following = [inner.where(runs, new, old) for new, old in zip(following, states, strict=True)]
        following.append(inner.add(step, b.constant_int(1)))
        states, initial = [*states, step], [*initial, b.constant_int(0)]
        types.append(int(TensorProto.INT64))
    direction = int(s.backwards and not turned)
    results = b.append(
        "Scan",
        tuple(b.wide(tensor) for tensor in (*initial, x)),
        [*types, b.dtype(x)],
        body=_body(stem, inner, [*states, element], [*following, out]),
        num_scan_inputs=1,
        scan_input_directions=[direction],
        scan_output_directions=[direction],
    )
    y = _turned(b, results[-1], s.lengths) if turned else results[-1]
    return (y, *results[:count])


def _turned(b: Builder, x: str, lengths: str) -> str:
    wide = b.op("Cast", lengths, to=int(TensorProto.INT64))
    return b.op("ReverseSequence", x, wide, time_axis=0, batch_axis=1)


def _body(stem: str, inner: Builder, inputs: Sequence[str], outputs: Sequence[str]) -> GraphProto:
    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, inner.dtype(name), None)

    nodes = [node_proto(n.op, n.name, n.inputs, n.outputs, n.attributes, n.domain) for n in inner.nodes]
    given = []
    for i, tensor in enumerate(outputs):
        name = f"{stem}/out/{i}"
        nodes.append(node_proto("Identity", name, [tensor], [name], {}))
        inner.declare(name, inner.dtype(tensor))
        given.append(name)
    return helper.make_graph(nodes, stem, [value(i) for i in inputs], [value(o) for o in given])


def _recurrent(
    at: Situation, b: Builder, gates: int, defaults: Sequence[str], cell: Cell, peepholes: int = 0
) -> Sequence[str] | Refusal:
    node = at.node
    direction, batch_first = node.attribute("direction", "forward"), bool(node.attribute("layout", 0))
    directions = 2 if direction == "bidirectional" else 1
    size = node.attribute("hidden_size")
    if size is None:
        shape = at.graph.shape(node.inputs[2])
        size = shape[-1] if shape else None
    if not isinstance(size, int):
        return Refusal("its hidden size is not known", "export it with the attribute hidden_size")
    layers = _layers(at, defaults, directions)
    if isinstance(layers, Refusal):
        return layers
    states = 2 if len(defaults) == 3 else 1
    x = b.op("Transpose", node.inputs[0], perm=[1, 0, 2]) if batch_first else node.inputs[0]
    found = []
    for d in range(directions):
        weights = _weights(at, b, d, gates, size, peepholes)
        initial = [_initial(at, b, x, 5 + k, d, size, batch_first) for k in range(states)]
        sequence = _Sequence(x, node.input(4), direction == "reverse" or d == 1)

        def step(
            inner: Builder, element: str, old: Sequence[str], w: _Weights = weights, layer: _Layer = layers[d]
        ) -> Sequence[str]:
            return cell(inner, b, w, layer, element, old)

        found.append(_run(b, sequence, initial, step))
    return [_joined(b, [f[k] for f in found], sequence=k == 0, batch_first=batch_first) for k in range(1 + states)]


def _initial(at: Situation, b: Builder, x: str, position: int, d: int, size: int, batch_first: bool) -> str:
    given = at.node.input(position)
    if given:
        return _per_direction(b, given, d, axis=1 if batch_first else 0)
    batch = b.op("Shape", x, start=1, end=2)
    return b.op("Expand", b.full((1, size), 0.0, x), b.op("Concat", batch, b.integers([size]), axis=0))


def _joined(b: Builder, parts: Sequence[str], *, sequence: bool, batch_first: bool) -> str:
    """[time, directions, batch, H] or [directions, batch, H]; with the batch first [batch, time, directions, H] or
    [batch, directions, H]."""
    axis = 1 if sequence else 0
    apart = [b.op("Unsqueeze", p, b.integers([axis])) for p in parts]
    whole = b.op("Concat", *apart, axis=axis) if len(apart) > 1 else apart[0]
    if not batch_first:
        return whole
    return b.op("Transpose", whole, perm=[2, 0, 1, 3] if sequence else [1, 0, 2])


_TREATMENT = "taken apart into a Scan over its cell: gates receive nothing, signals all of it"


@lowers("RNN", treatment=_TREATMENT)
def rnn(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    return _recurrent(at, b, 1, ("Tanh",), _rnn_cell)


@lowers("GRU", treatment=_TREATMENT)
def gru(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    return _recurrent(at, b, 3, ("Sigmoid", "Tanh"), _gru_cell(bool(at.node.attribute("linear_before_reset", 0))))


@lowers("LSTM", treatment=_TREATMENT)
def lstm(at: Situation, b: Builder) -> Sequence[str] | Refusal:
    cell = _lstm_cell(bool(at.node.attribute("input_forget", 0)))
    return _recurrent(at, b, 4, ("Sigmoid", "Tanh", "Tanh"), cell, peepholes=7)
