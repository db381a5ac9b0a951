"""Rules for products of two tensors, against their formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from tests.support.evaluate import relative_l2, run_reference, to_float64
from tests.support.gradients import distinct
from tests.support.models import Net


def _table(folder: Path, rule: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(f'[[rule]]\nkind = "product"\n{rule}\n[[rule]]\nkind = "activation"\nrule = "pass"\n')
    return file


def _stabilised(z: np.ndarray, epsilon: float, form: str) -> np.ndarray:
    sign = np.where(z >= 0, 1.0, -1.0)
    return {"sign": z + epsilon * sign, "clip": sign * np.maximum(np.abs(z), epsilon), "plain": z + epsilon}[form]


@pytest.mark.parametrize("form", ["sign", "clip", "plain"])
def test_half_of_a_product_of_matrices_with_epsilon(tmp_path: Path, form: str) -> None:
    net = Net()
    a, c = net.input("a", [2, 3, 4]), net.input("c", [2, 4, 3])
    model = net.model(net.op("MatMul", a, c), ranks=[3])
    feeds = {"a": distinct(2, 3, 4), "c": distinct(2, 4, 3, seed=1)}
    y, seed = feeds["a"] @ feeds["c"], distinct(2, 3, 3, seed=2)
    rules = _table(tmp_path, f'rule = "half"\nepsilon = 0.3\nstabiliser = "{form}"')
    found = run_reference(to_float64(onnxlrp.convert(model, rules=rules, target="seed")), {**feeds, "lrp_seed": seed})
    share = y * seed / _stabilised(2 * y, 0.3, form)
    assert relative_l2(found["a_relevance"], feeds["a"] * (share @ feeds["c"].swapaxes(1, 2))) < 1e-12
    assert relative_l2(found["c_relevance"], feeds["c"] * (feeds["a"].swapaxes(1, 2) @ share)) < 1e-12


def test_a_product_that_is_zero_passes_on_halves_of_what_it_is_given(tmp_path: Path) -> None:
    """An activation with a value at zero gives relevance to a product that is zero."""
    net = Net()
    a, c = net.input("a", [1, 3]), net.input("c", [1, 3])
    model = net.model(net.op("Exp", net.op("Mul", a, c)), ranks=[2])
    feeds = {"a": np.array([[0.0, 2.0, -1.0]]), "c": np.array([[3.0, 0.5, 0.0]])}
    emitted = to_float64(onnxlrp.convert(model, rules=_table(tmp_path, 'rule = "half"'), target="seed"))
    found = run_reference(emitted, {**feeds, "lrp_seed": np.ones((1, 3))})
    for name in "ac":
        assert relative_l2(found[f"{name}_relevance"], np.exp(feeds["a"] * feeds["c"]) / 2) < 1e-12


def test_the_signal_of_a_product_of_matrices_gets_its_relevance_by_contributions(tmp_path: Path) -> None:
    """Behind an activation that passes relevance on, R is no multiple of the product that is known beforehand."""
    net = Net()
    scores, v = net.input("scores", [2, 3, 3]), net.input("v", [2, 3, 4])
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    model = net.model(net.op("Exp", mixed), ranks=[3])
    feeds = {"scores": distinct(2, 3, 3), "v": distinct(2, 3, 4, seed=1)}
    seed = distinct(2, 3, 4, seed=2)
    weights = np.exp(feeds["scores"]) / np.exp(feeds["scores"]).sum(-1, keepdims=True)
    y = weights @ feeds["v"]
    emitted = to_float64(onnxlrp.convert(model, rules=_table(tmp_path, 'rule = "signal"'), target="seed"))
    found = run_reference(emitted, {**feeds, "lrp_seed": seed})
    expected = feeds["v"] * (weights.swapaxes(1, 2) @ (np.exp(y) * seed / y))
    assert relative_l2(found["v_relevance"], expected) < 1e-12


@pytest.mark.parametrize("form", ["sign", "clip", "plain"])
@pytest.mark.parametrize("shares", ["signed", "absolute"])
def test_shares_in_proportion_to_the_factors(tmp_path: Path, shares: str, form: str) -> None:
    """With broadcasting, a zero product and a sum of zero."""
    net = Net()
    a, c = net.input("a", [2, 3]), net.input("c", [2, 1])
    model = net.model(net.op("Mul", a, c), ranks=[2])
    feeds = {"a": np.array([[1.0, -2.0, 0.0], [0.5, 3.0, -0.7]]), "c": np.array([[2.0], [-0.5]])}
    seed = distinct(2, 3, seed=2)
    rules = _table(tmp_path, f'rule = "proportional"\nshares = "{shares}"\nepsilon = 0.3\nstabiliser = "{form}"')
    found = run_reference(to_float64(onnxlrp.convert(model, rules=rules, target="seed")), {**feeds, "lrp_seed": seed})
    sizes = {k: np.abs(v) if shares == "absolute" else v for k, v in feeds.items()}
    share = feeds["a"] * feeds["c"] * seed / _stabilised(sizes["a"] + sizes["c"], 0.3, form)
    assert relative_l2(found["a_relevance"], sizes["a"] * share) < 1e-12
    assert relative_l2(found["c_relevance"], (sizes["c"] * share).sum(1, keepdims=True)) < 1e-12


def test_shares_of_a_quotient_go_to_the_numerator(tmp_path: Path) -> None:
    net = Net()
    a, c = net.input("a", [1, 3]), net.input("c", [1, 3])
    model = net.model(net.op("Div", a, c), ranks=[2])
    feeds = {"a": distinct(1, 3), "c": distinct(1, 3, seed=1), "lrp_seed": np.ones((1, 3))}
    emitted = to_float64(onnxlrp.convert(model, rules=_table(tmp_path, 'rule = "proportional"'), target="seed"))
    found = run_reference(emitted, feeds)
    assert relative_l2(found["a_relevance"], feeds["a"] / feeds["c"]) < 1e-12


def test_products_of_matrices_have_no_shares(tmp_path: Path) -> None:
    net = Net()
    a, c = net.input("a", [2, 3, 4]), net.input("c", [2, 4, 3])
    model = net.model(net.op("MatMul", a, c), ranks=[3])
    with pytest.raises(ConversionError, match="proportional compares the factors element by element"):
        onnxlrp.plan(model, rules=_table(tmp_path, 'rule = "proportional"'))
