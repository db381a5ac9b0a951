"""Load a model from a path, bytes or a ModelProto. Its external data is checked but stays on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.read import external

_PROTOBUF_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Source:
    """A model as it was given.

    model: a skeleton (external data not loaded); belongs to onnxlrp alone, so the caller's object never
        changes.
    path: the file it came from, None for bytes and ModelProto.
    base_dir: the folder that external data is relative to, None where there is neither a path nor external
        data.
    """

    model: onnx.ModelProto
    path: Path | None
    base_dir: Path | None

    @property
    def data_folders(self) -> tuple[Path, ...]:
        """The folders external data may lie in; the first is the one that locations are relative to.

        A model file that is a link (as in download caches) brings the folder of the real file.
        """
        return _data_folders(self.path, self.base_dir)


def _data_folders(path: Path | None, base_dir: Path | None) -> tuple[Path, ...]:
    if base_dir is None:
        return ()
    return (base_dir,) if path is None else (base_dir, path.resolve().parent)


def load(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto, base_dir: str | os.PathLike[str] | None = None
) -> Source:
    """Read `model` and check that it is an ONNX model whose external data is complete.

    model: a path, the bytes of a model file, or a ModelProto (which is copied).
    base_dir: folder of the external data; by default that of the model file.
    ModelReadError: the file or its data is missing, unreadable, damaged, not ONNX, or data lies outside
        `base_dir`.
    """
    path: Path | None = None
    folder = None if base_dir is None else Path(base_dir)
    if isinstance(model, onnx.ModelProto):
        name = "the given model"
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
    elif isinstance(model, bytes | bytearray | memoryview):
        name = "the given bytes"
        proto = _parse(bytes(model), name)
    elif isinstance(model, str | os.PathLike):
        path = Path(model)
        name = repr(str(path))
        proto = _parse(_read(path, name), name)
        folder = path.parent if folder is None else folder
    else:
        raise UsageError(f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__name__}")
    _check_is_model(proto, name)
    _check_data(proto, name, _data_folders(path, folder))
    return Source(proto, path, folder)


def _read(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise ModelReadError(f"{name} is a folder, not a model file")
        if path.stat().st_size > _PROTOBUF_LIMIT:
            raise ModelReadError(
                f"{name} is larger than 2 GiB, which no ONNX file can be: export it with external data"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelReadError(f"no such model file: {name}") from error
    except OSError as error:
        raise ModelReadError(f"cannot read the model file {name}: {error.strerror}") from error
    except ValueError as error:
        raise ModelReadError(f"not a file name: {name}") from error


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    if not data:
        raise ModelReadError(f"{name} is empty, not an ONNX model")
    if data.startswith(b"version https://git-lfs"):
        raise ModelReadError(f"{name} is a Git LFS pointer, not the model: fetch it with 'git lfs pull'")
    if data[4:8] == b"ORTM":
        raise ModelReadError(f"{name} is in ORT format: give the .onnx model that it was made from")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's implementations raise different classes
        kind = "a text file, not an ONNX model" if _is_text(data) else "not an ONNX model, or a truncated one"
        raise ModelReadError(f"{name} is {kind}") from error
    return proto


def _is_text(data: bytes) -> bool:
    head = data[:512]
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and b"\x7f" not in head


def _check_is_model(proto: onnx.ModelProto, name: str) -> None:
    """A ModelProto without these was parsed from something else, or its file ends too early."""
    if not proto.HasField("graph"):
        raise ModelReadError(f"{name} is not an ONNX model: it holds no graph")
    if not proto.opset_import:
        raise ModelReadError(f"{name} is not a complete ONNX model: it does not say which operator set it uses")
    if not proto.graph.output:
        raise ModelReadError(f"{name} is not a usable ONNX model: its graph has no outputs")


def _check_data(proto: onnx.ModelProto, name: str, folders: tuple[Path, ...]) -> None:
    if not folders:
        if any(external.is_external(tensor) for tensor in external.tensors(proto)):
            raise ModelReadError(
                f"{name} keeps weights in external files: say where with base_dir, or give the path of the model"
            )
        return
    try:
        external.check(proto, folders)
    except ModelReadError as error:
        raise ModelReadError(f"{name}: {error}") from error
    except OSError as error:
        raise ModelReadError(f"{name}: cannot read its external data: {error}") from error
