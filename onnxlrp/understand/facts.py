"""Facts about tensors that decide what has to be emitted: constness, values, ranges, stand-ins.

A fact is only stated when it holds for every input of the model; "unknown" is always a right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxlrp.graph.view import Graph, Node
from onnxlrp.read import external
from onnxlrp.understand.codes import bounds, code_of

Array = np.ndarray[Any, Any]

#: Operators whose result differs from run to run, so that they are never constant.
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
#: Operators that hand their elements on as they are.
_MOVEMENT = (
    *("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Slice"),
    *("Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Split"),
    *("Compress", "ReverseSequence", "TopK", "Unique"),
)
#: Constant expressions above this many elements are left to the runtime.
_FOLD_LIMIT = 1 << 16


@dataclass(frozen=True)
class Range:
    """Bounds that every element of a tensor keeps to."""

    low: float = -np.inf
    high: float = np.inf

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


UNBOUNDED = Range()


class Facts:
    """What is known about the tensors of a graph before any input is seen.

    Args:
        graph: the graph.
        data_folders: where external data may lie; without them such weights have no known value.
        captured: what a subgraph takes from the graph around it, with the facts of that graph.
        given: bounds of inputs that are known from elsewhere.
    """

    def __init__(
        self,
        graph: Graph,
        data_folders: tuple[Path, ...] = (),
        captured: Mapping[str, Facts] | None = None,
        given: Mapping[str, Range] | None = None,
    ) -> None:
        self.graph = graph
        self._outer = dict(captured or {})
        self._given = dict(given or {})
        self.data_folders = data_folders
        self._values: dict[str, Array | None] = {}
        self.constants: set[str] = set(graph.initializers) | set(graph.sparse_initializers)
        self.constants.update(name for name, facts in self._outer.items() if facts.is_constant(name))
        for node in graph.nodes:
            if self._is_constant(node):
                self.constants.update(o for o in node.outputs if o)
        self._ranges: dict[str, Range] = dict(self._given)
        for node in graph.nodes:
            self._set_range(node)

    def of(self, graph: Graph) -> Facts:
        """The facts of another form of this graph."""
        return Facts(graph, self.data_folders, self._outer, self._given)

    # -- constants ---------------------------------------------------------------------------------------------

    def _is_constant(self, node: Node) -> bool:
        if node.op in RANDOM or any(isinstance(v, onnx.GraphProto) for v in node.attributes.values()):
            return False
        if node.op in ("Shape", "Size") and self.graph.static_shape(node.inputs[0]) is not None:
            return True
        return all(not i or i in self.constants for i in node.inputs)

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor depends on no input of the graph."""
        return tensor in self.constants

    def value(self, tensor: str) -> Array | None:
        """The value of a constant tensor, or None when it is not constant, too large to fold or not at hand."""
        pending = [tensor]
        while pending:
            latest = pending[-1]
            missing = [i for i in self._folded_from(latest) if i not in self._values]
            if missing:
                pending += missing
            else:
                self._values[pending.pop()] = self._compute(latest)
        return self._values[tensor]

    def scalar(self, tensor: str) -> float | None:
        """The value of a constant with one element."""
        value = self.value(tensor) if tensor else None
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def integers(self, tensor: str) -> tuple[int, ...] | None:
        """The value of a constant integer tensor, flattened."""
        value = self.value(tensor) if tensor else None
        return None if value is None else tuple(int(v) for v in value.reshape(-1))

    def _folded_from(self, tensor: str) -> tuple[str, ...]:
        """The tensors whose values are needed for the value of this one; none where it is known or out of reach."""
        node = self.graph.producer.get(tensor)
        if tensor in self._values or tensor not in self.constants or node is None:
            return ()
        if node.op == "Shape" and self.graph.static_shape(node.inputs[0]) is not None:
            return ()
        inputs = tuple(i for i in node.inputs if i)
        return () if any(self._is_large(i) for i in inputs) else inputs

    def _is_large(self, tensor: str) -> bool:
        shape = self.graph.static_shape(tensor)
        return shape is not None and prod(shape) > _FOLD_LIMIT

    def _compute(self, tensor: str) -> Array | None:
        """The value, where those of `_folded_from` are in `_values`."""
        if tensor in self._values or tensor not in self.constants:
            return self._values.get(tensor)
        if tensor in self._outer:
            return self._outer[tensor].value(tensor)
        initializer = self.graph.initializers.get(tensor)
        if initializer is not None:
            return self._tensor(initializer)
        node = self.graph.producer.get(tensor)
        if node is None:
            return None
        if node.op == "Constant" and isinstance(node.attribute("value"), TensorProto):
            return self._tensor(node.attribute("value"))
        if node.op == "Shape":
            return self._shape_value(node)
        inputs: dict[str, Array] = {}
        for name in node.inputs:
            given = self._values.get(name)
            if name and (given is None or given.size > _FOLD_LIMIT):
                return None
            if given is not None:
                inputs[name] = given
        return self._fold(node, inputs, tensor)

    def _tensor(self, tensor: TensorProto) -> Array | None:
        if external.is_external(tensor) and not self.data_folders:
            return None
        return external.values(tensor, self.data_folders)

    def _shape_value(self, node: Node) -> Array | None:
        shape = self.graph.static_shape(node.inputs[0])
        if shape is None:
            given = self._values.get(node.inputs[0])
            if given is None:
                return None
            shape = given.shape
        start, end = node.attribute("start", 0), node.attribute("end")
        return np.asarray(shape[start:end], np.int64)

    def _fold(self, node: Node, inputs: Mapping[str, Array], tensor: str) -> Array | None:
        if self._is_large(tensor):
            return None
        proto = self.graph.node_protos[node.index]
        signature = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ]
        result = helper.make_tensor_value_info(tensor, TensorProto.UNDEFINED, None)
        model = helper.make_model(
            helper.make_graph([proto], "fold", signature, [result]),
            opset_imports=self.graph.proto.opset_import,
        )
        try:
            evaluated = ReferenceEvaluator(model).run([tensor], dict(inputs))
        except Exception:
            # Folding is a convenience: whatever the reference evaluator cannot do is left to the runtime.
            return None
        return np.asarray(evaluated[0]) if isinstance(evaluated, list) else None

    # -- ranges ------------------------------------------------------------------------------------------------

    def range(self, tensor: str) -> Range:
        """Bounds of a tensor's elements; of a small constant its smallest and largest value."""
        known = self._ranges.get(tensor)
        if known is not None:
            return known
        if tensor in self._outer:
            return self._outer[tensor].range(tensor)
        if tensor not in self.constants:
            return UNBOUNDED
        if self._is_large(tensor):
            return UNBOUNDED
        value = self.value(tensor)
        bounds = UNBOUNDED
        if value is not None and value.size and np.issubdtype(value.dtype, np.number) and not np.iscomplexobj(value):
            numbers = value.astype(np.float64)
            if np.isfinite(numbers).all():
                bounds = Range(float(numbers.min()), float(numbers.max()))
        self._ranges[tensor] = bounds
        return bounds

    def nonnegative(self, tensor: str) -> bool:
        return self.range(tensor).low >= 0

    def _set_range(self, node: Node) -> None:
        bound = _RANGES.get(node.op)
        if bound is None or node.domain:
            return
        outputs = node.outputs if node.op == "Split" else node.outputs[:1]
        for output in outputs:
            # Integers wrap around and truncate, so that bounds are stated for floats only.
            if output and output not in self.constants and self.graph.is_float(output):
                self._ranges[output] = bound(self, node)

    # -- stand-ins ---------------------------------------------------------------------------------------------

    def vanishes_below_zero(self, base: str, tensor: str) -> bool:
        """Whether `base` is zero wherever `tensor` <= 0, and nowhere negative: a Relu of it, or a Clip from 0 on."""
        node = self.graph.producer.get(base)
        if node is None or node.domain or node.inputs[0] != tensor:
            return False
        if node.op == "Clip":
            return bool(node.input(1)) and self.scalar(node.input(1)) == 0.0
        return node.op == "Relu"

    def stands_in(self, base: str, tensor: str) -> bool:
        """Whether `base` equals `tensor` wherever `base` is not zero and is nowhere negative (base = Relu(tensor)).

        A rule that needs `tensor` only where relevance can be may then read `base`, and the runtime may fuse the Relu.
        """
        node = self.graph.producer.get(base)
        return node is not None and not node.domain and node.op == "Relu" and node.inputs[0] == tensor


# -- how each operator bounds its output -----------------------------------------------------------------------

RangeOf = Callable[[Facts, Node], Range]


def _fixed(low: float, high: float) -> RangeOf:
    return lambda facts, node: Range(low, high)


def _same(facts: Facts, node: Node) -> Range:
    return facts.range(node.inputs[0])


def _hull_with_zero(facts: Facts, node: Node) -> Range:
    r = facts.range(node.inputs[0])
    return Range(min(r.low, 0.0), max(r.high, 0.0))


def _hull(facts: Facts, node: Node) -> Range:
    ranges = [facts.range(i) for i in node.inputs if i]
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))


def _chosen(facts: Facts, node: Node) -> Range:
    a, b = (facts.range(i) for i in node.inputs[1:])
    return Range(min(a.low, b.low), max(a.high, b.high))


def _max(facts: Facts, node: Node) -> Range:
    ranges = [facts.range(i) for i in node.inputs]
    return Range(max(r.low for r in ranges), max(r.high for r in ranges))


def _min(facts: Facts, node: Node) -> Range:
    ranges = [facts.range(i) for i in node.inputs]
    return Range(min(r.low for r in ranges), min(r.high for r in ranges))


def _pad(facts: Facts, node: Node) -> Range:
    r = facts.range(node.inputs[0])
    if node.attribute("mode", "constant") != "constant":
        return r
    fill = facts.range(node.input(2)) if node.input(2) else Range(0.0, 0.0)
    return Range(min(r.low, fill.low), max(r.high, fill.high))


def _relu(facts: Facts, node: Node) -> Range:
    return Range(0.0, max(facts.range(node.inputs[0]).high, 0.0))


def _clip(facts: Facts, node: Node) -> Range:
    """min(max(x, low), high) grows with each of the three, and the bounds may be data themselves."""
    inner = facts.range(node.inputs[0])
    low = facts.range(node.input(1)) if node.input(1) else Range(-np.inf, -np.inf)
    high = facts.range(node.input(2)) if node.input(2) else Range(np.inf, np.inf)
    return Range(min(max(inner.low, low.low), high.low), min(max(inner.high, low.high), high.high))


def _corner(values: list[float]) -> Range:
    if any(np.isnan(v) for v in values):
        return UNBOUNDED
    return Range(min(values), max(values))


def _add(facts: Facts, node: Node) -> Range:
    ranges = [facts.range(i) for i in node.inputs]
    return Range(sum(r.low for r in ranges), sum(r.high for r in ranges))


def _sub(facts: Facts, node: Node) -> Range:
    a, b = (facts.range(i) for i in node.inputs)
    return Range(a.low - b.high, a.high - b.low)


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _mul(facts: Facts, node: Node) -> Range:
    if node.inputs[0] == node.inputs[1]:
        return Range(0.0, np.inf)
    a, b = (facts.range(i) for i in node.inputs)
    return _corner([_times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)])


def _div(facts: Facts, node: Node) -> Range:
    a, b = (facts.range(i) for i in node.inputs)
    if b.low > 0 or b.high < 0:
        inverse = sorted((1.0 / b.low, 1.0 / b.high))
        return _corner([_times(x, y) for x in (a.low, a.high) for y in inverse])
    return UNBOUNDED


def _mean(facts: Facts, node: Node) -> Range:
    ranges = [facts.range(i) for i in node.inputs]
    return Range(sum(r.low for r in ranges) / len(ranges), sum(r.high for r in ranges) / len(ranges))


def _dropout(facts: Facts, node: Node) -> Range:
    """In training mode what is left is scaled up."""
    training = facts.value(node.input(2)) if node.input(2) else np.asarray(False)
    return UNBOUNDED if training is None or training.any() else _same(facts, node)


def _elu(facts: Facts, node: Node) -> Range:
    alpha, high = node.attribute("alpha", 1.0), max(facts.range(node.inputs[0]).high, 0.0)
    return Range(min(-alpha, 0.0), max(-alpha, high))


def _sum_of_nonnegative(facts: Facts, node: Node) -> Range:
    return Range(0.0, np.inf) if facts.nonnegative(node.inputs[0]) else UNBOUNDED


def _resize(facts: Facts, node: Node) -> Range:
    # Cubic interpolation overshoots; extrapolation inserts a value of its own.
    plain = node.attribute("mode", "nearest") in ("nearest", "linear")
    cropped = node.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return _same(facts, node) if plain and not cropped else UNBOUNDED


def _decoded(facts: Facts, node: Node) -> Range:
    """Numbers that went through integers: those of before, rounded; none is below the smallest one of the code."""
    maker, code = facts.graph.producer.get(node.inputs[0]), code_of(facts.graph, node.inputs[0])
    limits = bounds(facts.graph, code, maker) if code is not None else None
    if code is None or limits is None:
        return UNBOUNDED
    scale, zero = facts.scalar(code.scale), facts.scalar(code.zero) if code.zero else 0.0
    before = facts.range(maker.inputs[0]) if maker is not None and maker.op == "QuantizeLinear" else UNBOUNDED
    if before.bounded and scale and zero is not None:
        ends = np.clip(np.round(np.array([before.low, before.high]) / scale), limits[0] - zero, limits[1] - zero)
        return Range(*(scale * ends).tolist())
    return Range(0.0, np.inf) if zero == limits[0] or before.low >= 0 else UNBOUNDED


def _sampled(facts: Facts, node: Node) -> Range:
    """Cubic interpolation overshoots; outside of the input there are zeros."""
    return UNBOUNDED if "cubic" in node.attribute("mode", "linear") else _hull_with_zero(facts, node)


_RANGES: Mapping[str, RangeOf] = {
    "DequantizeLinear": _decoded,
    "Relu": _relu,
    "Clip": _clip,
    "Sigmoid": _fixed(0.0, 1.0),
    "HardSigmoid": _fixed(0.0, 1.0),
    "Softmax": _fixed(0.0, 1.0),
    "Tanh": _fixed(-1.0, 1.0),
    "Erf": _fixed(-1.0, 1.0),
    "Softsign": _fixed(-1.0, 1.0),
    "Exp": _fixed(0.0, np.inf),
    "Abs": _fixed(0.0, np.inf),
    "Softplus": _fixed(0.0, np.inf),
    "Sqrt": _fixed(0.0, np.inf),
    "ReduceL1": _fixed(0.0, np.inf),
    "ReduceL2": _fixed(0.0, np.inf),
    "ReduceSumSquare": _fixed(0.0, np.inf),
    "Elu": _elu,
    "Dropout": _dropout,
    "Add": _add,
    "Sum": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Mean": _mean,
    "Neg": lambda f, n: Range(-f.range(n.inputs[0]).high, -f.range(n.inputs[0]).low),
    "Concat": _hull,
    "Where": _chosen,
    "Max": _max,
    "Min": _min,
    "Pad": _pad,
    "MaxPool": _same,
    "GlobalMaxPool": _same,
    "AveragePool": _hull_with_zero,
    "GlobalAveragePool": _same,
    "ReduceMean": _same,
    "ReduceMax": _same,
    "ReduceMin": _same,
    "ReduceSum": _sum_of_nonnegative,
    "LRN": _sum_of_nonnegative,
    "Resize": _resize,
    "CumSum": _sum_of_nonnegative,
    "Col2Im": _sum_of_nonnegative,
    "Trilu": _hull_with_zero,
    "CenterCropPad": _hull_with_zero,
    "MaxUnpool": _hull_with_zero,
    "GridSample": _sampled,
    "RoiAlign": _hull_with_zero,
    **dict.fromkeys(_MOVEMENT, _same),
}
