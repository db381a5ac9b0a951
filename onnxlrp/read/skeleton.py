"""Take the large tensors out of a model and put them back.

onnx's C++ passes (inliner, version converter, shape inference) serialise the whole model several times, which
costs memory in proportion to the weights and fails above 2 GiB. They need the graph only, so they are given a
skeleton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto

from onnxlrp.read.external import byte_size, is_external, tensors

#: Tensors above this many bytes are taken out. No pass reads values of such size.
HEAVY = 64 * 1024

_PLACEHOLDER = "onnxlrp-held-back/"


@dataclass(frozen=True)
class Stripped:
    """A model without its large tensors, and these tensors by the location that stands for them in
    `light`.
    """

    light: onnx.ModelProto
    heavy: Mapping[str, TensorProto]


def strip(model: onnx.ModelProto, threshold: int = HEAVY) -> Stripped:
    """A copy of `model` in which tensors of more than `threshold` bytes are references. `model` is left
    alone.

    Large initializers are not copied but shared with `model`.
    """
    heavy: dict[str, TensorProto] = {}

    def is_heavy(tensor: TensorProto) -> bool:
        return not is_external(tensor) and byte_size(tensor) > threshold

    def placeholder(tensor: TensorProto) -> TensorProto:
        result = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        result.data_location = TensorProto.EXTERNAL
        location = f"{_PLACEHOLDER}{len(heavy)}"
        result.external_data.add(key="location", value=location)
        return result

    light = onnx.ModelProto()
    light.graph.SetInParent()
    _copy_fields(model, light, leave_out="graph")
    _copy_fields(model.graph, light.graph, leave_out="initializer")
    for tensor in tensors(light):
        if is_heavy(tensor):
            substitute, original = placeholder(tensor), TensorProto()
            original.CopyFrom(tensor)
            heavy[substitute.external_data[0].value] = original
            tensor.CopyFrom(substitute)
    for tensor in model.graph.initializer:
        if is_heavy(tensor):
            substitute = placeholder(tensor)
            heavy[substitute.external_data[0].value] = tensor
            light.graph.initializer.append(substitute)
        else:
            light.graph.initializer.append(tensor)
    return Stripped(light, heavy)


def restore(model: onnx.ModelProto, heavy: Mapping[str, TensorProto]) -> None:
    """Put, in place, the tensors of `heavy` back wherever `model` refers to them."""
    for tensor in tensors(model):
        if is_external(tensor) and tensor.external_data[0].value in heavy:
            tensor.CopyFrom(heavy[tensor.external_data[0].value])


def _copy_fields(source: Any, target: Any, leave_out: str) -> None:
    for field, value in source.ListFields():
        if field.name == leave_out:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
