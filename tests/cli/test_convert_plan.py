"""What `convert` and `plan` print, for people, for pipes and as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import onnxlrp
from onnxlrp.cli.convert import added_inputs, relevance_outputs
from onnxlrp.cli.output import quantity, shortened, size
from onnxlrp.cli.plan import rule_label
from onnxlrp.planning.model import Plan
from tests.cli.conftest import Run, process


@dataclass(frozen=True)
class Converted:
    """The shape of the API's result."""

    path: Path
    relevance: dict[str, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    grown_bytes: int
    seconds: float
    plan: Plan


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, example_plan: Plan) -> list[Any]:
    """Stands in for the API and keeps what it was called with."""
    received: list[Any] = []

    def convert_file(model: str, out: str | None, **options: Any) -> Converted:
        received.append((model, out, options))
        path = Path(out or "m.lrp.onnx")
        relevance = {"image": "image_relevance"}
        return Converted(path, relevance, example_plan.warnings, example_plan.notes, 23_962, 0.84, example_plan)

    monkeypatch.setattr(onnxlrp, "convert_file", convert_file, raising=False)
    monkeypatch.setattr(onnxlrp, "plan", lambda model, **options: example_plan)
    return received


def test_convert_sums_up_what_was_written(run: Run, calls: list[Any]) -> None:
    result = run("convert", "m.onnx", "--target", "3")
    assert result.exit_code == 0
    assert calls == [("m.onnx", None, {"target": 3})]
    assert result.stderr == "warning: entry on line 7 matches no node\n"
    facts = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert {name: text.strip() for name, text in facts.items()} == {
        "written": "m.lrp.onnx",
        "relevance": "image -> image_relevance",
        "rule table": "epsilon-gamma-box",
        "target": "argmax of logits",
        "cost": "3.00x the forward pass (2.0 M multiply-adds, and 4.0 M for relevance)",
        "file": "23.4 KiB larger than the model",
        "time": "0.84 s",
        "notes": "Softmax was stepped over: relevance starts at logits",
    }


@pytest.mark.parametrize(
    ("target", "on_demand", "outputs", "added"),
    [
        ("argmax", False, ("y",), []),
        ("input", False, ("y",), ["lrp_target: int64 [batch, number of indices]"]),
        ("seed", True, ("y",), ["lrp_seed: float, shaped like y", "lrp_explain: bool [batch, 1]"]),
        ("seed", False, ("y", "z"), ["lrp_seed_y: float, shaped like y", "lrp_seed_z: float, shaped like z"]),
    ],
)
def test_convert_names_the_inputs_that_it_adds(
    target: str, on_demand: bool, outputs: tuple[str, ...], added: list[str]
) -> None:
    plan = Plan("t", target, ("x",), outputs, (), settings={"on_demand": on_demand})
    assert added_inputs(plan) == added


def test_convert_names_every_relevance_output(example_plan: Plan) -> None:
    assert relevance_outputs(example_plan) == ["image -> image_relevance"]
    plan = Plan("t", "argmax", ("a", "b"), ("y", "z"), ())
    assert relevance_outputs(plan) == [
        "a -> a_relevance_y",
        "b -> b_relevance_y",
        "a -> a_relevance_z",
        "b -> b_relevance_z",
    ]


def test_convert_as_json(run: Run, calls: list[Any]) -> None:
    result = run("convert", "m.onnx", "-o", "x.onnx", "--json")
    assert calls == [("m.onnx", "x.onnx", {})]
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert (found["path"], found["relevance"]) == ("x.onnx", {"image": "image_relevance"})
    assert found["warnings"] == ["entry on line 7 matches no node"]
    assert found["plan"]["steps"][3]["parameters"]["high"] == [1.0, 2.0, 2.64]
    assert found["plan"]["cost"] == pytest.approx(3.0005)


def test_plan_in_a_pipe_has_one_complete_line_for_each_step(run: Run, calls: list[Any]) -> None:
    result = run("plan", "m.onnx")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["operator", "rule", "cost", "nodes", "reason", "stopped"]
    gemm, block, relu, stem = lines[2:6]
    assert gemm.split()[:3] == ["Gemm", "epsilon", "<0.01x"]
    assert "gamma (gamma=0.5)" in block
    assert "0.75x" in block
    name = "/encoder/stages.3/layers/blocks.11/attention/output[bold]"
    assert f"{name}/Conv, {name}/BatchNormalization" in block
    assert relu.split()[:4] == ["Relu", "pass", "-", "[red]act[/red]/Conv,"]
    assert "z-box (low=-2.12, high=[1, 2, 2.64])" in stem
    assert stem.endswith("mask")
    assert " ? " in stem
    assert lines[6] == ""
    assert "3.00x the forward pass" in result.stdout
    assert result.stderr == "warning: entry on line 7 matches no node\n"


def test_plan_leaves_out_an_empty_column(run: Run, monkeypatch: pytest.MonkeyPatch, example_plan: Plan) -> None:
    plan = Plan("t", "argmax", ("x",), ("y",), example_plan.steps[:1])
    monkeypatch.setattr(onnxlrp, "plan", lambda model, **options: plan)
    result = run("plan", "m.onnx")
    assert "stopped" not in result.stdout
    assert "unknown: the model does not state the shapes" in result.stdout


def test_plan_as_json(run: Run, calls: list[Any], example_plan: Plan) -> None:
    result = run("plan", "m.onnx", "--json")
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert found["cost"] == example_plan.cost
    assert [step["operator"] for step in found["steps"]] == ["Gemm", "Conv", "Relu", "Conv"]
    assert found["steps"][3]["relevance_macs"] is None


ON_A_TERMINAL = """
import onnxlrp
from onnxlrp.planning.model import Plan, PlanStep
name = "/encoder/stages.3/layers/blocks.11/attention/output/dense/MatMul"
reason = "a reason that is rather long to read on one line"
step = PlanStep((name, "/Add"), "MatMul", "linear", "epsilon", {}, reason, (), 1, 1)
onnxlrp.plan = lambda model, **options: Plan("t", "argmax", ("x",), ("y",), (step,))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_plan_on_a_terminal_fits_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = os.openpty()
    try:
        result = process("plan", "m.onnx", before=ON_A_TERMINAL, stdout=follower)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", os.read(leader, 65536).decode())
    finally:
        os.close(leader)
        os.close(follower)
    assert (result.returncode, result.stderr) == (0, "")
    table = shown.split("rule table")[0].splitlines()
    assert len(table) > 3  # the cells are wrapped
    assert max(map(len, table)) <= 70
    joined = "".join(line for line in table)
    assert "…" in joined
    assert "blocks.11/attention/output/dense/MatMul" not in joined


def test_rules_are_shown_with_what_differs_from_their_defaults() -> None:
    assert rule_label("gamma", {"gamma": 0.25, "epsilon": 1e-6, "stabiliser": "sign"}) == "gamma"
    assert rule_label("gamma", {"gamma": 0.1, "epsilon": 1e-9, "bias": "ignore"}) == (
        "gamma (gamma=0.1, epsilon=1e-09, bias=ignore)"
    )
    assert rule_label("z-box", {"low": "lower", "high": tuple(map(float, range(5)))}) == (
        "z-box (low=lower, high=[5 values])"
    )
    assert rule_label("a rule of tomorrow", {"x": 1}) == "a rule of tomorrow (x=1)"


def test_numbers_and_names_for_reading() -> None:
    assert [size(n) for n in (0, 1023, 1024, -2048, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "-2.0 KiB",
        "5.0 GiB",
    ]
    assert [quantity(n) for n in (7, 999, 4100, 4_100_000_000)] == ["7", "999", "4.1 k", "4.1 G"]
    assert shortened("short", 5) == "short"
    assert shortened("0123456789", 7) == "01…6789"


def test_plan_says_which_block_a_step_belongs_to(run: Run, monkeypatch: pytest.MonkeyPatch, example_plan: Plan) -> None:
    steps = (replace(example_plan.steps[0], block="attention 0"), *example_plan.steps[1:])
    found = replace(example_plan, steps=steps, blocks={"attention": 12, "LayerNorm": 25})
    monkeypatch.setattr(onnxlrp, "plan", lambda *_, **__: found)
    lines = run("plan", "m.onnx").stdout.splitlines()
    assert "block" in lines[0].split()
    assert "attention 0" in next(line for line in lines if "head/Conv" in line)
    assert any(line.split(None, 1) == ["blocks", "12 attention, 25 LayerNorm"] for line in lines)


def test_components_are_parted_by_commas(run: Run, calls: list[Any]) -> None:
    run("convert", "m.onnx", "--components", "heads, neurons")
    assert calls[0][2]["components"] == ("heads", "neurons")
