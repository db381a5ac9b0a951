"""A run gives the same numbers however it is cut up, and goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.evaluation import registry
from onnxlrp.evaluation.case import Case
from onnxlrp.evaluation.evaluate import Evaluation, Options, evaluate, make_plan
from onnxlrp.evaluation.registry import Metric, Settings
from onnxlrp.evaluation.run import chosen_metrics, run
from onnxlrp.evaluation.store import Store

MODELS = Path(__file__).parents[2] / "models"
IRIS, FLOWERS = str(MODELS / "iris.onnx"), MODELS / "iris.csv"
SPECIES = ("setosa", "versicolor", "virginica")


class Counted:
    """A metric that counts the samples it was given."""

    def __init__(self, measure: Callable[[Case, Settings], dict[str, np.ndarray]]) -> None:
        self.samples = 0
        self._measure = measure

    def __call__(self, case: Case, settings: Settings) -> dict[str, np.ndarray]:
        self.samples += len(case.values)
        return self._measure(case, settings)


def drawn(case: Case, settings: Settings) -> dict[str, np.ndarray]:
    """The map weighted by random numbers of each sample."""
    maps = case.method.maps(case.values, case.targets, case.rows)
    weights = np.stack([case.generator(i).random(maps.shape[1:]) for i in range(len(maps))])
    return {"drawn": settings["factor"] * (maps * weights).sum(axis=1)}


def pairs(case: Case, settings: Settings) -> dict[str, np.ndarray]:
    """The score of the second of two samples for both of them."""
    scores = case.subject.scores(case.values, case.rows).max(axis=1)
    return {"second": np.repeat(scores[1::2], 2)}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counted]:
    monkeypatch.setattr(registry, "_METRICS", dict(registry.metrics()))
    made = {"drawn": Counted(drawn), "pairs": Counted(pairs)}
    registry.register(Metric("drawn", "", "", {"drawn": "higher"}, made["drawn"], {"factor": 1.0}))
    registry.register(Metric("pairs", "", "", {"second": "higher"}, made["pairs"], group=2))
    registry.register(Metric("seen", "", "", {"seen": "higher"}, drawn, {"factor": 1.0}, needs=("marked",)))
    return made


def options(**changes: Any) -> Options:
    made = Options(rules=("epsilon",), baselines=("random",), metrics=("drawn", "pairs"))
    made = dataclasses.replace(made, data=dataclasses.replace(made.data, label_column="species", labels=SPECIES))
    return dataclasses.replace(made, **changes)


def numbers(found: Evaluation) -> dict[tuple[int, str, str], Any]:
    return {(r.place, r.method, r.metric): r.parts for r in found.outcome.records}


def test_every_sample_is_judged_by_every_metric_on_every_method(counted: dict[str, Counted]) -> None:
    found = numbers(evaluate(IRIS, FLOWERS, options()))
    assert {key[1:] for key in found} == {(m, k) for m in ("epsilon", "random") for k in ("drawn", "pairs")}
    assert sorted(key[0] for key in found if key[1:] == ("epsilon", "drawn")) == list(range(15))
    whole = sorted(key[0] for key in found if key[1:] == ("epsilon", "pairs"))
    assert whole == list(range(14)), "the last flower has no partner"


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_numbers_do_not_depend_on_the_batch(batch: int, counted: dict[str, Counted]) -> None:
    expected, found = (numbers(evaluate(IRIS, FLOWERS, options(batch=size))) for size in (8, batch))
    assert found.keys() == expected.keys()
    for key, parts in found.items():
        assert parts == pytest.approx(expected[key], rel=1e-5), key


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, counted: dict[str, Counted]) -> None:
    path = tmp_path / "results.jsonl"
    expected = numbers(evaluate(IRIS, FLOWERS, options()))
    plan, _ = make_plan(IRIS, FLOWERS, options(batch=4))
    store = Store(path)
    answers = iter([False] * 6)
    run(plan, store, stop=lambda: next(answers, True))
    store.close()
    done = len(Store(path))
    assert 0 < done < len(expected)
    path.write_text(path.read_text()[:-9])  # the last line was being written
    before = counted["drawn"].samples + counted["pairs"].samples
    again = evaluate(IRIS, FLOWERS, options(results=path))
    assert numbers(again) == {key: pytest.approx(parts, rel=1e-5) for key, parts in expected.items()}
    computed = counted["drawn"].samples + counted["pairs"].samples - before
    assert computed < len(expected) and again.outcome.reused == len(expected) - computed
    last = evaluate(IRIS, FLOWERS, options(results=path))
    assert last.outcome.reused == len(expected) and numbers(last) == numbers(again)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"fill": "zero"},
        {"target": 2},
        {"settings": {"drawn": {"factor": 2.0}}, "metrics": ("drawn",)},
        {"rules": ("gradient-x-input",), "baselines": ()},
    ],
    ids=str,
)
def test_results_of_another_setting_are_not_mixed_in(
    changes: dict[str, Any], tmp_path: Path, counted: dict[str, Counted]
) -> None:
    path = tmp_path / "results.jsonl"
    evaluate(IRIS, FLOWERS, options(results=path))
    other = evaluate(IRIS, FLOWERS, options(results=path, **changes))
    assert other.outcome.reused == 0
    again = evaluate(IRIS, FLOWERS, options(results=path))
    assert again.outcome.reused == len(again.outcome.records), "the first results are still there"


def test_a_changed_sample_or_rule_table_is_noticed(tmp_path: Path, counted: dict[str, Counted]) -> None:
    path, data, table = tmp_path / "results.jsonl", tmp_path / "flowers.csv", tmp_path / "mine.toml"
    lines = FLOWERS.read_text().splitlines()
    data.write_text("\n".join(lines))
    table.write_text('name = "mine"\n[[rule]]\nrule = "epsilon"\nepsilon = 0.1\n')
    one = options(results=path, rules=(str(table),), baselines=(), metrics=("drawn",), fill="zero")
    assert evaluate(IRIS, data, one).methods == ["mine"]
    data.write_text("\n".join([*lines[:3], "9,9,9,9,setosa", *lines[4:]]))
    assert evaluate(IRIS, data, one).outcome.reused == 14
    table.write_text('name = "mine"\n[[rule]]\nrule = "epsilon"\nepsilon = 0.2\n')
    assert evaluate(IRIS, data, one).outcome.reused == 0


def test_a_table_of_features_becomes_its_means_where_taken_away(counted: dict[str, Counted]) -> None:
    plan, _ = make_plan(IRIS, FLOWERS, options())
    assert plan.setting.fill == "mean"
    means = np.genfromtxt(FLOWERS, delimiter=",", skip_header=1)[:, :4].mean(axis=0)
    assert plan.setting.layout.means == pytest.approx(means)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ("drown",)}, "unknown metric 'drown'; did you mean 'drawn'"),
        ({"settings": {"drawn": {"size": 1.0}}}, "metric drawn has no setting 'size'; there are: factor = 1.0"),
        ({"settings": {"drawn": {"factor": float("nan")}}}, "the setting drawn.factor must be a number, not nan"),
        ({"settings": {"rise": {"masks": 1.0}}}, "--set rise: no such metric or baseline is used here"),
        ({"metrics": ("seen",)}, "metric seen needs what a person has marked"),
        ({"target": 3}, "--target 3: the explained output has 3 classes, 0 to 2"),
        ({"rules": (), "baselines": ()}, "nothing to evaluate"),
        ({"rules": ("epsilom",)}, "unknown rule table 'epsilom'"),
        ({"output": "nothing"}, "no tensor 'nothing'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_before_anything_is_computed(
    changes: dict[str, Any], said: str, counted: dict[str, Counted]
) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate(IRIS, FLOWERS, options(**changes))
    assert counted["drawn"].samples == 0


def test_a_sample_without_a_label_is_named(tmp_path: Path, counted: dict[str, Counted]) -> None:
    data = tmp_path / "flowers.csv"
    data.write_text("a,b,c,d,kind\n1,2,3,4,1\n4,3,2,1,\n")
    asked = options(target="label")
    asked = dataclasses.replace(asked, data=dataclasses.replace(asked.data, label_column="kind"), metrics=("drawn",))
    with pytest.raises(UsageError, match="row 1 has no label"):
        evaluate(IRIS, data, asked)


def test_settings_of_metrics_have_their_defaults_filled_in(counted: dict[str, Counted]) -> None:
    (one,) = chosen_metrics(["drawn"], {})
    (other,) = chosen_metrics(["drawn"], {"drawn": {"factor": 3.0}})
    assert (dict(one.settings), dict(other.settings)) == ({"factor": 1.0}, {"factor": 3.0})
    assert one.identity != other.identity
