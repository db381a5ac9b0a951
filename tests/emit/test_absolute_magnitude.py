"""absLRP on whole networks equals the maps of the fixtures, which were made by other code in float64.

`clean_*` are the closed forms of the rule, one for every operator, by which the class token is picked as well; `repo_*`
are the authors' released code. Fixtures: two residual networks with BatchNorm and a vision transformer, random
weights, 2 or 3 images each; exported by torch at opset 17 in primitive nodes (GELU by Erf).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlrp
from onnxlrp.tables import parse_table, preset_text
from tests.support.evaluate import cosine, relative_l2, run_onnxruntime, run_reference, to_float64

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "abslrp"
#: The maps that each rule table is to give.
MAPS = {"abslrp": "clean", "abslrp-reference": "repo"}
NETWORKS = ("resnet_basic", "resnet_bottleneck", "vit")


@cache
def fixture(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    with np.load(FOLDER / f"{name}.npz") as found:
        return onnx.load(FOLDER / f"{name}.onnx"), dict(found)


@cache
def converted(name: str, rules: str = "abslrp") -> onnx.ModelProto:
    return onnxlrp.convert(fixture(name)[0], rules=rules)


def of_pass(name: str, rules: str, seed: np.ndarray) -> np.ndarray:
    """The map of one pass: a seed that is nowhere negative has no other."""
    emitted = to_float64(onnxlrp.convert(fixture(name)[0], rules=rules, target="seed"))
    image = fixture(name)[1]["image"].astype(np.float64)
    return run_reference(emitted, {"image": image, "lrp_seed": seed})["image_relevance"]


@pytest.mark.parametrize("rules", MAPS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_contrast_in_float64(name: str, rules: str) -> None:
    known = fixture(name)[1]
    found = run_reference(to_float64(converted(name, rules)), {"image": known["image"].astype(np.float64)})
    assert relative_l2(found["logits"], known["logits"]) < 1e-6
    assert relative_l2(found["image_relevance"], known[f"{MAPS[rules]}_contrast"]) < 1e-5


@pytest.mark.parametrize("rules", MAPS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_contrast_in_float32(name: str, rules: str) -> None:
    known = fixture(name)[1]
    found = run_onnxruntime(converted(name, rules), {"image": known["image"]})["image_relevance"]
    for one, expected in zip(found, known[f"{MAPS[rules]}_contrast"], strict=True):
        assert cosine(one, expected) > 0.99999
        assert np.abs(one).max() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", ["resnet_basic", "resnet_bottleneck"])
def test_the_first_form_conserves_its_mass_at_every_tensor(name: str) -> None:
    """One pass of a positive seed: on the trunk the sum stays 1, at an addition both terms together have what came."""
    model, known = fixture(name)
    text = preset_text("abslrp-intline").replace('scale = "max"', "")
    table = parse_table(text, name="intline", source="test")
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    asked = [x for node in adds for x in (*node.input, *node.output)]
    emitted = onnxlrp.convert(model, rules=table, target="seed", relevance_of=tuple(dict.fromkeys(asked)))
    logits = known["logits"]
    feeds = {"image": known["image"].astype(np.float64), "lrp_seed": np.eye(logits.shape[1])[logits.argmax(1)]}
    found = run_reference(to_float64(emitted), feeds)
    mass = {x: found[f"{x}_relevance"].sum(axis=(1, 2, 3)) for x in asked}
    assert all(found[f"{x}_relevance"].min() >= -1e-15 for x in asked)
    read = [x for node in model.graph.node for x in node.input]
    for node in adds:
        np.testing.assert_allclose(mass[node.output[0]], 1.0, atol=1e-6)
    # What else reads a shortcut adds to it: sums are of terms that nothing else reads.
    apart = [node for node in adds if all(read.count(x) == 1 for x in node.input)]
    assert apart
    for node in apart:
        np.testing.assert_allclose(sum(mass[x] for x in node.input), 1.0, atol=1e-6)
    np.testing.assert_allclose(found["image_relevance"].sum(axis=(1, 2, 3)), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet_basic", "vit"])
@pytest.mark.parametrize("which", ["positive", "negative"])
def test_each_pass(name: str, which: str) -> None:
    known = fixture(name)[1]
    winner = np.eye(known["logits"].shape[1])[known["logits"].argmax(1)]
    found = of_pass(name, "abslrp", winner if which == "positive" else 1 - winner)
    largest = np.abs(found).max(axis=(1, 2, 3), keepdims=True)
    expected = known[f"clean_{which}"]
    expected = expected / np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    assert largest == pytest.approx(np.ones_like(largest), abs=1e-6)
    assert relative_l2(found, expected) < 1e-5
