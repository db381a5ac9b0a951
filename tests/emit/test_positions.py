"""The classes of one position of a sequence: the same map as a seed on that position of the whole output."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxlrp
from onnxlrp.planning.model import Plan
from tests.support.evaluate import relative_l2, run_onnxruntime, run_reference, to_float64
from tests.support.gradients import central_gradient
from tests.support.language import BODY, HEAD, VOCABULARY, WEIGHTS, language_model, written

Array = np.ndarray
IDS = np.array([[1, 7, 7, 3, 4], [2, 0, 5, 5, 8]])
#: How a position is asked for, what is fed with it, and the position of each sample.
WAYS: list[tuple[Any, dict[str, Array], list[int]]] = [
    ("last", {}, [4, 4]),
    (2, {}, [2, 2]),
    (-2, {}, [3, 3]),
    ("input", {"lrp_position": np.array([[1], [-1]])}, [1, 4]),
]
ALL = pytest.mark.parametrize(("position", "fed", "places"), WAYS, ids=[str(way[0]) for way in WAYS])


def run(model: onnx.ModelProto, **options: Any) -> dict[str, Array]:
    fed = options.pop("fed", {})
    emitted = onnxlrp.convert(model, **options)
    onnx.checker.check_model(emitted, full_check=True)
    return run_reference(to_float64(emitted), {"ids": IDS, **fed})


def seeded(model: onnx.ModelProto, rules: str, seed: Array) -> Array:
    return run(model, rules=rules, target="seed", fed={"lrp_seed": seed})["ids_relevance"]


def one_hot(places: list[int], classes: list[int]) -> Array:
    seed = np.zeros((*IDS.shape, VOCABULARY))
    seed[[0, 1], places, classes] = 1
    return seed


@ALL
@pytest.mark.parametrize("rules", ["epsilon", "gradient-x-input", "default"])
def test_a_class_of_one_position(position: Any, fed: dict[str, Array], places: list[int], rules: str) -> None:
    model = language_model()
    found = run(model, rules=rules, position=position, target=3, fed=fed)["ids_relevance"]
    assert relative_l2(found, seeded(model, rules, one_hot(places, [3, 3]))) < 1e-9


@ALL
def test_the_likeliest_class_of_one_position(position: Any, fed: dict[str, Array], places: list[int]) -> None:
    model = language_model()
    result = run(model, rules="epsilon", position=position, fed=fed)
    classes = [int(result["logits"][i, place].argmax()) for i, place in enumerate(places)]
    assert relative_l2(result["ids_relevance"], seeded(model, "epsilon", one_hot(places, classes))) < 1e-9


@ALL
def test_other_targets_choose_among_the_classes_of_that_position(
    position: Any, fed: dict[str, Array], places: list[int]
) -> None:
    model = language_model()
    by_input = {**fed, "lrp_target": np.array([[3], [8]])}
    of_each = run(model, rules="epsilon", position=position, target="input", fed=by_input)["ids_relevance"]
    assert relative_l2(of_each, seeded(model, "epsilon", one_hot(places, [3, 8]))) < 1e-9
    seed = np.random.default_rng(1).normal(size=(2, VOCABULARY))
    whole = np.zeros((*IDS.shape, VOCABULARY))
    whole[[0, 1], places] = seed
    by_seed = run(model, rules="epsilon", position=position, target="seed", fed={**fed, "lrp_seed": seed})
    assert relative_l2(by_seed["ids_relevance"], seeded(model, "epsilon", whole)) < 1e-9
    best = run(model, rules="epsilon", position=position, target="top:2", fed=fed)
    for rank in range(2):
        classes = [int(np.argsort(-best["logits"][i, place])[rank]) for i, place in enumerate(places)]
        assert relative_l2(best["ids_relevance"][:, rank], seeded(model, "epsilon", one_hot(places, classes))) < 1e-9


def test_one_token_rather_than_another() -> None:
    model = language_model()
    found = run(model, rules="epsilon", position="last", target=3, rather_than=5)["ids_relevance"]
    seed = one_hot([4, 4], [3, 3]) - one_hot([4, 4], [5, 5])
    assert relative_l2(found, seeded(model, "epsilon", seed)) < 1e-9


def test_all_positions_explain_the_likeliest_class_of_each() -> None:
    model = language_model()
    result = run(model, rules="epsilon", position="all")
    seed = np.eye(VOCABULARY)[result["logits"].argmax(-1)]
    assert relative_l2(result["ids_relevance"], seeded(model, "epsilon", seed)) < 1e-9


def test_the_gradient_is_that_of_one_logit() -> None:
    model = written(BODY + HEAD, "float[N,S,4] e")
    e = WEIGHTS["words"].astype(np.float32).astype(np.float64)[IDS]
    emitted = onnxlrp.convert(model, rules="gradient-x-input", position=1, target=6)
    found = run_reference(to_float64(emitted), {"e": e})["e_relevance"]
    wide = to_float64(model)
    gradient = central_gradient(lambda at: float(run_reference(wide, at)["logits"][:, 1, 6].sum()), {"e": e}, "e")
    assert relative_l2(found, e * gradient) < 1e-8


def test_relevance_on_demand_and_several_outputs_share_one_position_input() -> None:
    model = language_model()
    fed = {"lrp_position": np.array([[1], [2]])}
    plain = run(model, rules="epsilon", position="input", target=3, fed=fed)["ids_relevance"]
    switch = {"lrp_explain": np.array([[True], [True]])}
    demanded = run(model, rules="epsilon", position="input", target=3, on_demand=True, fed={**fed, **switch})
    assert relative_l2(demanded["ids_relevance"], plain) < 1e-12
    both = run(model, rules="epsilon", position="input", target=3, outputs=["logits", "t"], fed=fed)
    assert relative_l2(both["ids_relevance_logits"], plain) < 1e-12


def test_a_position_that_the_sequence_does_not_have_is_an_error_and_not_another_position() -> None:
    explainer = onnxlrp.Explainer(language_model(), rules="epsilon", position=5)
    with pytest.raises(onnxlrp.UsageError, match="onnxruntime cannot run"):
        explainer.explain({"ids": IDS})
    assert explainer.explain({"ids": np.tile(IDS, (1, 2))}).relevance["ids"].shape == (2, 10)


def test_a_sequence_of_one() -> None:
    explainer = onnxlrp.Explainer(language_model(), rules="gradient-x-input", position="last")
    found = explainer.explain({"ids": IDS[:, :1]})
    assert found.relevance["ids"].shape == (2, 1)
    assert found.explained_output is not None and found.explained_output.shape == (2, VOCABULARY)


def test_the_layer_of_the_logits_is_gone_back_through_for_one_position_only() -> None:
    """With 5 positions of which one is explained, the passes back through the head cost a fifth."""
    plan: Plan = onnxlrp.plan(language_model(5), rules="epsilon", position="last")
    head = next(step for step in plan.steps if step.operator.startswith("MatMul+Add"))
    assert head.relevance_macs == 4 * VOCABULARY
    assert any("position last" in note for note in plan.notes)


def test_verify_knows_of_positions() -> None:
    for options in (
        {"position": 2},
        {"position": "input", "target": "seed"},
        {"target": (1, 3), "rather_than": (0, 2)},
    ):
        report = onnxlrp.verify(language_model(), {"ids": IDS}, rules="epsilon", **options)  # type: ignore[arg-type]
        assert report.passed, report
        emitted = onnxlrp.convert(language_model(), rules="epsilon", **options)  # type: ignore[arg-type]
        assert onnxlrp.verify(emitted, {"ids": IDS}).passed


@pytest.mark.parametrize(("position", "fed"), [("last", {}), ("input", {"lrp_position": np.array([[1], [2]])})])
def test_a_model_in_float16_gives_the_same_in_its_precision(position: Any, fed: dict[str, Array]) -> None:
    """With a cast behind the head, as exporters write it, through which the position is still picked early."""
    head = HEAD.replace("logits =", "narrow =")
    halves = written(f"e = Gather(words, ids) {BODY} {head} logits = Cast <to = 1> (narrow)")
    for tensor in halves.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    found, wide = (
        run_onnxruntime(onnxlrp.convert(model, rules="epsilon", position=position, target=3), {"ids": IDS, **fed})
        for model in (halves, language_model())
    )
    assert relative_l2(found["ids_relevance"], wide["ids_relevance"]) < 1e-2
    plan = onnxlrp.plan(halves, rules="epsilon", position=position)
    order = [step.operator.split("+")[0] for step in plan.steps]
    assert order.index("MatMul") < min(k for k, step in enumerate(plan.steps) if "position" in step.nodes[0])
