"""A logistic function in primitive nodes is a Sigmoid: the same relevance, and finite where exp overflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import onnxlrp
from tests.support.evaluate import relative_l2, run_onnxruntime
from tests.support.models import Net

Array = np.ndarray
Build = Callable[[Net, str], str]


def _one(net: Net, value: float = 1.0) -> str:
    return net.constant(np.array(value))


FORMS: Mapping[str, Build] = {
    "quotient": lambda net, x: net.op("Div", _one(net), net.op("Add", _one(net), net.op("Exp", net.op("Neg", x)))),
    "reciprocal": lambda net, x: net.op("Reciprocal", net.op("Add", net.op("Exp", net.op("Neg", x)), _one(net))),
    "times-minus-one": lambda net, x: net.op(
        "Div", _one(net), net.op("Add", net.op("Exp", net.op("Mul", x, _one(net, -1.0))), _one(net))
    ),
}
X = np.array([[-200.0, -3.0, 0.0, 1.5], [90.0, -95.0, 4.0, 0.1]], np.float32)


def _relevance(build: Build, rules: str) -> Array:
    """Behind a factor, so that the function is no head that would be stepped over."""
    net = Net(np.float32)
    y = net.op("Mul", build(net, net.input("x", X.shape)), _one(net, 2.0))
    emitted = onnxlrp.convert(net.model(y, ranks=[2]), rules=rules, target="seed")
    return run_onnxruntime(emitted, {"x": X, "lrp_seed": np.ones_like(X)})["x_relevance"]


@pytest.mark.parametrize("rules", ["epsilon", "default", "attnlrp", "gradient-x-input"])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_a_sigmoid(form: str, rules: str) -> None:
    found = _relevance(FORMS[form], rules)
    assert np.isfinite(found).all()
    assert relative_l2(found, _relevance(lambda net, x: net.op("Sigmoid", x), rules)) < 1e-6


def test_at_the_end_of_a_model_it_is_stepped_over() -> None:
    net = Net(np.float32)
    y = net.op("Identity", FORMS["quotient"](net, net.input("x", [2, 4])))
    assert "stepped over" in " ".join(onnxlrp.plan(net.model(y, ranks=[2]), rules="epsilon").notes)


def test_other_quotients_stay_what_they_are() -> None:
    net = Net(np.float32)
    x = net.input("x", [2, 4])
    y = net.op("Div", _one(net, 2.0), net.op("Add", _one(net), net.op("Exp", net.op("Neg", x))))
    operators = [s.operator for s in onnxlrp.plan(net.model(y, ranks=[2]), rules="epsilon").steps]
    assert "Sigmoid" not in operators
