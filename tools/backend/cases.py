"""Where the cases come from: `onnx.backend.test` makes the node cases, and brings directories of others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

Array = np.ndarray[Any, Any]

#: The kinds of test in `onnx.backend.test` that bring data; the others are pointers to models on a server.
KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})

#: The cases that write an operator as the body of its function end in this.
_EXPANDED = re.compile(r"_expanded(_.*)?$")
#: What surrounds the operator that a case of several nodes is about.
_SUPPORT = frozenset(
    (
        *("Cast", "Concat", "Constant", "ConstantOfShape", "Gather", "Identity", "Reshape"),
        *("Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    )
)


@dataclass(frozen=True)
class Case:
    """A model with inputs, and the outputs that it should have.

    Attributes:
        kind: one of `KINDS`.
        operator: the operator that it is about, with its domain unless that is the standard's.
        expanded: the operator is written as the body of its function.
        feeds: values by input name; None where an optional input is empty, lists for sequences.
    """

    name: str
    kind: str
    operator: str
    expanded: bool
    model: ModelProto
    feeds: Mapping[str, Any]
    expected: Mapping[str, Any]

    @property
    def float_inputs(self) -> tuple[str, ...]:
        return tuple(v.name for v in self.model.graph.input if v.name in self.feeds and is_float(v))

    @property
    def float_outputs(self) -> tuple[str, ...]:
        return tuple(v.name for v in self.model.graph.output if is_float(v))

    @property
    def opset(self) -> int:
        """The version of the standard operators, 0 where they are not used."""
        return max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def is_float(value: ValueInfoProto) -> bool:
    """Whether a value is a tensor of floating point numbers of 16 bits or more."""
    return value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in FLOATS


@cache
def load() -> tuple[Case, ...]:
    """Every case that has a tensor of floats among its inputs and among its outputs, by name."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = [case for kind in KINDS for case in _of_kind(kind)]
    return tuple(case for case in found if case.float_inputs and case.float_outputs)


def _of_kind(kind: str) -> Iterator[Case]:
    tests = load_model_tests(kind=kind)
    if kind == "node":
        plain = {t.name: _operator(t.model) for t in tests if not _EXPANDED.search(t.name)}
    for test in tests:
        model = test.model
        if model is None:
            folder = Path(test.model_dir)
            model = onnx.load(folder / "model.onnx")
            ins, outs = _stored(folder, "input", _fed(model)), _stored(folder, "output", list(model.graph.output))
        else:
            ins, outs = ([_value(a) for a in side] for side in test.data_sets[0])
        expanded = kind == "node" and bool(_EXPANDED.search(test.name))
        operator = plain.get(_EXPANDED.sub("", test.name)) if expanded else None
        yield Case(
            test.name,
            kind,
            operator or _operator(model),
            expanded,
            model,
            dict(zip((v.name for v in _fed(model)), ins, strict=False)),
            dict(zip((v.name for v in model.graph.output), outs, strict=True)),
        )


def _fed(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that are no weights: in old models every weight is listed as an input too."""
    weights = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in weights]


def _operator(model: ModelProto) -> str:
    """The operator that a case is about: the first that does not merely bring data into shape."""
    nodes: list[NodeProto] = list(model.graph.node)
    node = next((n for n in nodes if n.op_type not in _SUPPORT), nodes[0])
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _value(given: Any) -> Any:
    """Arrays as they are; what the node cases store as a message is unpacked."""
    if isinstance(given, TensorProto):
        return numpy_helper.to_array(given)
    if isinstance(given, list):
        return [_value(each) for each in given]
    return given


def _stored(folder: Path, side: str, values: list[ValueInfoProto]) -> list[Any]:
    """The arrays of a data set on disk."""
    found = []
    for i, value in enumerate(values):
        path = folder / "test_data_set_0" / f"{side}_{i}.pb"
        found.append(_read(path.read_bytes(), value.type))
    return found


def _read(content: bytes, kind: TypeProto) -> Any:
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))
