"""What onnx's version converter gets wrong on the way to a newer operator set, put right.

Found by comparing models before and after in onnxruntime: Upsample and Resize-10 lose the way they map
coordinates, Hardmax keeps its axis although that means something else, Pad keeps an attribute that it no
longer has, Scan-8 stays as it is, a Softmax is always wrapped into Flatten and Reshape, and the slopes of a
PRelu, once one per channel, become those of the last axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlrp.read import shapes
from onnxlrp.read.external import is_external
from onnxlrp.read.structure import describe, subgraphs

_PRELU_OPSET = 7
_SCAN_OPSET = 9
_RESIZE_OPSET = 11
_PAD_OPSET = 11
_AXIS_OPSET = 13
_FLATTENING = frozenset({"Softmax", "LogSoftmax", "Hardmax"})


class CannotLiftError(Exception):
    """A node means something that the newer operator set cannot say; the text tells what."""


@dataclass(frozen=True)
class Before:
    """The model before it was lifted: its opset, and the types and constants of its tensors by name."""

    opset: int
    types: Mapping[str, onnx.TypeProto]
    constants: Mapping[str, onnx.TensorProto]

    @classmethod
    def of(cls, model: onnx.ModelProto, converted: onnx.ModelProto, opset: int) -> Before:
        """`opset` is that of the standard operators in `model`.

        The types come from `converted`, where all names still are: shape inference sees more in recent
        opsets.
        """
        types = shapes.infer(converted) if opset < _AXIS_OPSET else {}
        return cls(opset, types, dict(_constants(model.graph)))


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
        for body in subgraphs(node):
            yield from _constants(body)


def repair_node(original: onnx.NodeProto, lifted: onnx.NodeProto, before: Before) -> None:
    """Correct, in place, what the converter made of `original`. CannotLiftError where nothing would be
    right.
    """
    match original.op_type:
        case "Upsample" | "Resize" if before.opset < _RESIZE_OPSET:
            _set(lifted, coordinate_transformation_mode="asymmetric")
            if _attribute(original, "mode", b"nearest") == b"nearest":
                _set(lifted, nearest_mode=_nearest_mode(original, before))
        case "Pad" if before.opset < _PAD_OPSET:
            _set(lifted, value=None)
        case "Hardmax" if before.opset < _AXIS_OPSET:
            axis = _single_axis(original, before)
            if axis is None:
                raise CannotLiftError(f"{describe(original)} works on several axes at once")
            _set(lifted, axis=axis)
        case "Scan" if before.opset < _SCAN_OPSET:
            raise CannotLiftError(f"{describe(original)} changed its meaning in opset {_SCAN_OPSET}")


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _set(node: onnx.NodeProto, **attributes: object) -> None:
    """Give `node` these attributes; None takes one away."""
    kept = [a for a in node.attribute if a.name not in attributes]
    new = [helper.make_attribute(name, value) for name, value in attributes.items() if value is not None]
    del node.attribute[:]
    node.attribute.extend((*kept, *new))


def _nearest_mode(node: onnx.NodeProto, before: Before) -> str:
    """How the old operators rounded: down where an axis grows, up where it shrinks."""
    factors = _factors(node, before)
    if factors is None:
        raise CannotLiftError(f"whether {describe(node)} enlarges or reduces is not known before it runs")
    grows, shrinks = any(f > 1 for f in factors), any(f < 1 for f in factors)
    if grows and shrinks:
        raise CannotLiftError(f"{describe(node)} enlarges one axis and reduces another")
    return "ceil" if shrinks else "floor"


def _factors(node: onnx.NodeProto, before: Before) -> list[float] | None:
    """The factors by which the axes grow, as far as above, below or equal to 1; None where that is not
    known.
    """
    if node.op_type == "Upsample":
        return [1.0]  # by its specification it only enlarges
    scales = before.constants.get(node.input[1])
    if scales is not None and not is_external(scales):
        return [float(scale) for scale in numpy_helper.to_array(scales)]
    small, large = (shapes.dims(before.types.get(name)) for name in (node.input[0], node.output[0]))
    factors = [
        b / a if isinstance(a, int) and isinstance(b, int) and a else None if a != b else 1.0
        for a, b in zip(small or (), large or (), strict=False)
    ]
    known = [factor for factor in factors if factor is not None]
    return known if factors and len(known) == len(factors) else None


def unflatten(
    nodes: list[onnx.NodeProto], originals: Mapping[str, onnx.NodeProto], before: Before
) -> list[onnx.NodeProto]:
    """`nodes` with one Softmax for each Flatten, Softmax, Reshape (and Shape) where that is the same.

    Before opset 13 the operator worked on its input flattened to a matrix at `axis`. That is one axis where
    only axes of length 1 follow; the converter does not look and always flattens, which would hide the
    network's head.
    originals: the nodes before lifting by their first output.
    """
    if before.opset >= _AXIS_OPSET:
        return nodes
    maker = {name: node for node in nodes for name in node.output}
    gone: set[int] = set()
    result = []
    for node in nodes:
        original = originals.get(next(iter(node.output), ""))
        axis = None
        if original is not None and original.op_type in _FLATTENING and node.op_type == "Reshape":
            axis = _single_axis(original, before)
        if original is None or axis is None:
            result.append(node)
            continue
        inner = maker[node.input[0]]
        gone |= {id(inner), id(maker[inner.input[0]]), id(maker[node.input[1]])}
        single = onnx.NodeProto()
        single.CopyFrom(original)
        _set(single, axis=axis)
        result.append(single)
    return [node for node in result if id(node) not in gone]


def spread_slopes(nodes: list[onnx.NodeProto], before: Before) -> list[onnx.NodeProto]:
    """`nodes` with the slopes of every PRelu in a shape that broadcasts to what they meant.

    Before opset 7 a vector of slopes had one for each channel (axis 1), whatever axes followed. CannotLiftError
    where the number of axes is not known.
    """
    if before.opset >= _PRELU_OPSET:
        return nodes
    result = []
    for node in nodes:
        slopes = shapes.dims(before.types.get(node.input[1])) if node.op_type == "PRelu" else None
        if slopes is not None and len(slopes) == 1 and slopes != (1,):
            data = shapes.dims(before.types.get(node.input[0]))
            if data is None:
                raise CannotLiftError(f"{describe(node)} has an input of unknown rank")
            spread, axes = f"{node.output[0]}_slopes", f"{node.output[0]}_axes"
            values = numpy_helper.from_array(np.arange(1, len(data) - 1, dtype=np.int64), axes)
            result.append(helper.make_node("Constant", [], [axes], name=axes, value=values))
            result.append(helper.make_node("Unsqueeze", [node.input[1], axes], [spread], name=spread))
            node.input[1] = spread
        result.append(node)
    return result


def _single_axis(node: onnx.NodeProto, before: Before) -> int | None:
    """The one axis longer than 1 that the old `node` works on, None where there are several or it is not
    known.
    """
    dims = shapes.dims(before.types.get(node.input[0]))
    axis = _attribute(node, "axis", 1)
    if not dims or not isinstance(axis, int):
        return None
    axis += len(dims) if axis < 0 else 0
    if not 0 <= axis < len(dims) or any(dim != 1 for dim in dims[axis + 1 :]):
        return None
    return axis
