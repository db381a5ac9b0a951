"""Bad input from end to end: one clear message, the documented exit code, and the folder as it was before."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cli.bad import classifier, independent, open_classifier, save_with_external_data, unsupported
from tests.cli.conftest import Run, process

OLD = b"what an earlier conversion wrote"

#: Runs a command that must fail with this exit code; returns what it said.
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def model_bytes() -> bytes:
    return classifier().SerializeToString()


@pytest.fixture(params=["nothing was there", "an old output was there"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_bytes: bytes) -> Path:
    """The current folder, which holds m.onnx, with and without the output of an earlier conversion."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(model_bytes)
    if request.param == "an old output was there":
        Path("m.lrp.onnx").write_bytes(OLD)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, hidden ones included, with the content of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def the_message(stderr: str) -> str:
    """What a failed command said; it must be a single message that is neither a traceback nor a defect's."""
    assert stderr.startswith("onnxlrp: ")
    assert stderr.endswith("\n")
    assert stderr.count("onnxlrp: ") == 1
    assert "Traceback" not in stderr
    assert "an error in onnxlrp itself" not in stderr
    return stderr.removeprefix("onnxlrp: ").rstrip("\n")


@pytest.fixture
def refused(run: Run, folder: Path) -> Refused:
    """Run a command that must fail: nothing on standard output, and no file written, changed or left behind."""

    def check(exit_code: int, *arguments: str) -> str:
        before = contents(folder)
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert contents(folder) == before
        return the_message(result.stderr)

    return check


def one_line(message: str) -> str:
    assert "\n" not in message
    return message


def test_the_model_itself_converts(run: Run, folder: Path) -> None:
    """Without this the refusals below would prove little."""
    assert run("convert", "m.onnx").exit_code == 0
    assert [value.name for value in onnx.load("m.lrp.onnx").graph.output] == ["logits", "image_relevance"]
    assert sorted(contents(folder)) == ["m.lrp.onnx", "m.onnx"]


@pytest.mark.parametrize("command", ["convert", "plan", "verify"])
def test_no_such_file(refused: Refused, command: str) -> None:
    assert one_line(refused(3, command, "missing.onnx")) == "no such model file: 'missing.onnx'"


def test_a_text_file(refused: Refused) -> None:
    Path("m.onnx").write_text("name,score\nresnet,0.76\n", encoding="utf-8")
    assert one_line(refused(3, "convert", "m.onnx")) == "'m.onnx' is a text file, not an ONNX model"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 1.0])
def test_a_truncated_file(refused: Refused, model_bytes: bytes, kept: float) -> None:
    Path("m.onnx").write_bytes(model_bytes[: int(kept * (len(model_bytes) - 1))])
    message = one_line(refused(3, "convert", "m.onnx"))
    assert message.startswith("'m.onnx' is ")
    assert "truncated" in message


def test_an_empty_file(refused: Refused) -> None:
    Path("m.onnx").write_bytes(b"")
    assert one_line(refused(3, "convert", "m.onnx")) == "'m.onnx' is empty, not an ONNX model"


def test_missing_external_data(refused: Refused) -> None:
    save_with_external_data(classifier(), Path("m.onnx").resolve()).unlink()
    message = one_line(refused(3, "convert", "m.onnx"))
    assert "external data file 'weights.bin' (tensor 'kernel') is missing" in message


def test_external_data_that_is_too_short(refused: Refused) -> None:
    data = save_with_external_data(classifier(), Path("m.onnx").resolve())
    data.write_bytes(data.read_bytes()[:-1])
    assert "'weights.bin' is too short" in one_line(refused(3, "convert", "m.onnx"))


@pytest.mark.parametrize("location", ["../weights.bin", "inside/../../weights.bin", "absolute"])
def test_external_data_outside_the_folder(refused: Refused, folder: Path, location: str) -> None:
    (folder / "inside").mkdir()
    if location == "absolute":
        location = str(folder / "weights.bin")
    save_with_external_data(classifier(), folder / "inside" / "m.onnx", location).rename("weights.bin")
    message = one_line(refused(3, "convert", str(Path("inside", "m.onnx"))))
    assert "outside the model's folder" in message
    assert repr(location) in message


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_external_data_behind_a_link_that_leads_outside(refused: Refused, folder: Path) -> None:
    (folder / "inside").mkdir()
    data = save_with_external_data(classifier(), folder / "inside" / "m.onnx")
    data.rename("weights.bin")
    data.symlink_to(folder / "weights.bin")
    assert "outside the model's folder" in one_line(refused(3, "convert", str(Path("inside", "m.onnx"))))


def test_an_unknown_preset(refused: Refused) -> None:
    message = one_line(refused(2, "convert", "m.onnx", "--rules", "epsilon-plos"))
    assert message.startswith("unknown rule table 'epsilon-plos'; did you mean 'epsilon-plus'")


def test_a_missing_rule_table(refused: Refused) -> None:
    message = one_line(refused(2, "convert", "m.onnx", "--rules", "mine.toml"))
    assert message == "the rule table mine.toml cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\nop = "Conv"\nrule = "gama"', "line 3: unknown rule 'gama'; did you mean 'gamma'"),
        ('[[rule]]\nrule = "gamma"\nwhere = "Conv"', "line 3: rule gamma has no parameter 'where'"),
        ('title = "mine"\n[[rule]]\nrule = "flat"', "line 1: unknown key 'title'"),
        ('[[rule]]\nrule = "gamma"\n\ngama = 0.1', "line 4: rule gamma has no parameter 'gama'"),
        ('[[rule]]\nrule = "flat"\nop = "Convolution"', "line 3: unknown operator 'Convolution'"),
        ('[[rule]]\nrule = "flat', "line 2: not valid TOML"),
        ("", "line 1: the table has no [[rule]] entry"),
    ],
)
def test_a_rule_table_with_a_fault(refused: Refused, text: str, said: str) -> None:
    Path("mine.toml").write_text(text, encoding="utf-8")
    message = one_line(refused(2, "convert", "m.onnx", "--rules", "mine.toml"))
    assert message.startswith(f"mine.toml {said}")


def test_a_rule_table_without_a_rule_for_a_layer(refused: Refused) -> None:
    Path("mine.toml").write_text('name = "mine"\n[[rule]]\nop = "Conv"\nrule = "z-plus"\n', encoding="utf-8")
    message = refused(4, "convert", "m.onnx", "--rules", "mine.toml")
    assert "classify (MatMul): rule table mine has no rule for it" in message


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--input", "picture", "the model has no input 'picture'; its inputs are image"),
        ("--input", "kernel", "the model has no input 'kernel'; its inputs are image"),
        ("--output", "scores", "the model has no tensor 'scores'; its outputs are logits"),
        ("--output", "conv", "the model has no tensor 'conv'; its outputs are logits"),
        ("--output", "", "the model has no tensor ''; its outputs are logits"),
    ],
)
def test_an_unknown_input_output_or_tensor(refused: Refused, option: str, name: str, said: str) -> None:
    assert one_line(refused(2, "convert", "m.onnx", option, name)) == said


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("5", "target 5 is out of range: axis 1 of output 'logits' has 5 elements (0 to 4)"),
        ("1,1", "target 1,1 has 2 indices, but output 'logits' of shape [batch, 5] takes 1"),
        ("top:6", "top:6 is out of range: output 'logits' has 5 elements"),
        ("best", "Invalid value for '--target': 'best' is no target"),
    ],
)
def test_a_target_that_the_output_does_not_have(refused: Refused, target: str, said: str) -> None:
    assert one_line(refused(2, "convert", "m.onnx", "--target", target)).startswith(said)


def test_a_target_whose_range_shows_at_run_time_only(run: Run, folder: Path) -> None:
    """The documented behaviour: a class that is not there has no relevance; a negative one counts from the end."""
    assert run("convert", "m.onnx", "--target", "input").exit_code == 0
    session = onnxruntime.InferenceSession("m.lrp.onnx")
    image = np.random.default_rng(0).normal(size=(4, 1, 6, 6)).astype(np.float32)
    image[1:] = image[0]

    def relevance(*classes: int) -> np.ndarray:
        (found,) = session.run(
            ["image_relevance"], {"image": image, "lrp_target": np.array(classes, np.int64)[:, None]}
        )
        return np.asarray(found)

    found = relevance(4, 5, -1, -6)
    assert np.abs(found[0]).max() > 0.1
    assert not found[1].any()
    np.testing.assert_array_equal(found[2], found[0])
    assert not found[3].any()


def test_a_class_that_only_some_weights_have(run: Run, folder: Path) -> None:
    """With an open number of classes any index converts; where the class is missing its relevance is zero."""
    onnx.save(open_classifier(), "open.onnx")
    assert run("convert", "open.onnx", "--target", "6", "--input", "image").exit_code == 0
    session = onnxruntime.InferenceSession("open.lrp.onnx")
    values = np.random.default_rng(0)
    image = values.normal(size=(2, 1, 6, 6)).astype(np.float32)
    weight = values.normal(size=(32, 7)).astype(np.float32)
    (of_seven,) = session.run(["image_relevance"], {"image": image, "weight": weight})
    (of_six,) = session.run(["image_relevance"], {"image": image, "weight": weight[:, :6]})
    assert np.abs(of_seven).max() > 0.1
    assert not of_six.any()


@pytest.mark.parametrize("output", ["", "constant", "count"])
def test_a_target_that_depends_on_no_input(refused: Refused, output: str) -> None:
    onnx.save(independent(), "m.onnx")
    message = one_line(refused(4, "convert", "m.onnx", *(["--output", output] if output else [])))
    name = output or "constant"
    what = "any float input, on token ids or on numbers that floats are made of"
    assert message == f"output {name} does not depend on {what}, so there is nothing to explain"


def test_a_named_input_without_a_way_to_the_target(refused: Refused) -> None:
    onnx.save(independent(), "m.onnx")
    message = one_line(refused(2, "convert", "m.onnx", "--input", "x"))
    assert message == "output constant does not depend on input 'x', so there is nothing to explain"


@pytest.mark.parametrize("command", [["convert"], ["plan"], ["plan", "--json"], ["verify"]])
def test_unsupported_operators_are_listed_all_at_once(refused: Refused, command: list[str]) -> None:
    onnx.save(unsupported(), "m.onnx")
    head, *nodes = refused(4, *command, "m.onnx").splitlines()
    assert head == "cannot convert: 3 nodes stand in the way of relevance:"
    assert [node.split(": ")[0] for node in nodes] == [
        "  shaky (Dropout)",
        "  mystery (com.example.Frobnicate)",
        "  sum_up (org.example.SumUp)",
    ]


def test_a_model_that_is_converted_already(run: Run, refused: Refused) -> None:
    assert run("convert", "m.onnx", "-o", "done.onnx").exit_code == 0
    for command in ("convert", "plan"):
        message = one_line(refused(4, command, "done.onnx"))
        assert message.startswith("the model was already converted by onnxlrp ")
        assert "give the original model" in message


def test_options_of_a_conversion_for_a_model_that_is_converted_already(run: Run, refused: Refused) -> None:
    assert run("convert", "m.onnx", "-o", "done.onnx").exit_code == 0
    assert "already converted" in one_line(refused(2, "verify", "done.onnx", "--rules", "epsilon"))


@pytest.mark.parametrize("name", ["m.onnx", "./m.onnx", "absolute", "link"])
def test_output_onto_the_input_file(refused: Refused, folder: Path, name: str) -> None:
    if name == "link":
        Path("link").hardlink_to("m.onnx")
    out = str(folder / "m.onnx") if name == "absolute" else name
    message = one_line(refused(2, "convert", "m.onnx", "-o", out))
    assert message.endswith("is the input model, which is never overwritten: name another output")


def test_output_onto_the_input_s_external_data(refused: Refused) -> None:
    save_with_external_data(classifier(), Path("m.onnx").resolve())
    message = one_line(refused(2, "convert", "m.onnx", "-o", "weights.bin"))
    assert message == "'weights.bin' holds external data of the input model: name another output"


def test_output_into_a_folder_that_is_not_there_or_onto_one(refused: Refused, folder: Path) -> None:
    (folder / "results").mkdir()
    message = one_line(refused(2, "convert", "m.onnx", "-o", str(Path("nowhere", "x.onnx"))))
    assert message.endswith("no such folder; create it first")
    assert "is a folder" in one_line(refused(2, "convert", "m.onnx", "-o", "results"))


# What happens to a process from outside. The hook is the moment when the new file has been written but is
# not yet safe: everything of it lies under its temporary name.
HOOK = """
import os, signal
def hook(handle):
    assert any(name.endswith(".tmp") and os.path.getsize(name) > 1000 for name in os.listdir(".")), "nothing written"
    {}
os.fsync = hook
"""


def test_a_full_disk(folder: Path) -> None:
    before = contents(folder)
    full = f"raise OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}))"
    result = process("convert", "m.onnx", before=HOOK.format(full), cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    message = one_line(the_message(result.stderr))
    assert message == "cannot write 'm.lrp.onnx': No space left on device; name another place for the output"
    assert contents(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_while_the_file_is_written(folder: Path) -> None:
    """The system itself ends the writing here, after 1000 bytes."""
    before = contents(folder)
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    )
    result = process("convert", "m.onnx", before=limit, cwd=folder, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert (result.returncode, result.stdout) == (2, "")
    assert one_line(the_message(result.stderr)).startswith("cannot write 'm.lrp.onnx': ")
    assert contents(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
def test_an_interrupt_in_the_middle_of_writing(folder: Path) -> None:
    before = contents(folder)
    # A shell starts what runs in its background with interrupts ignored, and so would this test.
    heard = "\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    hook = HOOK.format("os.kill(os.getpid(), signal.SIGINT)") + heard
    result = process("convert", "m.onnx", before=hook, cwd=folder)
    assert (result.returncode, result.stdout) == (130, "")
    assert one_line(the_message(result.stderr.lstrip("\n"))) == "interrupted"
    assert contents(folder) == before


def test_the_command_as_a_process(folder: Path) -> None:
    """What the tests above see inside this process is what a shell sees."""
    before = contents(folder)
    result = process("convert", "missing.onnx", cwd=folder)
    assert (result.returncode, result.stdout) == (3, "")
    assert the_message(result.stderr) == "no such model file: 'missing.onnx'"
    assert contents(folder) == before
