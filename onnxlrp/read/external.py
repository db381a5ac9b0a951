"""External data: where the tensors of a model that live outside its file lie, and reading a single one.

A model is worked on as a skeleton: its external tensors stay on disk and only those whose values are needed
are read. A path written in a model is never trusted: it must stay inside the model's folder, whatever links
it goes through.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from onnxlrp.errors import ModelReadError

_BITS: dict[int, int] = {
    TensorProto.BOOL: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.FLOAT: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
    TensorProto.DOUBLE: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}


@dataclass(frozen=True)
class Reference:
    """What a tensor says of its external data: file (as written), offset in bytes, length in bytes or None
    (to the end).
    """

    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class Slice:
    """A stretch of an existing file: `length` bytes from `offset` on."""

    path: Path
    offset: int
    length: int


def byte_size(tensor: TensorProto) -> int:
    """Bytes that the values of `tensor` take in memory, from its shape and type alone; an upper bound for
    types this version does not know (they are at most one byte each); 0 for strings."""
    if tensor.data_type == TensorProto.STRING:
        return 0
    bits: int = math.prod(tensor.dims) * _BITS.get(tensor.data_type, 8)
    return math.ceil(bits / 8)


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor in `model`: initializers and attributes, in subgraphs and model-local functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def is_external(tensor: TensorProto) -> bool:
    """True where the values of `tensor` lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def reference(tensor: TensorProto) -> Reference:
    """Where `tensor` says that its values lie. ModelReadError when it says nothing sensible."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError:
        offset, length = -1, None
    if not location or "\0" in location or offset < 0 or (length is not None and length < 0):
        raise ModelReadError(
            f"the external data of tensor {tensor.name!r} has no valid location, offset and length: the "
            "model is damaged"
        )
    return Reference(location, offset, length)


def locations(model: onnx.ModelProto) -> dict[str, str]:
    """The external data files that `model` refers to, as written there, each with the first tensor that
    does.
    """
    found: dict[str, str] = {}
    for tensor in tensors(model):
        if is_external(tensor):
            found.setdefault(reference(tensor).location, tensor.name)
    return found


def locate(location: str, tensor_name: str, folders: tuple[Path, ...]) -> Path:
    """The existing file that `location` names, relative to `folders[0]`.

    `folders[0]` is the model's folder; its links are followed, and the end of the way must lie inside one of
    `folders` (a model that is itself a link, as in download caches, brings the folder of the real file).
    ModelReadError otherwise.
    """
    path = folders[0] / location
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise ModelReadError(f"cannot follow the external data path {location!r}: {error}") from error
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive != ""
    if absolute or not any(real.is_relative_to(folder.resolve()) for folder in folders):
        raise ModelReadError(
            f"tensor {tensor_name!r} points to external data outside the model's folder ({location!r}): "
            "refused; move the data beside the model and correct the reference"
        )
    if not path.exists():
        raise ModelReadError(
            f"the external data file {location!r} (tensor {tensor_name!r}) is missing: "
            f"put it into the folder {str(folders[0])!r}"
        )
    if not path.is_file():
        raise ModelReadError(f"external data {location!r} (tensor {tensor_name!r}) is not a file")
    if not os.access(path, os.R_OK):
        raise ModelReadError(f"no permission to read the external data file {location!r} (tensor {tensor_name!r})")
    return path


def stretch(tensor: TensorProto, path: Path, size: int) -> Slice:
    """The bytes of `tensor` in the file `path` of `size` bytes. ModelReadError where the file is too short
    for them.
    """
    where = reference(tensor)
    needed = byte_size(tensor)
    length = needed if where.length is None else where.length
    if where.offset + length > size:
        raise ModelReadError(
            f"external data file {where.location!r} is too short: tensor {tensor.name!r} needs bytes "
            f"{where.offset} "
            f"to {where.offset + length}, the file has {size}; fetch or export it again"
        )
    if tensor.data_type in _BITS and length < needed:
        raise ModelReadError(
            f"external data of tensor {tensor.name!r} has {length} bytes, but its shape and type need "
            f"{needed}: "
            "the model is damaged"
        )
    return Slice(path, where.offset, length)


def check(model: onnx.ModelProto, folders: tuple[Path, ...]) -> None:
    """Make sure that all external data is there, inside `folders`, and long enough. ModelReadError where it
    is not.

    Nothing but directory entries is read.
    """
    found: dict[str, tuple[Path, int]] = {}
    for tensor in tensors(model):
        if is_external(tensor):
            location = reference(tensor).location
            if location not in found:
                path = locate(location, tensor.name, folders)
                found[location] = (path, path.stat().st_size)
            stretch(tensor, *found[location])


def with_values(tensor: TensorProto, folders: tuple[Path, ...]) -> TensorProto:
    """`tensor` itself, or a copy that holds its values where they lie in another file. ModelReadError as in
    `check`.
    """
    if not is_external(tensor):
        return tensor
    path = locate(reference(tensor).location, tensor.name, folders)
    try:
        piece = stretch(tensor, path, path.stat().st_size)
        with path.open("rb") as file:
            file.seek(piece.offset)
            raw = file.read(piece.length)
    except OSError as error:
        raise ModelReadError(f"cannot read external data {str(path)!r}: {error.strerror}") from error
    result = TensorProto()
    result.CopyFrom(tensor)
    result.ClearField("external_data")
    result.ClearField("data_location")
    result.raw_data = raw
    return result


def values(tensor: TensorProto, folders: tuple[Path, ...] = ()) -> npt.NDArray[np.generic]:
    """The values of `tensor` as an array of its shape, read from disk when they lie there (`folders` as in
    `locate`).
    """
    return np.asarray(numpy_helper.to_array(with_values(tensor, folders)))
