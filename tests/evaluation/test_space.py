"""The space of rule tables: what is drawn is a table that the model can be converted with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxlrp
from onnxlrp.evaluation.space import Candidate, Choice, Traits, draw, near, traits_of
from onnxlrp.evaluation.subject import Engine
from onnxlrp.tables import parse_table
from tests.support import texts

MODELS = Path(__file__).parents[2] / "models"
MNIST = str(MODELS / "mnist-conv.onnx")
BOUNDS = ((0.0,), (255.0,))


def test_what_there_is_to_choose_comes_from_the_network() -> None:
    found = traits_of(Engine(MNIST).steps(), *BOUNDS)
    assert (found.first, found.low, found.high) == ("Conv", *BOUNDS)
    assert found.dimensions == ("lower", "middle", "upper", "borders", "first")
    assert traits_of(Engine(MNIST).steps()).first == "", "ids have no bounds"


def test_an_input_that_is_scaled_before_its_first_layer_gives_no_bounds() -> None:
    found = traits_of(Engine(str(MODELS / "iris.onnx")).steps(), (0.0,), (8.0,))
    assert (found.first, found.low) == ("Gemm", None)
    generator = np.random.default_rng(0)
    rules = {c.rule for _ in range(100) if (c := draw(found, generator).choices.get("first"))}
    assert rules == {"flat", "w-square"}


@pytest.mark.parametrize("seed", range(6))
def test_every_point_is_a_table_for_the_model(seed: int) -> None:
    generator = np.random.default_rng(seed)
    traits = traits_of(Engine(MNIST).steps(), *BOUNDS)
    candidate = draw(traits, generator)
    for one in (candidate, near(candidate, traits, generator)):
        plan = onnxlrp.plan(MNIST, rules=one.table("tried", traits))
        linear = [step.rule for step in plan.steps if step.kind == "linear"]
        asked = [one.choices[name].rule for name in ("upper", "middle", "lower")]
        assert linear[0] == asked[0] and set(linear) <= {*asked, *(c.rule for c in one.choices.values())}
        if "first" in one.choices:
            assert linear[-1] == one.choices["first"].rule


def test_a_neighbour_differs_in_one_dimension_or_two() -> None:
    generator = np.random.default_rng(1)
    traits = Traits(frozenset({"sum", "product"}), True, "Conv", *BOUNDS)
    start = draw(traits, generator)
    for _ in range(30):
        other = near(start, traits, generator)
        names = {*start.choices, *other.choices}
        changed = sum(start.choices.get(n) != other.choices.get(n) for n in names) + (start.borders != other.borders)
        assert changed <= 2


def test_the_text_of_a_table_says_what_was_chosen() -> None:
    chosen = {
        "first": Choice("z-box", {"low": (-1.0, 0.0), "high": (1.0, 2.5)}),
        "lower": Choice("gamma", {"gamma": 0.3}),
        "middle": Choice("z-plus"),
        "upper": Choice("epsilon", {"epsilon": 0.01, "stabiliser": "norm"}),
    }
    traits = Traits(frozenset(), False, "Conv")
    text = Candidate(chosen, (0.2, 0.8)).toml("mine", "as found", traits, ["how it was found", ""])
    assert text.startswith('# how it was found\n#\nname = "mine"\n')
    table = parse_table(text, name="x", source="x")
    first, lower, upper, middle = table.entries[:4]
    assert (first.position, first.parameters["high"]) == ("first", (1.0, 2.5))
    assert (lower.rule, lower.depth_to, lower.parameters["gamma"]) == ("gamma", 0.2, 0.3)
    assert (upper.rule, upper.depth_from, upper.parameters["stabiliser"]) == ("epsilon", 0.8, "norm")
    assert (middle.rule, middle.depth_from, middle.depth_to) == ("z-plus", 0.0, 1.0)


def test_texts_have_a_space_too() -> None:
    traits = traits_of(Engine(texts.classifier(), input_name="input_ids").steps())
    candidate = draw(traits, np.random.default_rng(0))
    assert onnxlrp.plan(texts.classifier(), rules=candidate.table("tried", traits), inputs=["input_ids"]).steps
