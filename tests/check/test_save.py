"""Saving: all or nothing, never over the input, and the external data is where the model says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper, parser

from onnxlrp.check import save as saving
from onnxlrp.check.save import default_output, save
from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.read.load import Source, load

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
MODEL = parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 18]> g (float[2,3] x) => (float[2,3] y) { y = Mul(x, w) }'
)


def inline() -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    return model


def external(location: str = "w.data") -> onnx.ModelProto:
    model = inline()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def on_disk(folder: Path, model: onnx.ModelProto, **data: bytes) -> Source:
    """`model` as m.onnx in the new folder `folder`, with files of external data."""
    folder.mkdir()
    for name, content in data.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return load(folder / "m.onnx")


def state(folder: Path) -> dict[str, bytes]:
    """Everything below `folder`: path and content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def result_of(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.ones((2, 3), np.float32)})[0])


def refusal(model: onnx.ModelProto, out: Path, source: Source) -> str:
    """The message of the UsageError that saving raises: one line; and nothing on disk has changed."""
    top = source.path.parent.parent if source.path else out.parent
    before = state(top)
    with pytest.raises(UsageError) as caught:
        save(model, out, source)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert state(top) == before
    return str(caught.value)


class TestOneFile:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", inline())
        out = tmp_path / "a" / "m.lrp.onnx"
        assert save(source.model, out, source) == (out,)
        assert onnx.load(out) == inline()
        assert set(state(tmp_path)) == {"a", "a/m.onnx", "a/m.lrp.onnx"}

    def test_text_as_path_and_a_model_without_a_file(self, tmp_path: Path) -> None:
        out = tmp_path / "o.onnx"
        save(inline(), str(out), load(inline()))
        assert onnx.load(out) == inline()

    def test_an_older_output_is_replaced_and_keeps_its_permissions(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", inline())
        out = tmp_path / "a" / "o.onnx"
        out.write_bytes(b"old")
        out.chmod(0o640)
        save(source.model, out, source)
        assert onnx.load(out) == inline()
        assert out.stat().st_mode & 0o777 == 0o640

    def test_a_new_output_has_the_usual_permissions(self, tmp_path: Path) -> None:
        (usual := tmp_path / "usual").touch()
        save(inline(), tmp_path / "o.onnx", load(inline()))
        assert (tmp_path / "o.onnx").stat().st_mode == usual.stat().st_mode

    @pytest.mark.parametrize(
        ("given", "expected"),
        [("m.onnx", "m.lrp.onnx"), ("a/b.v2.onnx", "a/b.v2.lrp.onnx"), ("a/model", "a/model.lrp.onnx")],
    )
    def test_default_output(self, given: str, expected: str) -> None:
        assert default_output(given) == Path(expected)
        assert default_output(Path(given)) == Path(expected)


class TestRefusedTargets:
    def test_the_input_by_any_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = on_disk(tmp_path / "a", inline())
        original = tmp_path / "a" / "m.onnx"
        (soft := tmp_path / "a" / "soft.onnx").symlink_to("m.onnx")
        os.link(original, hard := tmp_path / "a" / "hard.onnx")
        monkeypatch.chdir(tmp_path / "a")
        for out in (original, soft, hard, Path("m.onnx"), tmp_path / "a" / ".." / "a" / "m.onnx"):
            assert "never overwritten" in refusal(inline(), out, source)

    def test_the_data_of_the_input(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", external(), w_data=WEIGHTS.tobytes())
        (tmp_path / "b").mkdir()
        assert "external data" in refusal(external(), tmp_path / "a" / "w.data", source)
        assert "external data" in refusal(external(), tmp_path / "b" / "w.data", source)

    def test_a_folder(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", inline())
        assert "folder" in refusal(inline(), tmp_path / "a", source)

    def test_no_such_folder(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", inline())
        assert "no such folder" in refusal(inline(), tmp_path / "absent" / "o.onnx", source)

    def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", inline())
        assert "no such folder" in refusal(inline(), tmp_path / "a" / "m.onnx" / "o.onnx", source)

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", inline())
        assert "too long" in refusal(inline(), tmp_path / "a" / ("o" * 300), source).lower()


class TestExternalData:
    def test_beside_the_source_the_same_file_is_used(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", external(), w_data=WEIGHTS.tobytes())
        out = tmp_path / "a" / "o.onnx"
        assert save(source.model, out, source) == (out,)
        assert set(state(tmp_path / "a")) == {"m.onnx", "o.onnx", "w.data"}
        np.testing.assert_array_equal(result_of(out), WEIGHTS)

    def test_elsewhere_it_is_copied_along(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", external("w.data"), w_data=WEIGHTS.tobytes())
        (tmp_path / "b").mkdir()
        out = tmp_path / "b" / "o.onnx"
        assert save(source.model, out, source) == (tmp_path / "b" / "w.data", out)
        np.testing.assert_array_equal(result_of(out), WEIGHTS)
        assert save(source.model, out, source) == (out,)  # it is there already

    def test_sub_folders_are_made(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "deep" / "er").mkdir(parents=True)
        (tmp_path / "a" / "deep" / "er" / "w.data").write_bytes(WEIGHTS.tobytes())
        (tmp_path / "a" / "m.onnx").write_bytes(external("deep/er/w.data").SerializeToString())
        source = load(tmp_path / "a" / "m.onnx")
        (tmp_path / "b").mkdir()
        save(source.model, tmp_path / "b" / "o.onnx", source)
        np.testing.assert_array_equal(result_of(tmp_path / "b" / "o.onnx"), WEIGHTS)

    def test_a_different_file_of_that_name_is_not_overwritten(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", external(), w_data=WEIGHTS.tobytes())
        (tmp_path / "b").mkdir()
        for other in (b"other", bytes(24)):
            (tmp_path / "b" / "w.data").write_bytes(other)
            assert "in the way" in refusal(external(), tmp_path / "b" / "o.onnx", source)

    def test_data_that_has_gone_since_loading(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", external(), w_data=WEIGHTS.tobytes())
        (tmp_path / "a" / "w.data").unlink()
        with pytest.raises(ModelReadError, match="missing"):
            save(source.model, tmp_path / "a" / "o.onnx", source)

    def test_linked_from_a_download_cache_it_can_only_be_copied(self, tmp_path: Path) -> None:
        """onnxruntime follows links out of the folder only for a model that is such a link itself."""
        on_disk(tmp_path / "blobs", external(), w_data=WEIGHTS.tobytes())
        (tmp_path / "snapshot").mkdir()
        for name in ("m.onnx", "w.data"):
            (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{name}")
        source = load(tmp_path / "snapshot" / "m.onnx")
        assert "another folder" in refusal(external(), tmp_path / "snapshot" / "o.onnx", source)
        (tmp_path / "b").mkdir()
        save(source.model, tmp_path / "b" / "o.onnx", source)
        np.testing.assert_array_equal(result_of(tmp_path / "b" / "o.onnx"), WEIGHTS)

    def test_a_way_up_and_down_again_cannot_be_copied(self, tmp_path: Path) -> None:
        source = on_disk(tmp_path / "a", external("../a/w.data"), w_data=WEIGHTS.tobytes())
        (tmp_path / "b").mkdir()
        assert "outside" in refusal(external("../a/w.data"), tmp_path / "b" / "o.onnx", source)


class TestTooLargeForOneFile:
    @pytest.fixture(autouse=True)
    def small_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(saving, "INLINE_LIMIT", 20)
        monkeypatch.setattr(saving, "MOVED_SIZE", 8)

    def big(self) -> onnx.ModelProto:
        """y = x * w + c: w as raw bytes, c as a list of numbers in a Constant node, and a small tensor."""
        model = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 18]> g (float[2,3] x) => (float[2,3] y)'
            "{ a = Mul(x, w)  c = Constant<value = float[2,3] {0,10,20,30,40,50}>()  b = Add(a, c)  y = "
            "Add(b, s) }"
        )
        model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.float32), "s"))
        return model

    def test_large_tensors_go_to_a_data_file(self, tmp_path: Path) -> None:
        out, data = tmp_path / "o.onnx", tmp_path / "o.onnx.data"
        model = self.big()
        assert save(model, out, load(self.big())) == (data, out)
        assert model == self.big()
        assert set(state(tmp_path)) == {"o.onnx", "o.onnx.data"}
        written = onnx.load(out, load_external_data=False)
        assert [t.data_location for t in written.graph.initializer] == [
            TensorProto.EXTERNAL,
            TensorProto.DEFAULT,
        ]
        for tensor in (written.graph.initializer[0], written.graph.node[1].attribute[0].t):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == "o.onnx.data"
            assert int(entries["offset"]) % 4096 == 0  # so that it can be mapped into memory
        np.testing.assert_array_equal(result_of(out), WEIGHTS * 11 + 1)

    def test_again_over_the_older_one(self, tmp_path: Path) -> None:
        out = tmp_path / "o.onnx"
        (tmp_path / "o.onnx.data").write_bytes(b"old data")
        save(self.big(), out, load(self.big()))
        np.testing.assert_array_equal(result_of(out), WEIGHTS * 11 + 1)
        assert set(state(tmp_path)) == {"o.onnx", "o.onnx.data"}

    def test_never_over_the_data_of_the_input(self, tmp_path: Path) -> None:
        model = self.big()
        model.graph.initializer.extend(external("o.onnx.data").graph.initializer)
        model.graph.initializer[-1].name = "other"
        source = on_disk(tmp_path / "a", model, o_onnx_data=WEIGHTS.tobytes())
        assert "external data" in refusal(source.model, tmp_path / "a" / "o.onnx", source)


FAILURES = [KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")]


class TestFailureInTheMiddle:
    """Whatever step fails, however it fails: all files are as before, and no others are there."""

    def scene(self, folder: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> tuple[Source, Path]:
        """A model with external data and a large tensor, to be saved elsewhere: three files, two new
        folders.
        """
        monkeypatch.setattr(saving, "INLINE_LIMIT", 20)
        monkeypatch.setattr(saving, "MOVED_SIZE", 8)
        model = external("sub/dir/w.data")
        model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "large"))
        (folder / "a" / "sub" / "dir").mkdir(parents=True)
        (folder / "b").mkdir()
        (folder / "a" / "sub" / "dir" / "w.data").write_bytes(WEIGHTS.tobytes())
        (folder / "a" / "m.onnx").write_bytes(model.SerializeToString())
        if exists:
            (folder / "b" / "o.onnx").write_bytes(b"old model")
            (folder / "b" / "o.onnx.data").write_bytes(b"old data")
        return load(folder / "a" / "m.onnx"), folder / "b" / "o.onnx"

    @pytest.mark.parametrize("exists", [False, True])
    @pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
    @pytest.mark.parametrize("when", range(1, 4))
    @pytest.mark.parametrize("step", ["open", "fsync", "replace"])
    def test_nothing_changes(
        self,
        step: str,
        when: int,
        failure: BaseException,
        exists: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The `when`-th file (copied data, moved tensors, model) fails when it is opened, made durable or
        renamed.
        """
        source, out = self.scene(tmp_path, monkeypatch, exists)
        before = state(tmp_path)
        count = 0

        def failing(original: object):
            def call(*args: object, **options: object) -> object:
                nonlocal count
                count += args[1:2] == ("xb",) or step != "open"
                if count == when:
                    count += 1
                    raise failure
                return original(*args, **options)

            return call

        owner: object = os if step == "fsync" else Path
        monkeypatch.setattr(owner, step, failing(getattr(owner, step)))
        expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else UsageError
        with pytest.raises(expected) as caught:
            save(source.model, out, source)
        monkeypatch.undo()
        assert count == when + 1 or step == "replace"
        if isinstance(failure, OSError):
            assert "No space left on device" in str(caught.value)
        assert state(tmp_path) == before

    def test_an_interrupt_after_the_last_rename_leaves_the_whole_result(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, out = self.scene(tmp_path, monkeypatch, exists=True)
        original = Path.replace

        def late(self: Path, target: Path) -> Path:
            result = original(self, target)
            if target == out:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(Path, "replace", late)
        with pytest.raises(KeyboardInterrupt):
            save(source.model, out, source)
        monkeypatch.undo()
        np.testing.assert_array_equal(result_of(out), WEIGHTS)
        assert {str(p.relative_to(out.parent)) for p in out.parent.rglob("*") if p.is_file()} == {
            "o.onnx",
            "o.onnx.data",
            "sub/dir/w.data",
        }

    def test_a_disk_that_is_really_full(self, tmp_path: Path) -> None:
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("needs /dev/full")
        with pytest.raises(OSError, match="No space left"), full.open("wb") as file:
            saving._copy_into(self.some_file(tmp_path), file)

    @staticmethod
    def some_file(folder: Path) -> Path:
        (folder / "f").write_bytes(bytes(2**16))
        return folder / "f"


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("elsewhere.onnx")], ids=["pipe", "link"])
def test_a_link_or_a_device_is_not_replaced(tmp_path, make):
    source = load(inline())
    out = tmp_path / "out.onnx"
    make(out)
    assert "link or a device" in refusal(inline(), out, source)
    assert out.is_symlink() or out.is_fifo()
