"""Operators that move values without changing them; each states its exact adjoint.

Where the parameters are only known at run time, or windows overlap in odd ways, the operator itself is run on the
flat indices of its input: that says where each value came from, whatever the parameters are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.graph.view import Dim
from onnxlrp.operators.behaviour import Refusal, Selection, Stop
from onnxlrp.operators.padding import padded
from onnxlrp.operators.registry import Situation, register

EXACT = "exact: relevance follows each value"
Adjoint = Callable[[Builder, str], str]


def one_to_one(at: Situation, adjoint: Adjoint, note: str = "", absorbs: bool = False) -> Selection:
    """A movement with one data input and one output."""
    x, y = at.node.inputs[0], at.y
    return Selection("movement", (x,), (y,), lambda b, given: {x: adjoint(b, given[y])}, note, absorbs)


def by_index(at: Situation) -> Adjoint:
    """The adjoint by running the operator on the indices of its input."""
    node, x = at.node, at.node.inputs[0]

    def adjoint(b: Builder, r: str) -> str:
        zero, one = b.constant_int(0), b.constant_int(1)
        count = b.op("Squeeze", b.element_count(x))
        indices = b.op("Reshape", b.op("Range", zero, count, one), b.shape_of(x))
        moved = b.op(node.op, indices, *node.inputs[1:], **node.attributes)
        return b.scatter_flat(x, moved, r, overlapping=True)

    return adjoint


#: The largest whole number up to which float32 has all of them.
_EXACT_FLOATS = 1 << 24


def by_number(at: Situation) -> Adjoint | Refusal:
    """Like `by_index` for operators that know only floats, and may put zeros where no element came to."""
    node, x = at.node, at.node.inputs[0]
    shape = at.graph.static_shape(x)
    if shape is not None and prod(shape) >= _EXACT_FLOATS:
        return Refusal("its input has more elements than float32 can number", "give it a smaller tensor")

    def adjoint(b: Builder, r: str) -> str:
        one, flat = b.constant_int(1), b.integers([-1])
        slots = b.add(b.element_count(x), b.integers([1]))
        numbers = b.op("Range", one, b.op("Squeeze", slots), one)
        numbered = b.op("Reshape", b.op("Cast", numbers, to=int(TensorProto.FLOAT)), b.shape_of(x))
        moved = b.op(node.op, numbered, *node.inputs[1:], **node.attributes)
        positions = b.op("Cast", moved, to=int(TensorProto.INT64))
        # Number 0 stands where nothing was put: what falls there is collected in a slot of its own, and left out.
        zeros = b.op("Expand", b.scalar(0.0, r), slots)
        positions, values = b.op("Reshape", positions, flat), b.op("Reshape", r, flat)
        spread = b.op("ScatterElements", zeros, positions, values, axis=0, reduction="add")
        return b.reshape_like(b.op("Slice", spread, b.integers([1]), slots), x)

    return adjoint


@register("Identity", "movement", EXACT, "identity")
def identity(at: Situation) -> Selection:
    return one_to_one(at, lambda b, r: r)


@register("Dropout", "movement", EXACT, "identity")
def dropout(at: Situation) -> Selection | Refusal:
    training = at.node.input(2)
    if training:
        value = at.facts.value(training)
        if value is None or bool(value):
            return Refusal("it drops values at random (training mode)", "export the model in evaluation mode")
    return one_to_one(at, lambda b, r: r)


@register("Cast CastLike", "movement", EXACT, "identity")
def cast(at: Situation) -> Selection | Stop:
    x = at.node.inputs[0]
    if not at.graph.is_float(at.y):
        return Stop("turned into a number without a derivative")
    return one_to_one(at, lambda b, r: b.cast(r, b.dtype(x)))


@register("Reshape Flatten Squeeze Unsqueeze", "movement", EXACT, "the inverse reshape")
def reshape(at: Situation) -> Selection:
    x = at.node.inputs[0]
    return one_to_one(at, lambda b, r: b.reshape_like(r, x))


@register("Transpose", "movement", EXACT, "the inverse permutation")
def transpose(at: Situation) -> Selection | Refusal:
    perm = at.node.attribute("perm")
    if perm is None:
        rank = at.graph.rank(at.node.inputs[0])
        if rank is None:
            return Refusal("the rank of its input is not known", "run shape inference on the model first")
        perm = list(range(rank))[::-1]
    if sorted(perm) != list(range(len(perm))):
        return Refusal(f"perm {list(perm)} is no permutation of axes from 0 on", "export the model again")
    inverse = [perm.index(i) for i in range(len(perm))]
    return one_to_one(at, lambda b, r: b.op("Transpose", r, perm=inverse))


@register("Expand", "movement", EXACT, "summed over the copies")
def expand(at: Situation) -> Selection:
    x, y = at.node.inputs[0], at.y
    return one_to_one(at, lambda b, r: b.sum_to(r, y, x))


@register("Tile", "movement", EXACT, "summed over the copies")
def tile(at: Situation) -> Selection | Refusal:
    x, repeats = at.node.inputs
    rank = at.graph.rank(x)
    if rank is None:
        return Refusal("the rank of its input is not known", "run shape inference on the model first")

    def adjoint(b: Builder, r: str) -> str:
        one = b.integers([1])
        pairs = b.op("Concat", b.op("Unsqueeze", repeats, one), b.op("Unsqueeze", b.shape_of(x), one), axis=1)
        apart = b.op("Reshape", r, b.op("Reshape", pairs, b.integers([-1])))
        return b.op("ReduceSum", apart, b.integers(range(0, 2 * rank, 2)), keepdims=0)

    return one_to_one(at, adjoint)


@register("Concat", "movement", EXACT, "cut apart again", data=None)
def concat(at: Situation) -> Selection:
    inputs, y = at.node.inputs, at.y
    rank, axis = at.graph.rank(y) or at.graph.rank(inputs[0]), at.node.attribute("axis")
    if rank is not None:
        axis %= rank

    def along(b: Builder, x: str) -> Dim:
        shape = b.graph.shape(x)
        return None if shape is None or rank is None else shape[axis]

    def size(b: Builder, x: str) -> str:
        known = along(b, x)
        return b.integers([known]) if isinstance(known, int) else b.op("Gather", b.op("Shape", x), b.integers([axis]))

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        numbers = [d for d in (along(b, x) for x in inputs) if isinstance(d, int)]
        cut = (
            b.integers(numbers)
            if len(numbers) == len(inputs)
            else b.op("Concat", *(size(b, x) for x in inputs), axis=0)
        )
        pieces = b.ops("Split", given[y], cut, outputs=len(inputs), axis=axis) if len(inputs) > 1 else (given[y],)
        shares: dict[str, list[str]] = {}
        for x, piece in zip(inputs, pieces, strict=True):
            if x in at.active:
                shares.setdefault(x, []).append(piece)
        return {x: b.sum(parts) for x, parts in shares.items()}

    active = tuple(dict.fromkeys(x for x in inputs if x in at.active))
    return Selection("movement", active, (y,), adjoint, absorbs=any(x not in at.active for x in inputs))


@register("Split", "movement", EXACT, "put together again")
def split(at: Situation) -> Selection:
    x, outputs = at.node.inputs[0], at.node.outputs
    axis = at.node.attribute("axis", 0)

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        pieces = [given[o] if o in given else b.zeros_like(o) for o in outputs]
        return {x: b.op("Concat", *pieces, axis=axis)}

    return Selection("movement", (x,), tuple(o for o in outputs if o), adjoint)


@register(
    "Pad",
    "movement",
    EXACT + "; what falls on a constant border is absorbed",
    "cut off, folded back",
    data=(0, 2),
)
def pad(at: Situation) -> Selection | Stop:
    node, x, y, value = at.node, at.node.inputs[0], at.y, at.node.input(2)
    if node.attribute("mode", "constant") != "constant":
        # The value that fills up is of the data's type, not of the indices', and not used.
        unfilled = replace(at, node=replace(node, inputs=(*node.inputs[:2], "", *node.inputs[3:])))
        return one_to_one(at, by_index(unfilled)) if at.is_active(0) else Stop("a value that this mode does not use")
    inside = _without_border(at)
    if not at.is_active(2):
        return one_to_one(at, inside, absorbs=True)

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        r = given[y]
        border = padded(b, b.zeros_like(x), at.graph.rank(x), node.inputs[1], node.input(3), b.scalar(1.0, r))
        on_border = b.reshape_like(b.op("ReduceSum", b.mul(r, border), keepdims=1), value)
        if not at.is_active(0):
            return {value: on_border}
        return {x: inside(b, r), value: on_border}

    return Selection("movement", tuple(i for i in (x, value) if i in at.active), (y,), adjoint, absorbs=True)


def _without_border(at: Situation) -> Adjoint:
    node, x = at.node, at.node.inputs[0]
    pads = at.facts.integers(node.input(1))
    rank = at.graph.rank(x)
    if pads is None or rank is None or node.input(3) or min(pads) < 0:
        # A negative pad cuts off, so that the adjoint of any constant padding is padding by the opposite.
        return lambda b, r: padded(b, r, rank, b.op("Neg", node.inputs[1]), node.input(3))

    def cut(b: Builder, r: str) -> str:
        axes = [i for i in range(rank) if pads[i] or pads[i + rank]]
        shape = b.graph.shape(x) or ()
        begin = [pads[i] for i in axes]
        sizes = [shape[i] for i in axes]
        if all(isinstance(s, int) for s in sizes):
            ends = b.integers([p + s for p, s in zip(begin, sizes, strict=True) if isinstance(s, int)])
        else:
            size = b.op("Gather", b.op("Shape", x), b.integers(axes))
            ends = b.add(size, b.integers(begin))
        return b.op("Slice", r, b.integers(begin), ends, b.integers(axes)) if axes else r

    return cut


@register("Gather", "movement", EXACT + "; copies of one value add", "scattered back")
def gather(at: Situation) -> Selection | Refusal:
    node, x = at.node, at.node.inputs[0]
    shape, index = at.graph.shape(x), at.facts.value(node.input(1))
    if shape is not None and index is not None and index.size == 1:
        axis = node.attribute("axis", 0) % len(shape)
        size = shape[axis]
        if isinstance(size, int):
            at_position = int(index.reshape(-1)[0]) % size
            front, back = [0] * len(shape), [0] * len(shape)
            front[axis], back[axis] = at_position, size - 1 - at_position

            def place(b: Builder, r: str) -> str:
                if index.ndim == 0:
                    r = b.op("Unsqueeze", r, b.integers([axis]))
                elif index.ndim > 1:
                    r = b.op("Squeeze", r, b.integers(range(axis, axis + index.ndim - 1)))
                return b.op("Pad", r, b.integers([*front, *back]))

            return one_to_one(at, place)
    return one_to_one(at, by_index(at))


@register("GatherElements GatherND", "movement", EXACT + "; copies of one value add", "scattered back")
def gather_elements(at: Situation) -> Selection:
    return one_to_one(at, by_index(at))


@register("DepthToSpace", "movement", EXACT, "SpaceToDepth")
def depth_to_space(at: Situation) -> Selection | Refusal:
    x, block = at.node.inputs[0], at.node.attribute("blocksize")
    if at.node.attribute("mode", "DCR") == "DCR":
        return one_to_one(at, lambda b, r: b.op("SpaceToDepth", r, blocksize=block))
    shape = at.graph.shape(x)
    channels = None if shape is None else shape[1]
    if not isinstance(channels, int):
        return Refusal("its number of channels is not known", "export with static channels")

    def adjoint(b: Builder, r: str) -> str:
        deep = b.op("SpaceToDepth", r, blocksize=block)
        apart = b.op("Reshape", deep, b.integers([0, block * block, channels // (block * block), -1]))
        return b.reshape_like(b.op("Transpose", apart, perm=[0, 2, 1, 3]), x)

    return one_to_one(at, adjoint)


@register("SpaceToDepth", "movement", EXACT, "DepthToSpace")
def space_to_depth(at: Situation) -> Selection:
    block, mode = at.node.attribute("blocksize"), at.node.attribute("mode", "DCR")
    return one_to_one(at, lambda b, r: b.op("DepthToSpace", r, blocksize=block, mode=mode))


@register(
    "Where",
    "movement",
    "exact: to the operand that the condition chose",
    "1 for the chosen operand",
    data=(1, 2),
)
def where(at: Situation) -> Selection:
    condition, first, second = at.node.inputs
    y = at.y

    def adjoint(b: Builder, given: Mapping[str, str]) -> Mapping[str, str]:
        r = given[y]
        zero = b.scalar(0.0, r)
        shares: dict[str, list[str]] = {}
        if first in at.active:
            shares.setdefault(first, []).append(b.sum_to(b.where(condition, r, zero), y, first))
        if second in at.active:
            shares.setdefault(second, []).append(b.sum_to(b.where(condition, zero, r), y, second))
        return {x: b.sum(parts) for x, parts in shares.items()}

    active = tuple(dict.fromkeys(x for x in (first, second) if x in at.active))
    return Selection("movement", active, (y,), adjoint, absorbs=len({first, second} & at.active) < len({first, second}))
