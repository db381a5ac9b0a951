"""Ways to run the command line: inside this process with a stand-in for the Python API, and as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import onnxlrp
from onnxlrp.cli.main import cli
from onnxlrp.planning.model import Plan, PlanStep

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run `onnxlrp ARGUMENTS...` here; standard output and error are kept apart."""
    return lambda *arguments: CliRunner().invoke(cli, arguments, prog_name="onnxlrp")


def process(
    *arguments: str, before: str = "", env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run `onnxlrp ARGUMENTS...` as a process; `before` is Python code that runs first, `env` adds variables."""
    root = Path(next(iter(onnxlrp.__path__))).parent
    code = f"import sys\n{before}\nfrom onnxlrp.cli.main import main\nmain()"
    settings = {"encoding": "utf-8", "stderr": subprocess.PIPE, "timeout": 60, **options}
    if "stdout" not in settings:
        settings["stdout"] = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(root), **(env or {})}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, **settings)


def conv(name: str, **changes: object) -> PlanStep:
    """A planned convolution with its merged normalisation, changed as asked for."""
    values = {
        "nodes": (f"{name}/Conv", f"{name}/BatchNormalization"),
        "operator": "Conv",
        "kind": "linear",
        "rule": "gamma",
        "parameters": {"gamma": 0.5, "epsilon": 1e-6, "stabiliser": "sign", "bias": "absorb"},
        "reason": "entry 2 of the rule table",
        "macs": 1_000_000,
        "relevance_macs": 1_500_000,
        **changes,
    }
    return PlanStep(**values)


@pytest.fixture
def example_plan() -> Plan:
    """A plan of four steps with a long name, markup-like characters, a stopped input and an unknown cost."""
    return Plan(
        rule_table="epsilon-gamma-box",
        target="argmax",
        explained_inputs=("image",),
        explained_outputs=("logits",),
        steps=(
            conv("head", operator="Gemm", rule="epsilon", parameters={"epsilon": 1e-6}, relevance_macs=1000),
            conv("/encoder/stages.3/layers/blocks.11/attention/output[bold]"),
            conv("[red]act[/red]", operator="Relu", rule="pass", parameters={}, relevance_macs=0),
            conv("stem", rule="z-box", parameters={"low": -2.12, "high": (1.0, 2.0, 2.64)},
                 stopped=("mask",), relevance_macs=None),
        ),
        warnings=("entry on line 7 matches no node",),
        notes=("Softmax was stepped over: relevance starts at logits",),
        forward_macs=2_000_000,
        relevance_macs=4_001_000,
    )  # fmt: skip
