"""Masks by way of the Explainer and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxlrp
from onnxlrp.cli.main import cli
from tests.emit.test_concepts import HIDDEN, X, network
from tests.support.evaluate import relative_l2
from tests.support.models import Net

SAMPLES = X.astype(np.float32)


@pytest.fixture(scope="module")
def explainer() -> onnxlrp.Explainer:
    return onnxlrp.Explainer(
        network(dtype=np.float32), rules="epsilon", target=2, mask_at=[HIDDEN], relevance_of=[HIDDEN]
    )


def test_channels_are_known_and_all_are_kept_unless_named(explainer: onnxlrp.Explainer) -> None:
    assert explainer.channels == {HIDDEN: 4}
    found = explainer.explain(SAMPLES)
    usual = onnxlrp.Explainer(network(dtype=np.float32), rules="epsilon", target=2).explain(SAMPLES)
    assert relative_l2(found.relevance["x"], usual.relevance["x"]) < 1e-5
    assert found.relevance_of[HIDDEN].shape == (2, 4, 4, 4) and usual.relevance_of == {}


@pytest.mark.parametrize(
    "given", [{1, 3}, frozenset({1, 3}), range(1, 4, 2), [0, 1, 0, 1], np.array([[0, 1, 0, 1]] * 2)]
)
def test_a_mask_is_a_set_of_channels_or_an_array(explainer: onnxlrp.Explainer, given: Any) -> None:
    found = explainer.explain(SAMPLES, masks={HIDDEN: given})
    parts = [explainer.explain(SAMPLES, masks={HIDDEN: {c}}).relevance["x"] for c in (1, 3)]
    assert relative_l2(found.relevance["x"], parts[0] + parts[1]) < 1e-4
    assert not found.relevance_of[HIDDEN][:, [0, 2]].any()


def test_masks_of_a_session_hold_until_a_run_says_otherwise() -> None:
    model = network(dtype=np.float32)
    held = onnxlrp.Explainer(model, rules="epsilon", target=2, masks={f"{HIDDEN}:1": {3}})
    free = onnxlrp.Explainer(model, rules="epsilon", target=2, mask_at=[HIDDEN])
    one = free.explain(SAMPLES, masks={HIDDEN: {3}})
    assert np.array_equal(held.explain(SAMPLES).relevance["x"], one.relevance["x"])
    assert np.array_equal(held.explain(SAMPLES, masks={}).relevance["x"], free.explain(SAMPLES).relevance["x"])
    assert held.explain(SAMPLES).target.endswith(f"through channels 3 of {HIDDEN}")


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"relu3": {1}}, "takes no mask at 'relu3'"),
        ({HIDDEN: {4}}, "keeps channel 4; there are 0 to 3"),
        ({HIDDEN: np.ones((3, 4))}, "has the shape [3, 4]; it must be [2, 4] or [4]"),
        ({HIDDEN: [1.0, 2.0]}, "has the shape [2]"),
        ({HIDDEN: "all"}, "must be an array of numbers"),
    ],
)
def test_masks_that_do_not_fit(explainer: onnxlrp.Explainer, masks: Any, message: str) -> None:
    with pytest.raises(onnxlrp.UsageError) as error:
        explainer.explain(SAMPLES, masks=masks)
    assert message in str(error.value)


def test_a_mask_needs_a_place_in_the_model() -> None:
    with pytest.raises(onnxlrp.UsageError, match="needs a conversion with mask_at"):
        onnxlrp.Explainer(network(dtype=np.float32), rules="epsilon").explain(SAMPLES, masks={HIDDEN: {1}})


def test_where_the_model_does_not_say_how_many_there_are_a_mask_is_an_array() -> None:
    net = Net(np.float32)
    hidden = net.op("Relu", net.op("Mul", net.input("x", ["n", 2, "rows"]), net.constant([0.5])))
    model = net.model(net.op("ReduceSum", hidden, net.constant([2]), keepdims=0))
    explainer = onnxlrp.Explainer(model, rules="epsilon", target=1, mask_at=[f"{hidden}:2"])
    x = np.abs(SAMPLES[:, :, 0])
    assert explainer.channels == {hidden: None}
    usual = explainer.explain(x).relevance["x"]
    kept = explainer.explain(x, masks={hidden: [0, 0, 1, 0, 0, 0]}).relevance["x"]
    assert usual.any() and relative_l2(kept[:, :, 2], usual[:, :, 2]) < 1e-6 and not kept[:, :, [0, 1, 3, 4, 5]].any()
    with pytest.raises(onnxlrp.UsageError, match="does not say how many channels"):
        explainer.explain(x, masks={hidden: {2}})
    assert onnxlrp.verify(explainer.model).passed


def test_on_the_command_line(tmp_path: Path) -> None:
    onnx.save(network(dtype=np.float32), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=SAMPLES)
    out, call = str(tmp_path / "out.onnx"), CliRunner()
    done = call.invoke(
        cli,
        [
            *("convert", str(tmp_path / "net.onnx"), "-o", out, "--rules", "epsilon", "--target", "2"),
            *("--mask-at", HIDDEN, "--relevance-of", HIDDEN),
        ],
    )
    assert done.exit_code == 0, done.output
    assert f"{HIDDEN} -> {HIDDEN}_relevance" in done.output
    assert f"{HIDDEN}_mask: float [batch, 4], along axis 1" in done.output
    plan = call.invoke(cli, ["plan", str(tmp_path / "net.onnx"), "--rules", "epsilon", "--mask-at", f"{HIDDEN}:2"])
    assert f"{HIDDEN}, axis 2" in plan.output
    for model, extra in ((out, []), (str(tmp_path / "net.onnx"), ["--rules", "epsilon", "--target", "2"])):
        done = call.invoke(
            cli,
            ["explain", model, str(tmp_path / "data.npz"), "-o", str(tmp_path), "--mask", f"{HIDDEN}=1,3", *extra],
        )
        assert done.exit_code == 0, done.output
        assert f"through channels 1, 3 of {HIDDEN}" in done.output
        (written,) = tmp_path.glob("data*channels*.npz")
        expected = onnxlrp.Explainer(out).explain(SAMPLES, masks={HIDDEN: {1, 3}}).relevance["x"]
        assert relative_l2(np.load(written)["relevance/x"], expected) < 1e-4
        written.unlink()
    wrong = call.invoke(cli, ["explain", out, str(tmp_path / "data.npz"), "--mask", f"{HIDDEN}=one"])
    assert wrong.exit_code == 2 and "TENSOR=3,17" in wrong.output
