"""tools/bench.py: the arithmetic and the page on made-up measurements, and one tiny model from end to end."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from bench import bench  # noqa: E402
from benchmark import bound, budgets, contest, measure, models, profiling, report, results, store, worker  # noqa: E402
from benchmark.process import Process, WorkerError  # noqa: E402

MACHINE = {"processor": "an abacus", "provider": "cpu", "threads": "2", "cores": "2"}


def a_contest(key: str = "k", **turns: list[float]) -> results.Contest:
    return results.Contest(key, "digest", turns)


def a_conversion(**changes: Any) -> results.Conversion:
    fields = {
        "key": "k",
        "source": "now",
        "digest": "digest",
        "seconds": 0.5,
        "peak": 70_000_000,
        "original_bytes": 10_000_000,
        "grown_bytes": 50_000,
        "nodes": 300,
        "cost": 3.1,
    }
    return results.Conversion(**{**fields, **changes})


def some_results(**changes: Any) -> store.Results:
    timed = results.Contest(
        "k",
        "digest",
        {"original": [0.010, 0.020, 0.010], "converted": [0.030, 0.070, 0.031], "zennit": [0.3]},
        {"original": 100_000_000, "converted": 150_000_000},
    )
    fields: dict[str, Any] = {
        "machine": MACHINE,
        "settings": {"source": "now"},
        "conversions": {"resnet50 epsilon-plus": a_conversion()},
        "contests": {"resnet50 epsilon-plus batch 8": timed},
    }
    return store.Results(**{**fields, **changes})


def column(table: report.Table, name: str) -> list[str]:
    return [row[list(table.columns).index(name)] for row in table.rows]


# -- arithmetic


def test_a_ratio_compares_each_round_with_itself():
    """The machine was slow in the second round; that is no news about the converted model."""
    got = results.ratio(a_contest(original=[1.0, 10.0, 2.0], converted=[3.0, 25.0, 8.0]), "converted")
    assert got == results.Ratio(3.0, 2.5, 4.0)
    assert str(got) == "3.00 (2.50 to 4.00)"


def test_a_slow_peer_is_compared_in_the_rounds_it_took_part_in():
    held = a_contest(original=[1.0, 1.0, 9.0], zennit=[20.0, 22.0])
    assert results.ratio(held, "zennit") == results.Ratio(21.0, 20.0, 22.0)


def test_who_did_not_run_has_neither_time_nor_ratio():
    held = a_contest(original=[1.0])
    assert results.ratio(held, "converted") is None
    assert results.seconds(held, "converted") is None
    assert results.peak_ratio(held, "converted") is None


@pytest.mark.parametrize(
    ("model", "rules", "limit"),
    [
        ("vgg16", "epsilon", 2.3),
        ("resnet50", "epsilon-gamma-box", 3.4),
        ("resnet50", "epsilon-alpha2-beta1", 4.6),
        ("mobilenetv2-7", "gradient-x-input", 3.0),
        ("densenet121", "default", 5.0),
        ("efficientnet_b0", "epsilon-alpha2-beta1", 6.5),
        ("resnet50", "deconvnet", None),
        ("my-model", "epsilon", None),
        ("bert-base", "attnlrp", 2.3),
        ("gpt2-small", "gradient-x-input", None),
        ("resnet50", "attnlrp", None),
    ],
)
def test_time_budgets(model, rules, limit):
    assert budgets.time_budget(model, rules) == limit


def test_a_file_may_grow_by_two_per_cent_and_64_kib():
    assert budgets.growth_budget(1_000_000) == 20_000 + 65_536


def test_the_conversion_of_resnet50_has_a_limit():
    assert (budgets.conversion_budget("resnet50"), budgets.conversion_budget("vgg16")) == (3.0, None)


def test_a_limit_is_met_up_to_itself_and_unknown_where_nothing_is_promised():
    assert results.met(3.4, 3.4) is True
    assert results.met(3.41, 3.4) is False
    assert results.met(3.4, None) is None


# -- contests


class Fake:
    """Stands in for a process: each run takes `time`; writes down whose turn it was."""

    def __init__(self, name: str, log: list[str], time: float = 0.1, dies_after: int = 99) -> None:
        self.name, self.log, self.time, self.left = name, log, time, dies_after

    def ask(self, do: str, **request: Any) -> Mapping[str, Any]:
        if self.left == 0:
            raise WorkerError("out of memory")
        self.left -= 1
        if do == "turn" and request["seconds"]:
            self.log.append(f"{self.name} {'warm' if request['warm'] else 'cold'}")
        return {"times": [self.time, 2 * self.time, 3 * self.time], "peak": 7}


def play(number: int = 2, **fakes: Callable[[str, list[str]], Fake]) -> tuple[results.Contest, list[str]]:
    log: list[str] = []
    participants = [contest.Participant(name, {}, slow=name == "zennit") for name in fakes]
    processes = {name: make(name, log) for name, make in fakes.items()}
    rounds = contest.Rounds(number=number, slow=1, seconds=0.4)
    empty = results.Contest("k", "digest", {})
    return contest.take_turns(empty, participants, processes, rounds, lambda: None, pause=0), log


def test_participants_take_turns_and_nobody_is_always_first():
    held, log = play(original=Fake, converted=lambda n, to: Fake(n, to, 0.3))
    assert [line.split()[0] for line in log] == ["original", "converted", "converted", "original"]
    assert held.turns == {"original": [0.2, 0.2], "converted": [0.6, 0.6]}
    assert held.peaks == {"original": 7, "converted": 7}


def test_long_runs_are_not_warmed_up_and_slow_peers_stop_early():
    held, log = play(number=3, original=Fake, zennit=lambda n, to: Fake(n, to, 5.0))
    assert log.count("zennit cold") == 1 and len(held.turns["zennit"]) == 1
    assert log.count("original warm") == 3


@pytest.mark.parametrize("dies_after", [0, 1, 3])
def test_one_that_cannot_run_is_left_out_with_its_reason(dies_after):
    held, _ = play(number=3, original=Fake, converted=lambda n, to: Fake(n, to, dies_after=dies_after))
    assert held.failed == {"converted": "out of memory"}
    assert len(held.turns["original"]) == 3 and "converted" not in held.turns


def test_a_turn_lasts_its_time_and_has_at_least_one_run():
    runs: list[int] = []
    assert len(worker.turn(lambda: runs.append(1), 0.0, 5, warm=True)) == 1
    assert len(runs) == 2
    assert len(worker.turn(lambda: runs.append(1), 60.0, 5, warm=False)) == 5


def test_one_thread_is_timed_by_its_processor_time():
    assert worker.clock(1) is time.process_time
    assert worker.clock(2) is time.perf_counter


def test_the_bound_is_a_converted_model_without_its_masks(tmp_path):
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"], pads=[1] * 4), helper.make_node("Relu", ["z"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4]) for n in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 21)]
    )
    path, out = tmp_path / "m.onnx", tmp_path / "bound.onnx"
    onnx.save(model, path)
    worker.convert({"path": str(path), "out": str(out), "rules": bound.BOUND, "on_demand": False, "position": None})
    stripped = onnx.load(out)
    onnx.checker.check_model(stripped)
    ops = [node.op_type for node in stripped.graph.node]
    assert "HardSigmoid" not in ops
    assert ops.count("Conv") == 2, "forward and back"


def test_a_worker_answers_an_error_with_its_reason_and_goes_on():
    asked = "\n".join(json.dumps({"do": do, "seconds": 0, "most": 1, "warm": False}) for do in ("turn", "no"))
    answers = io.StringIO()
    worker.serve(io.StringIO(asked), answers)
    first, second = (json.loads(line) for line in answers.getvalue().splitlines())
    assert first == {"error": "LookupError: nothing was opened"}
    assert "no" in second["error"]


def test_data_are_the_same_in_every_process_and_fit_the_input():
    data = worker.data_for(["batch", 3, 4, "width"], "tensor(float)", 2)
    assert data.shape == (2, 3, 4, 1) and data.dtype == np.float32
    assert np.array_equal(data, worker.data_for([0, 3, 4, 1], "tensor(float)", 2))
    assert worker.data_for([None, 1], "tensor(int64)", 2).dtype == np.int64


def a_choice(**changes: Any) -> measure.Choice:
    fields: dict[str, Any] = {
        "models": ["resnet50"],
        "rules": ["epsilon"],
        "batches": [1],
        "on_demand": "",
        "peer": True,
        "lxt": "",
        "lean": False,
        "provider": "cpu",
        "threads": 2,
        "exporter": "dynamo",
        "cache": Path("cache"),
    }
    return measure.Choice(**{**fields, **changes})


def names(rules: str, on_demand: bool = False, network: str | None = "resnet50", **changes: Any) -> list[str]:
    model = models.Model("resnet50", Path("resnet50.onnx"), None, network)
    case = measure.Case(model, rules, on_demand)
    return [p.name for p in measure._participants(a_choice(**changes), case, Path("out.onnx"), 1)]


def test_who_takes_part():
    assert names("epsilon") == ["original", "converted", "zennit"]
    assert names("gradient-x-input") == ["original", "converted", "PyTorch"]
    assert names("default") == names("epsilon", peer=False) == ["original", "converted"]
    assert names("epsilon", network=None) == ["original", "converted"]
    assert names("default", on_demand=True) == ["original", "off", "on"]
    assert names("attnlrp") == ["original", "converted"]
    assert names("attnlrp", network="bert-base") == ["original", "converted", "PyTorch"]
    assert names("attnlrp", network="bert-base", lxt="python")[2:] == ["PyTorch", "LXT"]
    assert names("attnlrp", network="bert-base", lxt="python", peer=False)[2:] == ["LXT"]
    assert names("epsilon", lxt="python") == names("epsilon")
    assert names("epsilon", lean=True) == ["original", "converted", "lean", "zennit"]
    assert names("gradient-x-input", network="bert-base", lxt="python")[2:] == ["PyTorch"]


def test_what_is_measured_where_nothing_is_named():
    choice = a_choice(rules=None, on_demand=None, batches=[1, 8])
    assert choice.rules_for("bert-base") == ("attnlrp", "gradient-x-input")
    assert choice.rules_for("vgg16") == models.RULES
    assert (choice.on_demand_for("bert-base"), choice.on_demand_for("vgg16")) == ("attnlrp", "default")
    assert choice.steps("bert-base") == 3 * (1 + 2 * choice.rounds.number)
    assert a_choice(rules=["epsilon"], on_demand="").steps("bert-base") == 1 + choice.rounds.number


# -- results that are kept


def test_results_come_back_from_their_file(tmp_path):
    kept = some_results().with_skipped("vgg16", "no torch")
    store.write(tmp_path / "r.json", kept)
    assert store.read(tmp_path / "r.json") == kept
    assert store.resume(tmp_path / "r.json", MACHINE, fresh=False) == some_results()
    assert store.resume(tmp_path / "r.json", MACHINE, fresh=True) == store.Results(MACHINE)


def test_results_of_another_machine_are_not_continued(tmp_path):
    store.write(tmp_path / "r.json", some_results())
    with pytest.raises(store.StoreError, match="other threads"):
        store.resume(tmp_path / "r.json", {**MACHINE, "threads": "4"}, fresh=False)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}'])
def test_what_is_no_file_of_results_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(store.StoreError, match=r"r\.json"):
        store.read(tmp_path / "r.json")


def test_results_of_older_code_are_not_shown():
    kept = some_results(
        conversions={
            "a epsilon": a_conversion(source="before"),
            "b epsilon": a_conversion(digest="other"),
            "c epsilon": a_conversion(),
        },
        contests={f"{model} epsilon batch 1": a_contest(original=[1.0]) for model in "abc"},
    )
    assert list(kept.current().conversions) == ["b epsilon", "c epsilon"]
    assert list(kept.current().contests) == ["c epsilon batch 1"]
    assert "2 contests" in kept.current().skipped["left out"]
    assert some_results().current() == some_results()


# -- the page


def test_the_time_table():
    table = report.time_table(some_results())
    assert column(table, "ratio") == ["3.10 (3.00 to 3.50)"]
    assert column(table, "original") == ["10.0"] and column(table, "converted") == ["31.0"]
    assert column(table, "budget") == ["3.4"] and column(table, "met") == ["yes"]
    assert column(table, "counted") == ["3.1"]


def test_other_implementations_have_a_row_each():
    held = a_contest(original=[1.0], converted=[2.0], PyTorch=[3.0], LXT=[4.0])
    table = report.peer_table(some_results(contests={"bert-base attnlrp batch 1": held}))
    assert column(table, "peer") == ["PyTorch", "LXT"]
    assert column(table, "peer / ours") == ["1.5", "2.0"] and column(table, "peer / original") == ["3.0", "4.0"]
    assert report.peer_table(some_results(contests={"a epsilon batch 1": a_contest(original=[1.0])})).rows == []


def test_sessions_that_keep_weights_once_have_a_row_where_they_were_measured():
    turns = {"original": [1.0], "converted": [2.0], "lean": [2.1]}
    held = results.Contest("k", "digest", turns, {"original": 100, "lean": 180})
    table = report.lean_table(some_results(contests={"bert-base attnlrp batch 8": held}))
    assert column(table, "ratio") == ["1.80"] and column(table, "met") == ["yes"]
    assert column(table, "time ratio") == ["2.10 (2.10 to 2.10)"]
    assert report.lean_table(some_results()).rows == []


def test_an_interpreter_that_is_not_there_is_said(tmp_path):
    with pytest.raises(WorkerError, match=r"no-python: No such file"):
        Process(str(tmp_path / "no-python"))


def test_a_broken_budget_is_said_aloud():
    slow = some_results(
        contests={"resnet50 epsilon-plus batch 1": a_contest(original=[1.0], converted=[3.5])},
        conversions={"resnet50 epsilon-plus": a_conversion(grown_bytes=900_000)},
    )
    assert column(report.time_table(slow), "met") == ["NO"]
    assert column(report.file_table(slow), "met") == ["NO"]
    assert column(report.file_table(slow), "in time") == ["yes"]
    assert "time 0 of 1" in report.summary(slow)


def test_the_on_demand_table():
    held = a_contest(original=[1.0], off=[1.05], on=[3.3])
    plain = a_contest(original=[1.0], converted=[3.2])
    kept = {"resnet50 default on-demand batch 1": held, "resnet50 default batch 1": plain}
    table = report.on_demand_table(some_results(contests=kept))
    assert column(table, "off ratio") == ["1.05 (1.05 to 1.05)"] and column(table, "met") == ["yes"]
    assert column(table, "ratio without --on-demand") == ["3.20"]


def test_memory_is_limited_for_rules_of_one_pass_only():
    kept = some_results()
    assert column(report.memory_table(kept), "ratio") == ["1.50"]
    assert column(report.memory_table(kept), "met") == [""]
    one_pass = {"resnet50 epsilon batch 8": kept.contests["resnet50 epsilon-plus batch 8"]}
    assert column(report.memory_table(some_results(contests=one_pass)), "met") == ["yes"]


def test_the_page_has_a_section_for_each_machine_and_says_what_is_missing():
    gpu = some_results(machine={**MACHINE, "provider": "cuda", "GPU": "a fast one"})
    page = report.markdown([some_results(skipped={"vgg16": "torch is not installed"}), gpu])
    assert "## CPU: an abacus" in page and "## CUDA: a fast one" in page
    assert "* vgg16: torch is not installed" in page
    rows = [line for line in page.splitlines() if line.startswith("| resnet50 | epsilon-plus")]
    assert len(rows) == 2 * 4
    for line in page.splitlines():
        if line.startswith("| model"):
            width = line.count("|")
        if line.startswith("|"):
            assert line.count("|") == width


# -- the profile


def test_a_profile_tells_the_relevance_part_from_the_forward_part():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y8"], "conv", kernel_shape=[3, 3], strides=[2, 2], group=4),
        helper.make_node("ReorderOutput", ["y8"], ["y"], "for both"),
        helper.make_node("ReorderOutput", ["y8"], ["y'"], "for relevance"),
        helper.make_node("Relu", ["y"], ["z"], "relu"),
        helper.make_node("Mul", ["y", "y'"], ["r"], "lrp/conv/Mul"),
    ]
    labels = profiling.labels_of(helper.make_graph(nodes, "g", [], []))
    assert labels == {
        "conv": ("forward", "Conv 3x3 grouped strided"),
        "for both": ("forward", "ReorderOutput"),
        "for relevance": ("relevance", "ReorderOutput"),
        "relu": ("forward", "Relu"),
        "lrp/conv/Mul": ("relevance", "Mul"),
    }


def test_a_profile_counts_the_median_run_of_each_node():
    def event(node: str, operator: str, microseconds: int) -> dict[str, Any]:
        args = {"op_name": operator}
        return {"cat": "Node", "name": f"{node}_kernel_time", "args": args, "dur": microseconds}

    events = [event("a", "Conv", d) for d in (9000, 1000, 1000)]
    events += [event("lrp/b", "Mul", d) for d in (500, 500, 600)] + [{"cat": "Session", "name": "run", "dur": 1}]
    spent = profiling.summed(events, {"a": ("forward", "Conv 1x1")}, runs=3)
    assert [(s.part, s.operator, s.nodes) for s in spent] == [
        ("forward", "Conv 1x1", 1),
        ("relevance", "Mul", 1),
    ]
    assert [s.seconds for s in spent] == pytest.approx([0.001, 0.0005])
    table = profiling.table(spent, "title", most=1)
    assert table.rows[0] == ("forward", "Conv 1x1", "1", "1.000", "66.7")
    assert table.rows[-1] == ("relevance", "all", "1", "0.500", "33.3")


# -- from end to end


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A convolution, Relu and dense layer on [batch, 1, 4, 4]."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((2, 1, 3, 3)), "v": rng.standard_normal((8, 3))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("Flatten", ["b"], ["c"], "flatten"),
            helper.make_node("MatMul", ["c", "v"], ["y"], "dense"),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def call(folder: Path, *arguments: str) -> Result:
    places = ["--cache", str(folder / "cache"), "--results", str(folder / "r.json")]
    places += ["--output", str(folder / "page.md")]
    return CliRunner().invoke(bench, [*places, "--rounds", "1", "--seconds", "0", *arguments])


def test_a_tiny_model_is_measured_and_a_second_call_measures_nothing_again(tiny, tmp_path):
    asked = (
        "--models",
        f"{tiny},{tmp_path}/missing.onnx",
        "--rules",
        "epsilon",
        "--batch",
        "2",
        "--on-demand",
        "-",
    )
    done = call(tmp_path, *asked)
    assert done.exit_code == 0, done.output
    kept = store.read(tmp_path / "r.json")
    held = kept.contests["tiny epsilon batch 2"]
    assert set(held.turns) == {"original", "converted"} and not held.failed
    assert kept.conversions["tiny epsilon"].grown_bytes > 0
    assert "no such file" in kept.skipped[f"{tmp_path}/missing.onnx"]
    page = (tmp_path / "page.md").read_text()
    assert "| tiny | epsilon | 2 |" in page
    assert not list((tmp_path / "cache").glob("*.lrp.onnx"))

    assert call(tmp_path, *asked).exit_code == 0
    assert store.read(tmp_path / "r.json").contests == kept.contests


def test_a_profile_of_a_tiny_model_has_both_parts(tiny, tmp_path):
    done = call(tmp_path, "--profile", str(tiny), "epsilon", "--batch", "2")
    assert done.exit_code == 0, done.output
    assert "converted with epsilon" in done.output and "relevance" in done.output


def test_wrong_usage_ends_with_code_2_and_one_message(tiny, tmp_path):
    for arguments, said in (
        (["--batch", "0"], "not a list like 1,8"),
        (["--profile", str(tiny), "no-such-table"], "no-such-table"),
        (["--profile", "missing.onnx", "epsilon"], "no such file"),
        (["--report-only"], "not a file of results"),
        (["--lxt", "no-such-python"], "no program 'no-such-python'"),
    ):
        done = call(tmp_path, *arguments)
        assert done.exit_code == 2 and said in done.output


def test_a_fixed_batch_is_seen(tiny, tmp_path):
    assert models.fixed_batch(tiny) is None
    model = onnx.load(tiny)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    assert models.fixed_batch(tmp_path / "fixed.onnx") == 1
