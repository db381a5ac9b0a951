"""The graph builder: the only way in which new nodes come into being.

It names nodes after the step that needs them, merges equal nodes as they are made, folds what is known from
static shapes, and knows each new tensor's element type, so that constants are made in the right one.

Relevance is never computed in float16 or bfloat16: its sums and quotients leave the range of the one and the
precision of the other. A tensor of such a type is read through one Cast to float32, which no rule needs to know of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxlrp.emit.packed import unpacked
from onnxlrp.graph.view import Dim, Graph, Node, Shape, attribute_value, captured_names

Array = np.ndarray[Any, Any]

PREFIX = "lrp"

#: Slope of the ramp that stands for a step; a power of two, so that products with it are exact.
_STEEP = 2.0**100

#: Element types in which relevance is not computed.
NARROW_TYPES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
#: The largest number of each type.
_LARGEST = {
    int(TensorProto.FLOAT16): 65504.0,
    int(TensorProto.BFLOAT16): 255.0 * 2.0**120,
    int(TensorProto.FLOAT): float(np.finfo(np.float32).max),
    int(TensorProto.DOUBLE): float(np.finfo(np.float64).max),
}
#: Where quotients of relevance end, by type: what is larger comes of a divisor that is zero but for rounding.
_BOUND = {
    int(TensorProto.FLOAT16): 2.0**14,
    int(TensorProto.BFLOAT16): 2.0**100,
    int(TensorProto.FLOAT): 2.0**100,
    int(TensorProto.DOUBLE): 2.0**900,
}
#: What reads a narrow tensor as it is: the first two look at no value, the third is the one that widens it.
_TAKES_NARROW = frozenset({"Shape", "Size", "Cast"})

_INT64_RESULT = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero"})
_BOOL_RESULT = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor"})


@dataclass(frozen=True)
class Emitted:
    """A new node. `scope` is the forward node it belongs to; another domain than that of the standard is for parts of
    one of the model's own nodes of that domain.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    scope: str
    domain: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Its inputs, and what its subgraphs take from the graph around it."""
        bodies = [v for v in self.attributes.values() if isinstance(v, onnx.GraphProto)]
        if not bodies:
            return self.inputs
        return (*self.inputs, *sorted(set().union(*map(captured_names, bodies))))


class Builder:
    """Appends nodes of the default domain to a list; tensors are names.

    Args:
        graph: the forward graph, for shapes and element types of its tensors.

    Attributes:
        widens: whether narrow tensors are read as float32; off inside `in_model_type`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Emitted] = []
        self.constants: dict[str, Array] = {}
        self.hoisted: dict[str, onnx.TensorProto] = {}
        self.shapes: dict[str, Shape] = {}
        self.widens = True
        self._scope = "target"
        self._known: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._constant_names: dict[tuple[Any, ...], str] = {}
        self._dtypes: dict[str, int] = {}
        self._names: dict[str, int] = {}

    # -- names and types ---------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes made inside belong to the forward node `name`."""
        outer, self._scope = self._scope, name
        try:
            yield
        finally:
            self._scope = outer

    @property
    def scope_name(self) -> str:
        """The forward node that new nodes belong to."""
        return self._scope

    def inside(self, graph: Graph, scope: str) -> Builder:
        """A builder for a subgraph: its nodes are a list of their own, constants and names are shared."""
        inner = Builder(graph)
        inner.constants, inner._constant_names = self.constants, self._constant_names
        inner.hoisted, inner.widens = self.hoisted, self.widens
        inner._dtypes, inner._names = self._dtypes, self._names
        inner._scope = scope
        return inner

    @contextmanager
    def afresh(self) -> Iterator[None]:
        """Nodes made inside are not merged with those made before or after."""
        outer, self._known = self._known, {}
        try:
            yield
        finally:
            self._known = outer

    @contextmanager
    def in_model_type(self) -> Iterator[None]:
        """Nodes made inside compute in the types of what they read, as the model itself does."""
        outer, self.widens = self.widens, False
        try:
            yield
        finally:
            self.widens = outer

    def unique(self, stem: str) -> str:
        """A name in the present scope that was not given before."""
        scope = self._scope
        if scope.startswith(f"{PREFIX}/"):
            # The way back through a node that is an addition itself.
            scope = f"back/{scope.removeprefix(f'{PREFIX}/')}"
        name = f"{PREFIX}/{scope}/{stem}"
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}_{count}" if count else name

    def dtype(self, tensor: str) -> int:
        """Element type in which a forward or emitted tensor is read."""
        own = self.own_dtype(tensor)
        return int(TensorProto.FLOAT) if self.widens and own in NARROW_TYPES else own

    def own_dtype(self, tensor: str) -> int:
        """Element type that a forward or emitted tensor has."""
        return self._dtypes.get(tensor) or self.graph.dtype(tensor) or int(TensorProto.FLOAT)

    def annotate(self, tensor: str, like: str) -> None:
        """States that an emitted tensor has the shape of a forward tensor, where that has named dimensions.

        Without the name onnxruntime does not see that two tensors have one shape, and converts layouts in between.
        """
        shape = self.graph.shape(like)
        if shape is not None and any(isinstance(d, str) for d in shape) and all(d is not None for d in shape):
            self.shapes.setdefault(tensor, shape)

    def declare(self, tensor: str, dtype: int) -> None:
        """Makes the element type of a tensor from outside (a new graph input, say) known."""
        self._dtypes[tensor] = dtype

    def numpy_type(self, tensor: str) -> np.dtype[Any]:
        """Element type of a tensor as numpy names it."""
        return helper.tensor_dtype_to_np_dtype(self.dtype(tensor))

    # -- constants ---------------------------------------------------------------------------------------------

    def constant(self, value: Array, stem: str = "const") -> str:
        """An initializer; equal values share one."""
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        name = self._constant_names.get(key)
        if name is None:
            name = f"{PREFIX}/{stem}_{len(self.constants)}"
            self._constant_names[key] = name
            self.constants[name] = value
            self._dtypes[name] = helper.np_dtype_to_tensor_dtype(value.dtype)
        return name

    def constant_int(self, value: int) -> str:
        """A 0-d int64 constant."""
        return self.constant(np.asarray(value, np.int64))

    def scalar(self, value: float, like: str) -> str:
        """A 0-d constant of `like`'s element type."""
        return self.full((), value, like)

    def lowest(self, like: str) -> str:
        """A 0-d constant for what is masked: half of the smallest number of `like`'s type, so that sums stay finite."""
        return self.scalar(-_LARGEST[self.dtype(like)] / 2, like)

    def full(self, shape: Sequence[int], value: float, like: str) -> str:
        """A constant of `like`'s element type with one value everywhere. For small shapes only."""
        return self.constant(np.full(tuple(shape), value, self.numpy_type(like)))

    def integers(self, values: Sequence[int]) -> str:
        """A 1-d int64 constant."""
        return self.constant(np.asarray(list(values), np.int64), "ints")

    # -- nodes -------------------------------------------------------------------------------------------------

    def op(self, op: str, *inputs: str, dtype: int | None = None, domain: str = "", **attributes: Any) -> str:
        """Appends a node with one output, or finds the equal one that is there already."""
        return self.ops(op, *inputs, outputs=1, dtype=dtype, domain=domain, **attributes)[0]

    def ops(
        self, op: str, *inputs: str, outputs: int, dtype: int | None = None, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Like `op` for a node with several outputs."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        if op not in _TAKES_NARROW:
            inputs = tuple(self.wide(unpacked(self, i)) for i in inputs)
        attributes = {k: v for k, v in attributes.items() if v is not None}
        key = (domain, op, inputs, outputs, repr(sorted(attributes.items())))
        known = self._known.get(key)
        if known is not None:
            return known
        name = self.unique(op)
        names = tuple(name if i == 0 else f"{name}:{i}" for i in range(outputs))
        self.nodes.append(Emitted(op, name, tuple(inputs), names, attributes, self._scope, domain))
        self._known[key] = names
        result = dtype if dtype is not None else self._result_type(op, inputs, attributes)
        for output in names:
            self._dtypes[output] = result
        return names

    def append(self, op: str, inputs: Sequence[str], types: Sequence[int], **attributes: Any) -> tuple[str, ...]:
        """Appends a node with subgraphs; `types` are the element types of its outputs. It is never merged."""
        name = self.unique(op)
        names = tuple(f"{name}:{i}" for i in range(len(types)))
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(Emitted(op, name, tuple(inputs), names, given, self._scope))
        self._dtypes.update(zip(names, types, strict=True))
        return names

    def alias(self, tensor: str, name: str) -> None:
        """Makes `tensor` known by a name that was given out before."""
        self.nodes.append(Emitted("Identity", name, (tensor,), (name,), {}, self._scope))
        self._dtypes[name] = self.own_dtype(tensor)

    def copy(self, node: onnx.NodeProto) -> None:
        """Appends a node as it is, under its own name."""
        attributes = {a.name: attribute_value(a) for a in node.attribute}
        names = tuple(node.input), tuple(node.output)
        self.nodes.append(Emitted(node.op_type, node.name, *names, attributes, self._scope, node.domain))

    def hoist(self, tensors: Sequence[onnx.TensorProto]) -> None:
        """Initializers of subgraphs, to stand beside those of the main graph."""
        self.hoisted.update({t.name: t for t in tensors})

    def wide(self, tensor: str) -> str:
        """The tensor as it is read here: a narrow one in float32."""
        narrow = self.widens and bool(tensor) and self.own_dtype(tensor) in NARROW_TYPES
        return self.op("Cast", tensor, to=int(TensorProto.FLOAT)) if narrow else tensor

    def rerun(self, node: Node) -> str:
        """The output of a node that picks among its inputs, equal to what it picked as this is read.

        A runtime that computes in float32 rounds a narrow output, but not always the inputs, and then it equals none.
        """
        narrow = self.own_dtype(node.outputs[0]) in NARROW_TYPES
        return self.op(node.op, *node.inputs, **node.attributes) if narrow else node.outputs[0]

    def cast(self, tensor: str, dtype: int) -> str:
        """The tensor in another element type; itself where it has that type."""
        return tensor if self.own_dtype(tensor) == dtype else self.op("Cast", tensor, to=dtype)

    def cast_down(self, tensor: str, dtype: int) -> str:
        """Like `cast`, but what is too large for the other type becomes its largest number and not infinity."""
        most = _LARGEST[dtype]
        if most < _LARGEST[self.dtype(tensor)]:
            tensor = self.op("Clip", tensor, self.scalar(-most, tensor), self.scalar(most, tensor))
        return self.cast(tensor, dtype)

    def _result_type(self, op: str, inputs: Sequence[str], attributes: Mapping[str, Any]) -> int:
        if op in _INT64_RESULT:
            return int(TensorProto.INT64)
        if op in _BOOL_RESULT:
            return int(TensorProto.BOOL)
        if op == "Cast":
            return int(attributes["to"])
        if op == "ConstantOfShape":
            value = attributes.get("value")
            return int(value.data_type) if isinstance(value, onnx.TensorProto) else int(TensorProto.FLOAT)
        if op in ("Where", "CastLike"):
            return self.dtype(inputs[1])
        if op == "OneHot":
            return self.dtype(inputs[2])
        return self.dtype(inputs[0])

    # -- shapes ------------------------------------------------------------------------------------------------

    def shape_of(self, tensor: str) -> str:
        """The shape of a forward tensor as an int64 tensor: a constant where it is static."""
        static = self.graph.static_shape(tensor)
        return self.integers(static) if static is not None else self.op("Shape", tensor)

    def reshape_like(self, tensor: str, like: str) -> str:
        """Reshapes to the shape of a forward tensor; one unknown dimension still needs no Shape node."""
        shape = self.graph.shape(like)
        if shape is not None and sum(not isinstance(d, int) for d in shape) <= 1 and 0 not in shape:
            return self.op("Reshape", tensor, self.integers([d if isinstance(d, int) else -1 for d in shape]))
        if shape is not None and 0 in shape:
            # Without `allowzero` a size of zero would mean "as it was".
            return self.op("Reshape", tensor, self.shape_of(like), allowzero=1)
        return self.op("Reshape", tensor, self.shape_of(like))

    def zeros_like(self, tensor: str) -> str:
        """Zeros in the shape and type of a forward tensor."""
        zero = np.zeros((1,), self.numpy_type(tensor))
        return self.op("ConstantOfShape", self.shape_of(tensor), value=onnx.numpy_helper.from_array(zero))

    def sum_to(self, tensor: str, shape_from: str, like: str) -> str:
        """Sums a tensor of `shape_from`'s shape down to the shape of `like`, which was broadcast to it."""
        small, large = self.graph.shape(like), self.graph.shape(shape_from)
        if small is not None and small == large and all(d is not None for d in small):
            return tensor
        if small is None or large is None or not _broadcast_is_known(small, large):
            return self.sum_to_at_run_time(tensor, like, None if large is None else len(large))
        offset = len(large) - len(small)
        axes = [*range(offset)]
        axes += [i + offset for i, d in enumerate(small) if d == 1 and large[i + offset] != 1]
        if not axes:
            return tensor
        summed = self.op("ReduceSum", tensor, self.integers(axes), keepdims=1)
        return self.reshape_like(summed, like) if offset else summed

    def sum_to_at_run_time(self, tensor: str, like: str, rank: int | None) -> str:
        """Like `sum_to` where sizes are known only at run time; `rank` is that of `tensor`."""
        target = self.op("Shape", like)
        full = self.op("Shape", tensor)
        if rank is None or self.graph.rank(like) != rank:
            missing = self.op("Sub", self.op("Shape", full), self.op("Shape", target))
            one = onnx.numpy_helper.from_array(np.ones((1,), np.int64))
            padded = self.op(
                "Concat",
                self.op("ConstantOfShape", missing, value=one, dtype=int(TensorProto.INT64)),
                target,
                axis=0,
            )
        else:
            padded = target
        differs = self.op("Not", self.op("Equal", padded, full))
        axes = self.op("Squeeze", self.op("NonZero", differs), self.integers([0]))
        summed = self.op("ReduceSum", tensor, axes, keepdims=1, noop_with_empty_axes=1)
        return self.op("Reshape", summed, target)

    def expand_like(self, tensor: str, like: str) -> str:
        """Broadcasts to the shape of a forward tensor."""
        return self.op("Expand", tensor, self.shape_of(like))

    def fraction(self, tensor: str, axes: Sequence[int] | None) -> str:
        """1/n as a scalar, n being the elements of a forward tensor along `axes` (all when None)."""
        shape = self.graph.shape(tensor)
        sizes = None if shape is None else [shape[a] for a in (range(len(shape)) if axes is None else axes)]
        if sizes is not None and all(isinstance(d, int) for d in sizes):
            return self.scalar(1.0 / max(int(np.prod([d for d in sizes if isinstance(d, int)])), 1), tensor)
        whole = self.op("Shape", tensor)
        chosen = whole if axes is None else self.op("Gather", whole, self.integers(axes))
        count = self.op("ReduceProd", chosen, keepdims=0)
        return self.op("Reciprocal", self.op("Cast", count, to=self.dtype(tensor)))

    def element_count(self, tensor: str) -> str:
        """Number of elements of a forward tensor, as a 1-d int64 tensor of length 1."""
        static = self.graph.static_shape(tensor)
        if static is not None:
            return self.integers([int(np.prod(static))])
        return self.op("ReduceProd", self.op("Shape", tensor), keepdims=1)

    def scatter_flat(self, x: str, positions: str, values: str, overlapping: bool) -> str:
        """Zeros in the shape of the forward tensor `x` with `values` added at flat `positions`."""
        zero = onnx.numpy_helper.from_array(np.zeros((1,), self.numpy_type(values)))
        zeros = self.op("ConstantOfShape", self.element_count(x), value=zero)
        flat = self.integers([-1])
        spread = self.op(
            "ScatterElements",
            zeros,
            self.op("Reshape", positions, flat),
            self.op("Reshape", values, flat),
            axis=0,
            reduction="add" if overlapping else None,
        )
        return self.reshape_like(spread, x)

    # -- arithmetic --------------------------------------------------------------------------------------------

    def add(self, a: str, b: str) -> str:
        return self.op("Add", a, b)

    def sub(self, a: str, b: str) -> str:
        return self.op("Sub", a, b)

    def mul(self, a: str, b: str) -> str:
        return self.op("Mul", a, b)

    def div(self, a: str, b: str) -> str:
        return self.op("Div", a, b)

    def bounded(self, a: str) -> str:
        """`a` kept far enough from infinity to be multiplied and summed further."""
        most = _BOUND[self.dtype(a)]
        return self.op("Clip", a, self.scalar(-most, a), self.scalar(most, a))

    def quotient(self, a: str, d: str) -> str:
        """a / d, bounded; zero where d is zero."""
        zero = self.op("Equal", d, self.scalar(0.0, d))
        found = self.bounded(self.div(a, self.where(zero, self.scalar(1.0, d), d)))
        return self.where(zero, self.scalar(0.0, found), found)

    def scale(self, a: str, factor: float) -> str:
        return a if factor == 1 else self.mul(a, self.scalar(factor, a))

    def positive(self, a: str) -> str:
        return self.op("Relu", a)

    def negative(self, a: str) -> str:
        return self.at_most(a, self.scalar(0.0, a))

    def at_least(self, a: str, bound: str) -> str:
        """max(a, bound). For a scalar bound Clip, which the runtime can do in place."""
        return self.op("Clip", a, bound) if bound in self.constants else self.op("Max", a, bound)

    def at_most(self, a: str, bound: str) -> str:
        """min(a, bound), likewise."""
        return self.op("Clip", a, "", bound) if bound in self.constants else self.op("Min", a, bound)

    def square(self, a: str) -> str:
        return self.mul(a, a)

    def where(self, condition: str, a: str, b: str) -> str:
        return self.op("Where", condition, a, b)

    def mask(self, condition: str, a: str) -> str:
        """`a` where the condition holds, zero elsewhere; on CPU faster than Where, for finite `a`."""
        return self.mul(a, self.op("Cast", condition, to=self.dtype(a)))

    def is_positive(self, a: str) -> str:
        return self.op("Greater", a, self.scalar(0.0, a))

    def above(self, a: str, bound: float = 0.0) -> str:
        """1 where a > bound and 0 elsewhere, in `a`'s type.

        In float32 it is a HardSigmoid: onnxruntime's CPU kernels keep the blocked layout of convolutions through it,
        which they do for no comparison and no Where (that one takes thirty times as long). Its slope leaves a value
        between 0 and 1 only to what is nearer to the bound than 2^-100.
        """
        return self._step(a, bound, "Greater", 1.0)

    def below(self, a: str, bound: float = 0.0) -> str:
        """1 where a < bound and 0 elsewhere, likewise."""
        return self._step(a, bound, "Less", -1.0)

    def _step(self, a: str, bound: float, comparison: str, direction: float) -> str:
        if self.dtype(a) == TensorProto.FLOAT and abs(bound) < 2.0**27:
            return self.op("HardSigmoid", a, alpha=direction * _STEEP, beta=0.0 - direction * _STEEP * bound)
        return self.op("Cast", self.op(comparison, a, self.scalar(bound, a)), to=self.dtype(a))

    def sign(self, a: str) -> str:
        """1 where a >= 0 and -1 elsewhere."""
        return self.sub(self.scalar(1.0, a), self.scale(self.below(a), 2.0))

    def sum(self, terms: Sequence[str]) -> str:
        """Sum of tensors of one shape."""
        total = terms[0]
        for term in terms[1:]:
            total = self.add(total, term)
        return total


def _broadcast_is_known(small: Sequence[Dim], large: Sequence[Dim]) -> bool:
    offset = len(large) - len(small)
    return all(isinstance(s, int) or (s is not None and s == d) for s, d in zip(small, large[offset:], strict=True))
