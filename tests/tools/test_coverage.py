"""tools/coverage.py finds what is wrong, and tells right, refused and nothing apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from backend import check, emitted, report
from backend.cases import Case
from backend.point import Way, directions, is_affine, moved, slope
from backend.results import Result
from onnx import helper, numpy_helper

import onnxlrp
from tests.support.models import Net

Tamper = Callable[[onnx.ModelProto], None]


def case(op: str, *shape: int, inputs: int = 1, **attributes: float) -> Case:
    """An operator of inputs of one shape as a case of that name."""
    net = Net(np.float32)
    names = [net.input(f"x{i}", shape) for i in range(inputs)]
    y = net.op(op, *names, **attributes)
    rng = np.random.default_rng(3)
    feeds = {name: rng.normal(size=shape).astype(np.float32) for name in names}
    model = net.model(y, ranks=[len(shape)])
    expected = emitted.run(emitted.onnxruntime_session(model, optimised=False), feeds)
    return Case(f"test_{op.lower()}", "node", op, False, model, feeds, expected)


def relevance_times(factor: float) -> Tamper:
    """Relevance that is off by a factor."""

    def tamper(model: onnx.ModelProto) -> None:
        (name,) = [v.name for v in model.graph.output if v.name.endswith("_relevance")]
        maker = next(n for n in model.graph.node if name in n.output)
        maker.output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
        model.graph.node.append(helper.make_node("Mul", ["before", "factor"], [name]))

    return tamper


def changed_forward(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Elu"


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (relevance_times(1.001), "differences"),
        (relevance_times(-1.0), "differences"),
        (relevance_times(0.0), "differences"),
        (relevance_times(float("nan")), "finite"),
        (changed_forward, "forward"),
    ],
)
def test_what_is_wrong_is_found(tamper: Tamper, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnxlrp.convert

    def convert(*given: object, **options: object) -> onnx.ModelProto:
        model = right(*given, **options)
        if options["rules"] == check.GRADIENT:
            tamper(model)
        return model

    monkeypatch.setattr(onnxlrp, "convert", convert)
    result = check.check(case("Selu", 3, 5))
    assert (result.status, result.reason.split(":")[0]) == ("wrong", found)


@pytest.mark.parametrize(
    ("op", "inputs", "status"), [("Selu", 1, "right"), ("Sub", 2, "right"), ("Max", 2, "right"), ("Ceil", 1, "nothing")]
)
def test_what_is_right_is_right(op: str, inputs: int, status: str) -> None:
    result = check.check(case(op, 3, 5, inputs=inputs))
    assert (result.status, result.reason) == (status, "")


def test_a_linear_operator_is_also_checked_under_lrp_0() -> None:
    result = check.check(case("Sub", 3, 5, inputs=2))
    assert result.checks["LRP-0"] == 12
    assert "LRP-0" not in check.check(case("Selu", 3, 5)).checks


def test_a_refusal_is_told_with_its_reason() -> None:
    one = case("Relu", 3, 5)
    model = onnx.ModelProto()
    model.CopyFrom(one.model)
    model.graph.node[0].domain = "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    result = check.check(Case("test_own", "node", "Relu", False, model, one.feeds, one.expected))
    assert result.status == "refused"
    assert "my.domain.Relu" in report.reason_of(result)


class TestPoints:
    def test_inputs_are_moved_off_zero_and_off_ties(self) -> None:
        x = np.zeros((4, 5), np.float32)
        found = moved(x, np.random.default_rng(0), Way(0.1))
        assert (found != 0).all()
        assert np.unique(found).size == x.size

    def test_ties_are_kept_where_asked_for(self) -> None:
        x = np.array([2, 1, 1, 3, 2], np.float32)
        found = moved(x, np.random.default_rng(0), Way(0.1, tied=True))
        assert found[0] == found[4] != found[1] == found[2]
        for direction in directions(found, np.random.default_rng(0), tied=True):
            assert direction[0] == direction[4]
            assert direction[1] == direction[2]

    def test_a_slope_is_found_and_a_kink_is_seen(self) -> None:
        at = {"x": np.array([1.0, -2.0])}
        smooth = slope(lambda f: float(np.sin(f["x"]).sum()), at, "x", np.array([1.0, 0.0]), 2.0)
        assert smooth.smooth
        assert smooth.value == pytest.approx(np.cos(1.0), abs=1e-8)
        assert not slope(lambda f: abs(float(f["x"][0]) - 1), at, "x", np.array([1.0, 0.0]), 1.0).smooth

    @pytest.mark.parametrize(("f", "affine"), [(lambda x: 3 * x + 1, True), (abs, False), (np.sin, False)])
    def test_affine_functions_are_told_apart(self, f: Callable[[np.ndarray], np.ndarray], affine: bool) -> None:
        at = {"x": np.linspace(1.0, 2.0, 6)}
        assert is_affine(lambda feeds: [f(feeds["x"])], at, "x", np.random.default_rng(0)) == affine


def result(name: str, operator: str, status: str, reason: str = "") -> Result:
    return Result(name, operator, "node", False, status, reason)  # type: ignore[arg-type]


def test_the_page_counts_by_operator_and_groups_reasons() -> None:
    refusal = "cannot convert: one node stands in the way of relevance:\n  {} (Foo): it is random; leave it out"
    page = report.markdown(
        [
            result("test_a", "Foo", "right"),
            result("test_b", "Foo", "refused", refusal.format("Foo_0")),
            result("test_c", "Foo", "refused", refusal.format("n1")),
            result("test_d", "Bar", "wrong", "differences: the gradient of x is off by 1"),
        ]
    )
    assert "| 4 | 1 | 1 | 2 | 0 | 50.0 % |" in page
    assert "| Foo | 3 | 1 |  | 2 |  |" in page
    assert "| Foo | 2 | Foo: it is random | `test_b` |" in page
    assert "| Bar | 1 | differences: the gradient of x is off by 1 | `test_d` |" in page
