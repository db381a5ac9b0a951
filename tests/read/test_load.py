"""Loading: what counts as a model, what is said of everything else, and external data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.read import external
from onnxlrp.read.load import load

RELU = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"""

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def relu() -> onnx.ModelProto:
    return parser.parse_model(RELU)


def referring(location: str = "w.data", dims: tuple[int, ...] = (2, 3), **entries: object) -> onnx.ModelProto:
    """y = x * w with w of shape `dims` in the external file `location`."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2,3] x) => (float[2,3] y) { y = Mul(x, w) }'
    )
    tensor = model.graph.initializer.add(name="w", dims=dims, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def put(folder: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def refusal(model: object, **options: object) -> str:
    """The message of the ModelReadError that loading `model` raises: one line."""
    with pytest.raises(ModelReadError) as caught:
        load(model, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 3
    return message


class TestWhatIsAccepted:
    def test_a_path_as_text_or_object(self, tmp_path: Path) -> None:
        path = put(tmp_path, relu())
        for given in (path, str(path)):
            source = load(given)
            assert source.model == relu()
            assert (source.path, source.base_dir) == (path, tmp_path)

    def test_bytes(self) -> None:
        source = load(relu().SerializeToString())
        assert source.model == relu()
        assert (source.path, source.base_dir) == (None, None)

    def test_a_model_object_is_copied(self) -> None:
        given = relu()
        source = load(given)
        assert source.model == given
        source.model.graph.name = "changed"
        assert given == relu()

    def test_anything_else_is_wrong_usage(self) -> None:
        with pytest.raises(UsageError, match="not int"):
            load(7)


class TestFilesThatAreNoModels:
    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no such model file" in refusal(tmp_path / "absent.onnx")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "is a folder" in refusal(tmp_path)

    def test_an_impossible_name(self) -> None:
        assert "not a file name" in refusal("a\0b")

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(self: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        path = put(tmp_path, relu())
        monkeypatch.setattr(Path, "read_bytes", denied)
        message = refusal(path)
        assert "Permission denied" in message
        assert "m.onnx" in message

    def test_larger_than_any_model_file(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.onnx"
        with path.open("wb") as file:
            file.truncate(2**31)  # sparse: takes no room
        assert "2 GiB" in refusal(path)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is empty"),
            (b"hello, I am a text file\n" * 20, "text file"),
            ("<!DOCTYPE html><html>404 – not found</html>".encode(), "text file"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
            (b"\x1c\0\0\0ORTM" + bytes(64), "ORT format"),
            (bytes(range(256)), "not an ONNX model"),
            (b"\x08\x08", "holds no graph"),
        ],
    )
    def test_other_content(self, content: bytes, reason: str, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        message = refusal(path)
        assert reason in message
        assert "m.onnx" in message
        assert reason in refusal(content)

    def test_truncated_anywhere(self) -> None:
        whole = relu().SerializeToString()
        for end in range(len(whole)):
            refusal(whole[:end])

    def test_another_kind_of_onnx_file(self) -> None:
        refusal(numpy_helper.from_array(WEIGHTS, "w").SerializeToString())

    def test_no_opset(self) -> None:
        model = relu()
        del model.opset_import[:]
        assert "operator set" in refusal(model)

    def test_no_outputs(self) -> None:
        model = relu()
        del model.graph.output[:]
        assert "no outputs" in refusal(model)


class TestExternalData:
    def test_stays_on_disk_and_is_read_on_demand(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(b"pad-" + WEIGHTS.tobytes())
        source = load(put(tmp_path, referring(offset=4, length=24)))
        tensor = source.model.graph.initializer[0]
        assert not tensor.raw_data
        np.testing.assert_array_equal(external.values(tensor, source.data_folders), WEIGHTS)
        assert not tensor.raw_data

    def test_without_length_the_shape_says_how_much(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes() + b"more")
        source = load(put(tmp_path, referring()))
        np.testing.assert_array_equal(external.values(source.model.graph.initializer[0], source.data_folders), WEIGHTS)

    def test_of_a_model_without_a_path_needs_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes())
        for given in (referring(), referring().SerializeToString()):
            assert "base_dir" in refusal(given)
            assert load(given, base_dir=tmp_path).base_dir == tmp_path

    def test_missing_file(self, tmp_path: Path) -> None:
        message = refusal(put(tmp_path, referring("gone.data")))
        assert "'gone.data'" in message
        assert "missing" in message
        assert "'w'" in message

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").mkdir()
        assert "not a file" in refusal(put(tmp_path, referring()))

    def test_outside_the_folder_of_the_model(self, tmp_path: Path) -> None:
        inside = tmp_path / "inside"
        inside.mkdir()
        secret = tmp_path / "secret"
        secret.write_bytes(WEIGHTS.tobytes())
        (inside / "link").symlink_to(secret)
        (inside / "folder").symlink_to(tmp_path)
        (inside / "own").write_bytes(WEIGHTS.tobytes())
        absolute = str(inside / "own")
        for location in (
            "../secret",
            str(secret),
            absolute,
            "link",
            "folder/secret",
            "C:\\secret",
            "../nothing",
        ):
            message = refusal(put(inside, referring(location)))
            assert "outside the model's folder" in message

    def test_links_inside_the_folder_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_bytes(WEIGHTS.tobytes())
        (tmp_path / "w.data").symlink_to("blob")
        load(put(tmp_path, referring()))

    def test_a_model_that_is_a_link_brings_its_real_folder(self, tmp_path: Path) -> None:
        """Download caches keep all files in one folder and link to them from another."""
        cache, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
        cache.mkdir()
        snapshot.mkdir()
        (cache / "2").write_bytes(WEIGHTS.tobytes())
        put(cache, referring(), "1")
        (snapshot / "w.data").symlink_to("../blobs/2")
        (snapshot / "m.onnx").symlink_to("../blobs/1")
        source = load(snapshot / "m.onnx")
        np.testing.assert_array_equal(external.values(source.model.graph.initializer[0], source.data_folders), WEIGHTS)

    @pytest.mark.parametrize("entries", [{"length": 24}, {"offset": 1}, {"offset": 20, "length": 24}])
    def test_shorter_than_the_model_says(self, entries: dict[str, int], tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes()[:-1] if "offset" not in entries else bytes(24))
        message = refusal(put(tmp_path, referring(**entries)))
        assert "too short" in message
        assert "'w.data'" in message

    def test_length_that_does_not_fit_the_shape(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(bytes(64))
        assert "shape and type need 24" in refusal(put(tmp_path, referring(length=20)))

    @pytest.mark.parametrize("entries", [{"offset": -1}, {"length": -4}, {"offset": "x"}, {"location": ""}])
    def test_senseless_entries(self, entries: dict[str, object], tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes())
        assert "no valid location" in refusal(put(tmp_path, referring(**entries)))

    def test_in_attributes_and_subgraphs_too(self, tmp_path: Path) -> None:
        constant = onnx.helper.make_node("Constant", [], ["c"], value=referring().graph.initializer[0])
        body = onnx.helper.make_graph([constant], "b", [], [onnx.ValueInfoProto(name="c")])
        model = relu()
        model.graph.node.append(constant)
        assert "'w.data'" in refusal(put(tmp_path, model))
        model = relu()
        model.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=body, else_branch=body))
        assert "'w.data'" in refusal(put(tmp_path, model))

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes())
        source = load(put(tmp_path, referring()))

        def denied(*args: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
        with pytest.raises(ModelReadError, match="Permission denied"):
            external.values(source.model.graph.initializer[0], source.data_folders)

    def test_unreadable_data_is_noticed_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "w.data").write_bytes(WEIGHTS.tobytes())
        path = put(tmp_path, referring())
        monkeypatch.setattr(os, "access", lambda *args, **options: False)
        assert "permission" in refusal(path)


class TestByteSize:
    @pytest.mark.parametrize(
        "kind",
        [
            TensorProto.FLOAT,
            TensorProto.DOUBLE,
            TensorProto.FLOAT16,
            TensorProto.BFLOAT16,
            TensorProto.INT64,
            TensorProto.INT8,
            TensorProto.BOOL,
            TensorProto.COMPLEX64,
            TensorProto.FLOAT8E4M3FN,
            TensorProto.INT4,
            TensorProto.UINT4,
        ],
    )
    def test_is_that_of_the_raw_values(self, kind: int) -> None:
        tensor = onnx.helper.make_tensor("t", kind, [3, 5], np.ones(15))
        raw = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        assert external.byte_size(tensor) == len(raw)
