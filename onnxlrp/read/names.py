"""Keep apart the names that onnx's version converter makes up and those of the model.

The converter numbers new tensors `_v_0`, `_v_1`, ... from scratch on each run, without looking whether a name
is taken: by a model that was converted before, or by the next function that is lifted on its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping

import onnx

from onnxlrp.read.structure import given, subgraphs

_MADE_UP = re.compile(r"_v_\d+")
_ASIDE = "onnxlrp.aside/"


def set_aside(graph: onnx.GraphProto) -> None:
    """Rename, in place, the tensors of `graph` that have a name which the converter could make up."""
    _rename(graph, lambda name: _ASIDE + name if _MADE_UP.fullmatch(name) else name)


def bring_back(graph: onnx.GraphProto) -> None:
    """Number, in place, the tensors that the converter added, then undo `set_aside`.

    A made-up name means the tensor made last under it: the converter puts what it adds right before where it
    is used.
    """
    taken = set(_all_names(graph))
    numbered = (f"lifted_{number}" for number in itertools.count())
    _number(graph, {}, (name for name in numbered if name not in taken))
    _rename(graph, lambda name: name.removeprefix(_ASIDE))


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from given(graph)
    for node in graph.node:
        yield from node.output
        for body in subgraphs(node):
            yield from _all_names(body)


def _number(graph: onnx.GraphProto, outer: Mapping[str, str], fresh: Iterator[str]) -> None:
    current = dict(outer)
    for tensor in graph.initializer:
        if _MADE_UP.fullmatch(tensor.name):
            current[tensor.name] = next(fresh)
            tensor.name = current[tensor.name]
    for node in graph.node:
        node.input[:] = [current.get(name, name) for name in node.input]
        for body in subgraphs(node):
            _number(body, current, fresh)
        current.update((name, next(fresh)) for name in node.output if _MADE_UP.fullmatch(name))
        node.output[:] = [current.get(name, name) for name in node.output]
    for value in graph.output:
        value.name = current.get(value.name, value.name)
    kept = [value for value in graph.value_info if not _MADE_UP.fullmatch(value.name)]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _rename(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new(value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = new(sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = new(annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = new(entry.value)
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for body in subgraphs(node):
            _rename(body, new)
