"""Each preset says of every kind of step which rule treats it."""

from __future__ import annotations

import pytest

from onnxlrp.rules.spec import KINDS
from onnxlrp.tables import StepFacts, load_table, match, preset_names, preset_text

#: Rule by kind of step. "conv" and "dense" are the two sorts of linear step that presets tell apart, "input" is a
#: convolution at the input, "attention" a product of two tensors by MatMul, "relu" a Relu (other activations stand
#: under "activation").
USUAL = {
    "affine": "epsilon",
    "average": "norm",
    "sum": "norm",
    "activation": "pass",
    "relu": "pass",
    "normalization": "epsilon",
    "product": "signal",
    "attention": "half",
    "max": "winner",
    "movement": "move",
}
GRADIENT = dict.fromkeys([*USUAL, "input", "conv", "dense"], "gradient")
POSITIVE = dict.fromkeys(["affine", "average", "sum", "normalization"], "z-plus")
ZERO = {**USUAL, **dict.fromkeys(["affine", "average", "sum", "normalization", "input", "conv", "dense"], "z")}
ABSOLUTE = {**dict.fromkeys([*USUAL, "input", "conv", "dense"], "absolute-magnitude"), "movement": "move"}
EXPECTED = {
    **dict.fromkeys(["abslrp", "abslrp-reference", "abslrp-reference-vgg", "abslrp-intline"], ABSOLUTE),
    "relative-lrp": {
        **USUAL,
        **dict.fromkeys(["input", "conv", "dense", "affine", "average"], "relative"),
        "sum": "epsilon",
    },
    "attnlrp": {**ZERO, "product": "half"},
    "attnlrp-explicit": {
        **USUAL,
        **dict.fromkeys(["average", "sum", "input", "conv", "dense"], "epsilon"),
        "product": "half",
    },
    "pe-aware": {**ZERO, "product": "half"},
    "cp-lrp": {**ZERO, "attention": "signal"},
    **{name: {**ZERO, "attention": "signal"} for name in ("mamba-lrp", "mamba-lrp-vision")},
    "dpa": {**ZERO, "product": "dpa", "attention": "dpa"},
    "attnlrp-gamma": {**ZERO, "input": "gamma", "conv": "gamma", "dense": "gamma", "product": "half"},
    "epsilon": {**USUAL, "input": "epsilon", "conv": "epsilon", "dense": "epsilon"},
    "epsilon-plus": {**USUAL, "input": "z-plus", "conv": "z-plus", "dense": "epsilon"},
    "epsilon-plus-flat": {**USUAL, "input": "flat", "conv": "z-plus", "dense": "epsilon"},
    "epsilon-alpha2-beta1": {**USUAL, "input": "alpha-beta", "conv": "alpha-beta", "dense": "epsilon"},
    "epsilon-alpha2-beta1-flat": {**USUAL, "input": "flat", "conv": "alpha-beta", "dense": "epsilon"},
    "epsilon-gamma-box": {**USUAL, "input": "z-box", "conv": "gamma", "dense": "epsilon"},
    "deep-taylor": {**USUAL, **POSITIVE, "input": "w-square", "conv": "z-plus", "dense": "z-plus"},
    "excitation-backprop": {
        **USUAL,
        "input": "z-plus",
        "conv": "z-plus",
        "dense": "z-plus",
        "activation": "gradient",
        "relu": "gradient",
    },
    "deconvnet": {**GRADIENT, "relu": "deconvnet"},
    "guided-backprop": {**GRADIENT, "relu": "guided-backprop"},
    "gradient": GRADIENT,
    "gradient-x-input": GRADIENT,
    "default": {**USUAL, "input": "z-plus", "conv": "z-plus", "dense": "epsilon"},
}


def facts(step: str) -> StepFacts:
    operator, kind, first = {
        "input": ("Conv", "linear", True),
        "conv": ("ConvTranspose", "linear", False),
        "dense": ("Gemm", "linear", False),
        "relu": ("Relu", "activation", False),
        "attention": ("MatMul", "product", False),
    }.get(step, ("", step, False))
    return StepFacts((operator,), kind, ("node",), None, first, False, 0.5)


def test_there_are_these_presets() -> None:
    assert preset_names() == tuple(sorted(EXPECTED))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_preset_gives_each_kind_of_step_its_rule(name: str) -> None:
    table = load_table(name)
    found = {step: match(table, facts(step)) for step in EXPECTED[name]}
    assert {step: entry and entry.rule for step, entry in found.items()} == EXPECTED[name]
    # Trees have one rule, besides their derivative, that no preset needs to name.
    assert {facts(step).kind for step in EXPECTED[name]} == set(KINDS) - {"tree"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_preset_is_fit_to_be_copied(name: str) -> None:
    table = load_table(name)
    text = preset_text(name)
    assert (table.name, table.source, table.text) == (name, "preset", text)
    assert 20 < len(table.description) <= 100
    assert text.startswith("# ") and max(map(len, text.splitlines())) <= 120
    for entry in table.entries:  # each entry says in a comment what it is for
        assert "#" in text.splitlines()[entry.line - 1]


@pytest.mark.parametrize("name", EXPECTED)
def test_only_gradients_are_not_multiplied_by_the_input(name: str) -> None:
    gradients = ("gradient", "deconvnet", "guided-backprop")
    assert load_table(name).output == ("gradient" if name in gradients else "relevance")


def test_the_numbers_of_the_presets() -> None:
    def parameters(name: str, step: str) -> dict[str, object]:
        entry = match(load_table(name), facts(step))
        assert entry is not None
        return dict(entry.parameters)

    assert parameters("epsilon-alpha2-beta1", "conv")["alpha"] == 2.0
    assert parameters("epsilon-alpha2-beta1", "conv")["beta"] == 1.0
    assert parameters("epsilon-gamma-box", "conv")["gamma"] == 0.25
    # ImageNet's normalisation takes black to (0 - mean) / std and white to (1 - mean) / std
    box = parameters("epsilon-gamma-box", "input")
    assert box["low"] == pytest.approx(min(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225), abs=0.005)
    assert box["high"] == pytest.approx(max(0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225), abs=0.005)
    for name in EXPECTED:
        for step, rule in EXPECTED[name].items():
            usual = {"half": 0.0, "absolute-magnitude": 1e-9}.get(rule, 1e-6)
            published = {"sum": 1e-8, "attention": 1e-8}.get(step, usual) if name == "attnlrp-explicit" else usual
            assert parameters(name, step).get("epsilon", usual) == published
