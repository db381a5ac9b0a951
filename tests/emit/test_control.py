"""Relevance through If, Loop and Scan: the derivative against finite differences, rules against the unrolled graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, run_reference, to_float64
from tests.support.gradients import central_gradient, distinct

Array = np.ndarray

_HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
_WEIGHTS = "float[3,3] w = {0.3,-0.2,0.5,0.1,0.9,-0.4,0.2,0.2,0.7}, int64[1] first = {0}"

IF = f"""{_HEADER}
g (float[N,3] x, bool c) => (float[N,3] y) <float[3] w = {{1.0,-2.0,0.5}}> {{
  h = Tanh(x)
  z = If (c) <
    then_branch = t () => (float[N,3] a) {{ u = Mul(h, w) a = Add(u, x) }},
    else_branch = e () => (float[N,3] a) {{ u = Mul(h, h) a = Sigmoid(u) }}
  >
  y = Mul(z, z)
}}"""

#: One branch does not look at the input at all.
IF_CONSTANT = f"""{_HEADER}
g (float[2,3] x, bool c) => (float[2,3] y) <float[2,3] w = {{1.0,-2.0,0.5,1.0,1.0,1.0}}> {{
  h = Tanh(x)
  z = If (c) <then_branch = t () => (float[2,3] a) {{ a = Mul(h, x) }},
              else_branch = e () => (float[2,3] a) {{ a = Identity(w) }}>
  y = Add(z, x)
}}"""

#: The state, a stacked output and a captured tensor (x) carry relevance.
LOOP = f"""{_HEADER}
g (float[2,3] x, int64 m) => (float[2,3] y) <{_WEIGHTS}> {{
  h = Tanh(x)
  s, ys = Loop (m, , h) <body = b (int64 i, bool c, float[2,3] state) => (bool more, float[2,3] next, float[2,3] out) {{
    more = Identity(c)
    u = MatMul(state, w)
    q = Add(u, x)
    next = Tanh(q)
    out = Mul(next, state)
  }}>
  r = ReduceSum <keepdims = 0> (ys, first)
  y = Add(s, r)
}}"""

#: Runs until the state is small; the number of the iteration is used too.
LOOP_WHILE = f"""{_HEADER}
g (float[2,3] x, int64 m) => (float[2,3] y)
<float slope = {{0.2}}, float top = {{1.4}}, float small = {{0.6}}, bool yes = {{1}}> {{
  y = Loop (m, yes, x) <body = b (int64 i, bool c, float[2,3] state) => (bool more, float[2,3] next) {{
    n = Cast <to = 1> (i)
    d = Mul(n, slope)
    one = Sub(top, d)
    t = Tanh(state)
    next = Mul(t, one)
    size = ReduceMax <keepdims = 0> (next)
    more = Greater(size, small)
  }}>
}}"""

SCAN = f"""{_HEADER}
g (float[2,3] x, float[2,5,3] xs) => (float[2,3] y) <{_WEIGHTS}> {{
  s, ys = Scan <
    num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1], scan_output_axes = [2],
    scan_output_directions = [1],
    body = b (float[2,3] state, float[2,3] e) => (float[2,3] next, float[2,3] out) {{
      u = MatMul(state, w)
      q = Add(u, e)
      gate = Sigmoid(x)
      p = Mul(q, gate)
      next = Tanh(p)
      out = Mul(next, e)
    }}> (x, xs)
  axis = Constant <value_ints = [2]> ()
  r = ReduceSum <keepdims = 0> (ys, axis)
  y = Add(s, r)
}}"""

#: A loop inside a branch; the branch captures what the loop captures.
NESTED = f"""{_HEADER}
g (float[2,3] x, bool c, int64 m) => (float[2,3] y) <{_WEIGHTS}> {{
  h = Tanh(x)
  y = If (c) <
    then_branch = t () => (float[2,3] a) {{
      v = Loop (m, , h) <body = b (int64 i, bool d, float[2,3] state) => (bool more, float[2,3] next) {{
        more = Identity(d)
        u = MatMul(state, w)
        next = Mul(u, h)
      }}>
      a = Add(v, x)
    }},
    else_branch = e () => (float[2,3] a) {{ a = Mul(h, x) }}
  >
}}"""

X, XS = distinct(2, 3, seed=1), distinct(2, 5, 3, seed=2)
CASES: Mapping[str, tuple[str, Mapping[str, Array]]] = {
    "if-then": (IF, {"x": X, "c": np.array(True)}),
    "if-else": (IF, {"x": X, "c": np.array(False)}),
    "if-then-of-constant": (IF_CONSTANT, {"x": X, "c": np.array(True)}),
    "if-constant": (IF_CONSTANT, {"x": X, "c": np.array(False)}),
    "loop-four-times": (LOOP, {"x": X, "m": np.array(4)}),
    "loop-once": (LOOP, {"x": X, "m": np.array(1)}),
    "loop-while": (LOOP_WHILE, {"x": X, "m": np.array(9)}),
    "scan-axes-and-directions": (SCAN, {"x": X, "xs": XS}),
    "loop-inside-if": (NESTED, {"x": X, "c": np.array(True), "m": np.array(3)}),
    "beside-loop-inside-if": (NESTED, {"x": X, "c": np.array(False), "m": np.array(3)}),
}


def _narrow(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_derivative_runs_through_the_body(name: str) -> None:
    text, feeds = CASES[name]
    model = parser.parse_model(text)
    emitted = onnxlrp.convert(model, rules="gradient-x-input", target="seed")
    onnx.checker.check_model(emitted, full_check=True)
    forward = reference(to_float64(model))
    seed = np.random.default_rng(0).normal(size=forward(feeds)["y"].shape)
    found = run_reference(to_float64(emitted), {**feeds, "lrp_seed": seed})
    narrow = run_onnxruntime(emitted, {**_narrow(feeds), "lrp_seed": seed.astype(np.float32)})
    for key in (k for k in feeds if feeds[k].dtype == np.float64):
        gradient = central_gradient(lambda at: float((seed * forward(at)["y"]).sum()), feeds, key)
        assert relative_l2(found[f"{key}_relevance"], feeds[key] * gradient) < 1e-9
        assert relative_l2(narrow[f"{key}_relevance"], found[f"{key}_relevance"]) < 1e-5


@pytest.mark.parametrize("rules", ["epsilon", "gradient-x-input", "default"])
@pytest.mark.parametrize("name", CASES)
def test_the_ledger_closes(name: str, rules: str) -> None:
    text, feeds = CASES[name]
    report = onnxlrp.verify(parser.parse_model(text), _narrow(feeds), rules=rules)
    assert [c.name for c in report.checks if not c.passed] == []


#: torch asks whether an axis can be squeezed; the answer follows from a size that is fixed. Ranks differ by branch.
SQUEEZED = f"""{_HEADER}
g (float[N,1,3] x) => (float[N,3] y)
<int64[1] axis = {{1}}, int64 at = {{1}}, int64 one = {{1}}, float[3] w = {{1.0,-2.0,0.5}}> {{
  size = Shape(x)
  d = Gather(size, at)
  c = Equal(d, one)
  z = If (c) <
    then_branch = t () => (float[N,3] a) <float[3] v = {{0.5,2.0,-1.0}}> {{ s = Squeeze(x, axis) a = Mul(s, v) }},
    else_branch = e () => (float[N,1,3] a) {{ a = Identity(x) }}
  >
  h = Tanh(z)
  y = Mul(h, w)
}}"""


#: The same, asked of a size other than 1 as a truth.
TRUTH = SQUEEZED.replace("c = Equal(d, one)", "truth = Cast <to = 9> (d) c = Equal(truth, yes)").replace(
    "int64 at = {1}, int64 one = {1}", "int64 at = {2}, bool yes = {1}"
)


@pytest.mark.parametrize("text", [SQUEEZED, TRUTH], ids=["size", "truth"])
def test_a_branch_that_is_known_beforehand_is_read_in_place_of_the_if(text: str) -> None:
    model = parser.parse_model(text)
    steps = onnxlrp.plan(model, rules="gradient-x-input", target="seed").steps
    assert "If" not in {step.operator for step in steps}
    x, seed = distinct(2, 1, 3, seed=1), distinct(2, 3, seed=2)
    emitted = onnxlrp.convert(model, rules="gradient-x-input", target="seed")
    assert not any(node.op_type == "If" for node in emitted.graph.node if node.name.startswith("lrp/"))
    w, v = np.array([1.0, -2.0, 0.5]), np.array([0.5, 2.0, -1.0])
    expected = x * (seed * w * v * (1 - np.tanh(x[:, 0] * v) ** 2))[:, None]
    found = run_onnxruntime(emitted, _narrow({"x": x, "lrp_seed": seed}))["x_relevance"]
    assert relative_l2(found, expected) < 1e-5


def test_a_loop_that_never_runs_hands_relevance_to_its_start() -> None:
    emitted = onnxlrp.convert(parser.parse_model(LOOP), rules="gradient-x-input", target="seed")
    seed = np.ones((2, 3), np.float32)
    found = run_onnxruntime(emitted, {"x": X.astype(np.float32), "m": np.array(0), "lrp_seed": seed})["x_relevance"]
    assert relative_l2(found, X * (1 - np.tanh(X) ** 2)) < 1e-6


def _unrolled(times: int) -> onnx.ModelProto:
    steps, state = [], "h"
    for i in range(times):
        steps.append(f"u{i} = MatMul({state}, w) q{i} = Add(u{i}, x) s{i} = Tanh(q{i}) o{i} = Mul(s{i}, {state})")
        state = f"s{i}"
    outs = ", ".join(f"o{i}" for i in range(times))
    return parser.parse_model(
        f"""{_HEADER}
        g (float[2,3] x) => (float[2,3] y) <{_WEIGHTS}> {{
          h = Tanh(x)
          {" ".join(steps)}
          r = Sum({outs})
          y = Add({state}, r)
        }}"""
    )


_PLAIN = """
name = "plain"
[[rule]]
kind = ["linear", "sum", "average"]
rule = "z"
"""


def test_a_loop_and_its_unrolled_form_have_the_same_relevance(tmp_path: Path) -> None:
    """Under LRP-0, whose shares do not depend on how sums are grouped."""
    table = tmp_path / "plain.toml"
    table.write_text(_PLAIN)
    seed = np.random.default_rng(3).normal(size=(2, 3))
    looped = onnxlrp.convert(parser.parse_model(LOOP), rules=table, target="seed")
    unrolled = onnxlrp.convert(_unrolled(3), rules=table, target="seed")
    a = run_reference(to_float64(looped), {"x": X, "m": np.array(3), "lrp_seed": seed})["x_relevance"]
    b = run_reference(to_float64(unrolled), {"x": X, "lrp_seed": seed})["x_relevance"]
    assert relative_l2(a, b) < 1e-9


def test_the_plan_shows_the_steps_inside() -> None:
    (loop,) = [s for s in onnxlrp.plan(parser.parse_model(LOOP), rules="epsilon").steps if s.operator == "Loop"]
    assert [s.operator for s in loop.inner] == ["Mul", "Tanh", "Add", "MatMul"]


def test_what_stands_in_the_way_inside_a_body_is_named() -> None:
    text = IF.replace("a = Sigmoid(u)", "a = Unknown(u)")
    with pytest.raises(ConversionError, match=r"Unknown.*no treatment"):
        onnxlrp.convert(parser.parse_model(text), rules="epsilon")


def test_state_that_grows_is_refused() -> None:
    text = f"""{_HEADER}
    g (float[1,3] x, int64 m) => (float[K,3] y) {{
      y = Loop (m, , x) <body = b (int64 i, bool c, float[K,3] state) => (bool more, float[L,3] next) {{
        more = Identity(c)
        next = Concat <axis = 0> (state, x)
      }}>
    }}"""
    with pytest.raises(ConversionError, match="changes its size"):
        onnxlrp.convert(parser.parse_model(text), rules="epsilon")


def test_weights_inside_a_body_are_kept_once() -> None:
    model = parser.parse_model(LOOP)
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    body = loop.attribute[0].g
    weight = next(t for t in model.graph.initializer if t.name == "w")
    body.initializer.append(weight)
    model.graph.initializer.remove(weight)
    emitted = onnxlrp.convert(model, rules="epsilon")
    copies = [t for t in emitted.graph.initializer if t.name.endswith("/w")]
    bodies = [a.g for n in emitted.graph.node for a in n.attribute if a.HasField("g") and n.name.startswith("lrp/")]
    assert len(copies) == 1
    assert not any(g.initializer for g in bodies)
