"""`verify` passes on a good conversion and fails on a bad one; each kind of damage is seen by its own check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.emit.relevance import Relevance
from onnxlrp.errors import UsageError
from onnxlrp.rules import dispatch
from onnxlrp.tables import parse_table
from onnxlrp.verification import Report, verify
from onnxlrp.verification.verify import allowed_apart
from tests.emit.linear_nets import dense
from tests.emit.test_emitted import block, segmenter
from tests.graph.written import classifier, network, normal


def passed(report: Report) -> dict[str, bool]:
    return {check.name: check.passed for check in report.checks}


def failed(report: Report) -> list[str]:
    assert report.passed == all(check.passed for check in report.checks)
    return [check.name for check in report.checks if not check.passed]


NAMES = [
    "forward pass, optimisation off",
    "forward pass, optimisation on",
    "finite relevance",
    "ledger",
    "batch independence",
]


@pytest.mark.parametrize("model", [classifier, block, segmenter])
@pytest.mark.parametrize(
    "rules", ["default", "epsilon", "gradient-x-input", "epsilon-gamma-box", "excitation-backprop"]
)
def test_a_good_model_passes_every_check(model: Callable[[], onnx.ModelProto], rules: str) -> None:
    report = verify(model(), rules=rules)
    assert passed(report) == dict.fromkeys(NAMES, True)
    assert all(check.detail for check in report.checks)
    lifted = model is segmenter  # from operator set 9; averages are added up in another order from 19 on
    assert lifted or (report.checks[0].value == 0.0 and report.checks[0].detail == "bit-identical")


TARGETS: dict[str, dict[str, Any]] = {
    "index": {"target": 2},
    "input": {"target": "input"},
    "seed": {"target": "seed"},
    "top": {"target": "top:2"},
    "axis": {"axis": 1},
    "inner tensor": {"outputs": ("s",)},
    "seed on an inner tensor": {"outputs": ("s",), "target": "seed"},
    "two outputs": {"outputs": ("probabilities", "s")},
    "seeds of two shapes": {"outputs": ("probabilities", "s"), "target": "seed"},
    "targets of two outputs": {"outputs": ("probabilities", "logits"), "target": "input"},
}


@pytest.mark.parametrize("case", TARGETS)
@pytest.mark.parametrize("converted", [False, True], ids=["original", "converted"])
def test_every_target_can_be_verified_before_and_after_conversion(case: str, converted: bool) -> None:
    options = TARGETS[case]
    report = verify(onnxlrp.convert(classifier(), **options)) if converted else verify(classifier(), **options)
    assert failed(report) == []


def test_a_model_converted_on_demand_is_verified_as_the_user_has_it() -> None:
    report = verify(onnxlrp.convert(classifier(), on_demand=True))
    assert passed(report) == dict.fromkeys(NAMES, True)


CUSTOM = """
[[rule]]
op = ["Conv"]
position = "first"
rule = "flat"
[[rule]]
kind = "linear"
rule = "alpha-beta"
alpha = 3.0
beta = 2.0
"""


def test_a_model_converted_with_a_table_of_ones_own_is_verified_with_that_table(tmp_path: Path) -> None:
    """The table travels in the model: its file may be gone."""
    path = tmp_path / "mine.toml"
    path.write_text(CUSTOM)
    converted = onnxlrp.convert(classifier(), rules=path)
    path.unlink()
    report = verify(converted)
    assert failed(report) == []
    assert {(w.operator, w.rule) for w in report.worst} >= {
        ("Conv+BatchNormalization", "flat"),
        ("Conv", "alpha-beta"),
        ("Gemm", "alpha-beta"),
    }


def test_the_ledger_has_a_line_per_step_widest_gap_first() -> None:
    worst = verify(dense().model, {"x": dense().x}, rules="gradient-x-input", target=2).worst
    (line,) = worst
    net = dense()
    assert (line.node, line.operator, line.rule) == ("Gemm_0", "Gemm", "gradient")
    np.testing.assert_allclose(line.relevance_in, net.y[:, 2].sum(), rtol=1e-5)
    np.testing.assert_allclose(line.bias, 3 * normal(5, seed=3)[2], rtol=1e-5)
    np.testing.assert_allclose(line.relevance_in - line.relevance_out - line.bias, 0, atol=1e-5)
    gaps = [w.gap for w in verify(classifier()).worst]
    assert gaps == sorted(gaps, reverse=True) and len(gaps) == 8


# -- damage ------------------------------------------------------------------------------------------------------


def _distorted(monkeypatch: pytest.MonkeyPatch, rule: str, factor: float) -> None:
    """Lets a rule for linear layers send on `factor` times what it should."""
    honest = dispatch._LINEAR[rule]

    def rule_of_thumb(ctx: Any, op: Any, r: Relevance, p: Any) -> Any:
        return [(x, Relevance(ctx.b.scale(c.value, factor), c.base)) for x, c in honest(ctx, op, r, p)]

    monkeypatch.setitem(dispatch._LINEAR, rule, rule_of_thumb)  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0, 1.01])
@pytest.mark.parametrize(("rule", "nodes"), [("epsilon", ["Gemm_8"]), ("z-plus", ["Conv_4", "BatchNormalization_1"])])
def test_a_rule_that_makes_relevance_or_loses_it_is_found_at_its_node(
    monkeypatch: pytest.MonkeyPatch, rule: str, nodes: list[str], factor: float
) -> None:
    _distorted(monkeypatch, rule, factor)
    report = verify(classifier())
    assert failed(report) == ["ledger"]
    assert {w.node for w in report.worst if w.gap > 1e-3} == set(nodes)
    assert report.checks[3].detail == f"widest gap at {report.worst[0].node}"


def test_relevance_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _distorted(monkeypatch, "epsilon", float("nan"))
    report = verify(classifier())
    assert {"finite relevance", "ledger"} <= set(failed(report))
    assert "values are not finite" in report.checks[2].detail


def _converted_with_other_weight(name: str) -> onnx.ModelProto:
    """A converted model whose forward pass is not the original's any more.

    Its own `strip` gives the damaged forward pass back, so the damage is put into what a graph output reads.
    """
    converted = onnxlrp.convert(network("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"))
    (relu,) = [n for n in converted.graph.node if n.name == ""]
    relu.output[0] = "inner"
    converted.graph.node.append(onnx.helper.make_node(name, ["inner"], ["y"], name="lrp/damage"))
    for node in converted.graph.node:
        if node.name.startswith("lrp/") and node.name != "lrp/damage":
            for i, tensor in enumerate(node.input):
                node.input[i] = "inner" if tensor == "y" else tensor
    return converted


def test_a_converted_model_whose_own_outputs_differ_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    original = network("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    monkeypatch.setattr(sys.modules["onnxlrp.verification.verify"], "strip", lambda model: original)
    assert failed(verify(_converted_with_other_weight("Identity"))) == []
    report = verify(_converted_with_other_weight("Neg"))
    assert set(failed(report)) == {"forward pass, optimisation off", "forward pass, optimisation on"}
    assert report.checks[0].value == 2.0


def test_a_map_that_mixes_samples_is_found() -> None:
    """Batch statistics in the forward pass: each sample's map depends on its neighbours."""
    model = network(
        """g (float[N,4] x) => (float[N,4] y)
        { m = ReduceMean(x, axes) c = Sub(x, m) r = Relu(c) y = MatMul(r, w) }""",
        axes=np.array([0]),
        w=normal(4, 4),
    )
    assert failed(verify(model, samples=3)) == ["batch independence"]


def test_a_sample_that_cannot_stand_alone_is_found() -> None:
    """Alone it is divided by its own spread, which is zero: not a number, and no number at all is too large."""
    model = network(
        """g (float[N,4] x) => (float[N,4] y)
        { m = ReduceMean(x, axes) c = Sub(x, m) v = ReduceL2(c, axes) d = Div(c, v) y = MatMul(d, w) }""",
        axes=np.array([0]),
        w=normal(4, 4),
    )
    report = verify(model, samples=3)
    assert failed(report) == ["batch independence"]
    assert np.isnan(report.checks[4].value)


# -- data ----------------------------------------------------------------------------------------------------------


def test_data_may_be_given_and_must_fit() -> None:
    x = normal(5, 2, 8, 8)
    report = verify(classifier(), {"image": x})
    assert report.passed and report.checks[4].detail == "5 samples alone and together"
    with pytest.raises(UsageError, match="the model's inputs are image; the data has x"):
        verify(classifier(), {"x": x})
    with pytest.raises(UsageError, match="onnxruntime cannot run the model on this data"):
        verify(classifier(), {"image": x[:, :1]})


@pytest.mark.parametrize(
    ("batch", "samples", "detail"),
    [("1", 2, "not applicable: the batch size is fixed"), ("N", 1, "not applicable: one sample only")],
)
def test_batch_independence_is_not_claimed_where_it_cannot_be_seen(batch: str, samples: int, detail: str) -> None:
    report = verify(dense(batch).model, samples=samples)
    assert report.checks[4].value is None and report.checks[4].detail == detail


def test_a_map_of_zeros_is_mentioned() -> None:
    model = network("g (float[N,4] x, float[N,4] gate) => (float[N,4] y) { s = Sigmoid(gate) y = Mul(x, s) }")
    report = verify(model)
    assert report.passed and "gate_relevance is zero everywhere" in report.checks[2].detail


def test_options_of_conversion_do_not_go_with_a_converted_model() -> None:
    with pytest.raises(UsageError, match="already converted"):
        verify(onnxlrp.convert(classifier()), rules="epsilon")


def test_weights_in_files_are_verified_in_place(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(classifier(), str(path), save_as_external_data=True, location="w.data", size_threshold=16)
    assert verify(path).passed
    onnxlrp.convert_file(path, tmp_path / "out.onnx")
    assert verify(tmp_path / "out.onnx").passed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out.onnx", "w.data"]


def test_a_hand_made_table_is_verified() -> None:
    rules = parse_table('[[rule]]\nkind = "linear"\nrule = "w-square"\n', name="mine", source="mine.toml")
    assert verify(classifier(), rules=rules).passed


def test_rounding_excuses_twice_what_the_original_itself_moves_by_and_no_more() -> None:
    assert allowed_apart(1e-5, 0.0) == 1e-5
    assert allowed_apart(1e-5, 3e-5) == pytest.approx(6e-5)
    assert allowed_apart(1e-5, 0.1) == pytest.approx(2e-4)
