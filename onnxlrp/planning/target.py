"""What is explained: the tensor that relevance starts from, and the target on it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.graph.view import Dim, Graph, Node, shape_text

_HEADS = {
    "Softmax": "relevance starts at the logits before it",
    "LogSoftmax": "relevance starts at the logits before it",
    "Sigmoid": "relevance starts at the logit before it",
    "ArgMax": "relevance starts at the scores that it chooses from",
    "QuantizeLinear": "relevance starts at the real numbers that it rounds",
    "ai.onnx.ml.Normalizer": "relevance starts at the scores before it",
    "ai.onnx.ml.ZipMap": "relevance starts at the scores that it names",
}
_SHAPE_ONLY = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"})

Mode = Literal["argmax", "index", "input", "seed", "top"]
TargetLike = str | int | Sequence[int | slice]


@dataclass(frozen=True)
class Span:
    """All positions along one axis from `start` up to `stop`, which is left out; as in a Python slice."""

    start: int | None
    stop: int | None

    def __str__(self) -> str:
        return ":".join("" if end is None else str(end) for end in (self.start, self.stop))


@dataclass(frozen=True)
class Target:
    """Which elements of the explained output are explained.

    Attributes:
        index: position in the output, batch left out (mode "index"); a span stands for several, which are summed.
        k: how many maps (mode "top").
        axis: the axis along which the largest element is taken at every position (mode "argmax").
        rather_than: what is explained is the difference to this position or span ("argmax" and "index").
    """

    mode: Mode
    index: tuple[int | Span, ...] = ()
    k: int = 0
    axis: int | None = None
    rather_than: tuple[int | Span, ...] = ()

    def __str__(self) -> str:
        if self.rather_than:
            return f"{replace(self, rather_than=())} rather than {','.join(map(str, self.rather_than))}"
        if self.mode == "index":
            return ",".join(map(str, self.index))
        if self.mode == "top":
            return f"top:{self.k}"
        return self.mode if self.axis is None else f"{self.mode} along axis {self.axis}"


def parse_target(target: TargetLike, axis: int | None = None, rather_than: TargetLike | None = None) -> Target:
    """The target as a value.

    Raises:
        UsageError: it is none of argmax, an index, input, seed or top:K, or what it is preferred to is no index.
    """
    found = _parse(target, axis)
    if rather_than is None:
        return found
    other = _parse(rather_than)
    if other.mode != "index":
        raise UsageError(f"what a target is preferred to is an index such as 7 or 7,3,5, not {rather_than!r}")
    if found.mode not in ("argmax", "index") or axis is not None:
        raise UsageError(
            f"a target that is preferred to another one is an index or argmax, not {found}; use seed for other pairs"
        )
    return replace(found, rather_than=other.index)


def _parse(target: TargetLike, axis: int | None = None) -> Target:
    wrong = UsageError(f"target {target!r} is not argmax, an index such as 7 or 7,3,5 or 10:20,5, input, seed or top:K")
    if axis is not None and target != "argmax":
        raise UsageError(f"an axis goes with the target argmax, not with {target!r}")
    if isinstance(target, bool):
        raise wrong
    if isinstance(target, str):
        if target in ("argmax", "input", "seed"):
            return Target(target, axis=axis)  # type: ignore[arg-type]
        if target.startswith("top:"):
            count = target[4:]
            if not count.isascii() or not count.isdigit() or int(count) < 1:
                raise wrong
            return Target("top", k=int(count))
        try:
            return Target("index", tuple(_position(part) for part in target.split(",")))
        except ValueError:
            raise wrong from None
    try:
        given = (target,) if isinstance(target, int | np.integer) else tuple(target)
        indices = tuple(_span(i) if isinstance(i, slice) else operator.index(i) for i in given)
    except TypeError:
        raise wrong from None
    if not indices:
        raise wrong
    return Target("index", indices)


def _position(text: str) -> int | Span:
    """`7`, `10:20`, `10:`, `:20` or `:`. Raises ValueError for anything else."""
    if ":" not in text:
        return int(text)
    start, stop = (int(end) if end.strip() else None for end in text.split(":"))
    return Span(start, stop)


def _span(given: slice) -> Span:
    if given.step not in (None, 1):
        raise TypeError("a step")
    return Span(*(None if end is None else operator.index(end) for end in (given.start, given.stop)))


@dataclass(frozen=True)
class Explained:
    """An explained output.

    Attributes:
        name: the output as the user named it.
        tensor: the float tensor that relevance starts from; another one where a head was stepped over.
        whole: where that is one position of a tensor: the tensor with all positions.
    """

    name: str
    tensor: str
    notes: tuple[str, ...] = ()
    whole: str = ""

    @property
    def returned(self) -> str:
        """The tensor of the model itself that holds what is explained."""
        return self.whole or self.tensor


def resolve_outputs(graph: Graph, names: Sequence[str]) -> tuple[Explained, ...]:
    """The tensors to start from: those named, or the first output that leads to a float tensor.

    Raises:
        UsageError: no such tensor, or one that is not made of floats.
        ConversionError: the model has no float output.
    """
    if names:
        return tuple(_resolve_named(graph, name) for name in dict.fromkeys(names))
    for name in graph.outputs:
        found = _step_over_heads(graph, name)
        if graph.is_float(found.tensor):
            return (found,)
    raise ConversionError(
        "the model has no output made of floats, so there is nothing to explain; name one with --output"
    )


def _resolve_named(graph: Graph, name: str) -> Explained:
    if not graph.exists(name):
        raise UsageError(f"the model has no tensor {name!r}; its outputs are {', '.join(graph.outputs)}")
    found = _step_over_heads(graph, name) if name in graph.outputs else Explained(name, name)
    if not graph.is_float(found.tensor):
        raise UsageError(f"tensor {name!r} is not made of floats and cannot be explained")
    return found


def _step_over_heads(graph: Graph, name: str) -> Explained:
    tensor = start = above = name
    notes: list[str] = []
    while (node := graph.producer.get(tensor)) is not None:
        head = next((n for n in (node, *node.ancestors) if _key(n) in _HEADS), None)
        if head is not None:
            above = start
            tensor = start = head.inputs[0]
            notes.append(f"{head.label} is stepped over: {_HEADS[_key(head)]}")
        elif not node.domain and node.op in _SHAPE_ONLY and (graph.is_float(node.inputs[0])):
            tensor = node.inputs[0]
        elif (real := _before_rounding(graph, node)) is not None:
            tensor = real
        else:
            break
    return Explained(name, _through_shapes(graph, start, above) if notes else start, tuple(notes))


def _before_rounding(graph: Graph, node: Node) -> str | None:
    """What a DequantizeLinear reads back, where a QuantizeLinear in front of it wrote it."""
    maker = graph.producer.get(node.inputs[0]) if node.op == "DequantizeLinear" and not node.domain else None
    return maker.inputs[0] if maker is not None and maker.op == "QuantizeLinear" and not maker.domain else None


def _key(node: Node) -> str:
    return f"{node.domain}.{node.op}" if node.domain else node.op


def _through_shapes(graph: Graph, tensor: str, above: str) -> str:
    """Behind a stepped-over head also the reshape that fed it is undone, where it changed nothing or was undone above.

    The logits have the model's own shape then; lifting an old Softmax puts it between two reshapes.
    """
    node: Node | None = graph.producer.get(tensor)
    if node is not None and node.op in ("Flatten", "Reshape") and not node.domain and graph.is_float(node.inputs[0]):
        before = graph.shape(node.inputs[0])
        if before is not None and before in (graph.shape(tensor), graph.shape(above)):
            return node.inputs[0]
    return tensor


def check_index(target: Target, tensor: str, shape: tuple[Dim, ...] | None) -> None:
    """Refuses an index or K that the output cannot have, where that is known.

    Raises:
        UsageError: naming the sizes that are possible.
    """
    if shape is None:
        if target.mode in ("index", "input", "top") or target.axis is not None or target.rather_than:
            raise UsageError(
                f"the rank of output {tensor!r} is not known; use the target argmax without an axis, or seed"
            )
        return
    if target.axis is not None and not -len(shape) <= target.axis < len(shape):
        raise UsageError(f"axis {target.axis} is out of range for output {tensor!r} of rank {len(shape)}")
    if target.axis is not None and target.axis % len(shape) == 0:
        raise UsageError("axis 0 is the batch: samples are explained one by one; name another axis")
    for place in (target.index, target.rather_than):
        if place:
            _check_place(place, tensor, shape)
    if target.mode in ("input", "top") and len(shape) < 2:
        raise UsageError(f"output {tensor!r} has no axis besides the batch, so there is no class to choose")
    if target.mode == "top":
        sizes = [d for d in shape[1:] if isinstance(d, int)]
        if len(sizes) == len(shape) - 1:
            count = 1
            for size in sizes:
                count *= size
            if target.k > count:
                raise UsageError(f"top:{target.k} is out of range: output {tensor!r} has {count} elements")


def _check_place(place: Sequence[int | Span], tensor: str, shape: tuple[Dim, ...]) -> None:
    if len(place) != len(shape) - 1:
        raise UsageError(
            f"target {','.join(map(str, place))} has {len(place)} indices, but output {tensor!r} of shape "
            f"{shape_text(shape)} takes {len(shape) - 1} (the batch axis is left out)"
        )
    for axis, (index, size) in enumerate(zip(place, shape[1:], strict=True), 1):
        if isinstance(index, Span):
            if isinstance(size, int) and not range(size)[index.start : index.stop]:
                raise UsageError(f"target {index} takes none of the {size} elements of axis {axis} of {tensor!r}")
        elif isinstance(size, int) and not -size <= index < size:
            raise UsageError(
                f"target {index} is out of range: axis {axis} of output {tensor!r} has {size} elements"
                f" (0 to {size - 1})"
            )
