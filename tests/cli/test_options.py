"""What is stated on the command line reaches the Python API, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

import onnxlrp
from onnxlrp.errors import UsageError
from tests.cli.conftest import Run


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `onnxlrp.plan` was called with; the call ends there."""
    call: dict[str, Any] = {}

    def plan(*arguments: Any, **options: Any) -> None:
        call.update(options, arguments=arguments)
        raise UsageError("received")

    monkeypatch.setattr(onnxlrp, "plan", plan)
    return call


def test_defaults_are_left_to_the_api(run: Run, received: dict[str, Any]) -> None:
    assert run("plan", "m.onnx").stderr == "onnxlrp: received\n"
    assert received == {"arguments": ("m.onnx",)}


def test_everything_that_is_stated_arrives(run: Run, received: dict[str, Any]) -> None:
    stated = "--rules mine.toml --input a --input b --output x --output y --target 7 --axis 0 --on-demand"
    stated += " --relevance-type model"
    run("plan", "m.onnx", *stated.split())
    assert received == {
        "arguments": ("m.onnx",),
        "rules": "mine.toml",
        "inputs": ("a", "b"),
        "outputs": ("x", "y"),
        "target": 7,
        "axis": 0,
        "on_demand": True,
        "relevance_type": "model",
    }


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("argmax", "argmax"),
        ("input", "input"),
        ("seed", "seed"),
        ("top:5", "top:5"),
        ("0", 0),
        ("281", 281),
        ("7,3,5", (7, 3, 5)),
        ("7, 3", (7, 3)),
        ("10:20, 5", "10:20,5"),
        (":,3:", ":,3:"),
    ],
)
def test_targets(run: Run, received: dict[str, Any], text: str, target: object) -> None:
    run("plan", "m.onnx", "--target", text)
    assert received["target"] == target
    assert type(received["target"]) is type(target)


@pytest.mark.parametrize(
    "text", ["", "cat", "-1", "1.5", "7,", ",7", "1:2:3", "1:,", "top", "top:", "top:0", "top:-1", "ARGMAX", "٣"]
)
def test_what_is_no_target_is_wrong_usage(run: Run, received: dict[str, Any], text: str) -> None:
    result = run("plan", "m.onnx", "--target", text)
    assert result.exit_code == 2
    assert f"{text!r} is no target" in result.stderr
    assert not received


@pytest.mark.parametrize(
    ("text", "position"), [("last", "last"), ("input", "input"), ("all", "all"), ("4", 4), ("-2", -2)]
)
def test_positions(run: Run, received: dict[str, Any], text: str, position: object) -> None:
    run("plan", "m.onnx", "--position", text, "--rather-than", "3")
    assert received["position"] == position and received["rather_than"] == 3


@pytest.mark.parametrize("text", ["", "first", "1,2", "1.5", "LAST"])
def test_what_is_no_position_is_wrong_usage(run: Run, received: dict[str, Any], text: str) -> None:
    result = run("plan", "m.onnx", "--position", text)
    assert result.exit_code == 2
    assert f"{text!r} is no position" in result.stderr
    assert not received
