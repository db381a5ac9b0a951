"""Write a model so that either all of it is there or nothing has changed, and its external data is found."""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto, numpy_helper

from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.read import external, skeleton
from onnxlrp.read.load import Source

#: A protobuf message cannot be larger than 2 GiB; the model beside its tensors is taken to fit into the rest.
INLINE_LIMIT = 2**31 - 64 * 2**20

#: Tensors above this size move to a data file when the model is too large for one file.
MOVED_SIZE = 2**20

#: onnxruntime can map data into memory where it starts at a page.
_PAGE = 4096


def default_output(path: str | os.PathLike[str]) -> Path:
    """Where a converted model goes unless told otherwise: `<stem>.lrp.onnx` beside the model."""
    path = Path(path)
    return path.with_name(f"{path.stem}.lrp.onnx")


def save(model: onnx.ModelProto, out: str | os.PathLike[str], source: Source) -> tuple[Path, ...]:
    """Write `model`, which was made from `source`, to `out`. Returns all files written, `out` last.

    Beside the source, external tensors go on pointing at the source's data files. In another folder these
    files are copied along under the same relative names, unless they are already there. A model too large for
    one file gets its large tensors in `<name of out>.data`.

    Whatever goes wrong, an interrupt included, no new or half-written file stays and those of before are
    intact.
    UsageError: `out` is the source or one of its data files, a folder, or cannot be written (no such folder,
        no permission, full disk); a different data file is in the way. ModelReadError: the source's data has
        gone.
    """
    out = Path(out)
    try:
        _refuse_target(out, model, source)
        return _save(model, out, source)
    except OSError as error:
        raise UsageError(
            f"cannot write {str(out)!r}: {error.strerror or error}; name another place for the output"
        ) from error
    except MemoryError as error:
        raise UsageError(f"cannot write {str(out)!r}: not enough memory") from error


def _save(model: onnx.ModelProto, out: Path, source: Source) -> tuple[Path, ...]:
    """As `save`: first everything that can be undone, then one rename that changes `out`."""
    undo, leftovers = ExitStack(), ExitStack()
    staged, is_staged = _beside(out), False
    try:
        written = _copy_data(model, out, source, undo)
        if _inline_bytes(model) > INLINE_LIMIT:
            data = out.with_name(f"{out.name}.data")
            _refuse_target(data, model, source)
            model = _move_tensors(model, data, undo, leftovers)
            written.append(data)
        content = model.SerializeToString()
        _fill(staged, lambda file: file.write(content))
        if out.exists():
            shutil.copymode(out, staged)
        is_staged = True
        staged.replace(out)
        _sync_folder(out.parent)
    except BaseException:
        if not is_staged or staged.exists():
            undo.close()
        raise
    finally:
        staged.unlink(missing_ok=True)
        leftovers.close()
    return (*written, out)


def _refuse_target(out: Path, model: onnx.ModelProto, source: Source) -> None:
    """UsageError where writing to `out` would destroy an input, or cannot work."""
    if out.is_dir():
        raise UsageError(f"cannot write the model to {str(out)!r}: it is a folder; name a file")
    if not out.parent.is_dir():
        raise UsageError(f"cannot write {str(out)!r}: no such folder; create it first")
    if source.path is not None and _is_same(out, source.path):
        raise UsageError(f"{str(out)!r} is the input model, which is never overwritten: name another output")
    if (out.exists() and not out.is_file()) or out.is_symlink():
        raise UsageError(f"cannot write the model to {str(out)!r}: it is a link or a device; name a plain file")
    for location in external.locations(model):
        places = [folder / location for folder in (out.parent, *source.data_folders)]
        if out.resolve() in [place.resolve() for place in places] or any(_is_same(out, p) for p in places):
            raise UsageError(f"{str(out)!r} holds external data of the input model: name another output")


def _is_same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and a.samefile(b)


def _copy_data(model: onnx.ModelProto, out: Path, source: Source, undo: ExitStack) -> list[Path]:
    """Copy the data files that `model` refers to beside `out`, except those that are there already."""
    copied = []
    for location, tensor_name in external.locations(model).items():
        if not source.data_folders:
            raise ModelReadError(f"it is not known in which folder the external data {location!r} lies")
        original = external.locate(location, tensor_name, source.data_folders)
        relative = Path(os.path.normpath(location))
        target = out.parent / relative
        if ".." in relative.parts or (
            _is_same(target, original) and not target.resolve().is_relative_to(out.parent.resolve())
        ):
            raise UsageError(
                f"the external data {location!r} lies outside the folder of {str(out)!r}, where onnxruntime "
                "would refuse it: name an output in another folder, to which it can be copied"
            )
        if not target.exists():
            _make_folders(target.parent, undo)
            undo.callback(target.unlink, missing_ok=True)
            _write(target, partial(_copy_into, original))
            copied.append(target)
        elif not _is_same(target, original) and not filecmp.cmp(target, original, shallow=False):
            raise UsageError(
                f"{str(target)!r} is in the way: the model needs its own external data under this name; "
                "name an output in another folder"
            )
    return copied


def _make_folders(folder: Path, undo: ExitStack) -> None:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        undo.callback(_remove_folder, place)
        place.mkdir()


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):  # never made, or somebody else has put a file there
        folder.rmdir()


def _inline_bytes(model: onnx.ModelProto) -> int:
    """About how many bytes of tensors the file of `model` would hold."""
    return sum(
        external.byte_size(tensor) if tensor.HasField("raw_data") else tensor.ByteSize()
        for tensor in external.tensors(model)
        if not external.is_external(tensor)
    )


def _move_tensors(model: onnx.ModelProto, data: Path, undo: ExitStack, leftovers: ExitStack) -> onnx.ModelProto:
    """Write the large tensors of `model` to the file `data`. Returns a copy that points at them there."""
    stripped = skeleton.strip(model, MOVED_SIZE)
    held_back = [
        (tensor, stripped.heavy[location])
        for tensor in external.tensors(stripped.light)
        if external.is_external(tensor) and (location := external.reference(tensor).location) in stripped.heavy
    ]

    def fill(file: BinaryIO) -> None:
        for tensor, original in held_back:
            file.write(bytes(-file.tell() % _PAGE))
            raw = _raw(original)
            del tensor.external_data[:]
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", len(raw))):
                tensor.external_data.add(key=key, value=str(value))
            file.write(raw)

    if data.exists():
        backup = _beside(data)
        leftovers.callback(backup.unlink, missing_ok=True)
        try:
            os.link(data, backup)
        except OSError:  # a file system without hard links
            shutil.copyfile(data, backup)
        undo.callback(backup.replace, data)
    else:
        undo.callback(data.unlink, missing_ok=True)
    _write(data, fill)
    return stripped.light


def _raw(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def _beside(path: Path) -> Path:
    """A name for a temporary file in the folder of `path`, so that it can be renamed to `path`."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Let `fill` write the file `path`, which appears complete or not at all."""
    staged = _beside(path)
    try:
        _fill(staged, fill)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def _fill(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    with path.open("xb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())


def _copy_into(original: Path, file: BinaryIO) -> None:
    with original.open("rb") as data:
        shutil.copyfileobj(data, file, 2**20)


def _sync_folder(folder: Path) -> None:
    """Make the rename last through a power cut, where the system lets a folder be synchronised."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
