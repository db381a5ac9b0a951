"""Fourier transforms: linear in the signal. Windows and filter banks are made without data."""

from __future__ import annotations

import math

from onnx import TensorProto

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Fixed, Linear, Map, Refusal, Stop, Term
from onnxlrp.operators.padding import padded
from onnxlrp.operators.registry import Situation, register

_INT64 = int(TensorProto.INT64)
#: From this opset on the axis of DFT is an input.
_AXIS_INPUT = 20


class _Transform:
    """A DFT node: its sizes along the axis, as int64 tensors of length 1, and the transform itself."""

    def __init__(self, at: Situation, b: Builder) -> None:
        node, self.b, self.at = at.node, b, at
        self.inverse, self.onesided = bool(node.attribute("inverse", 0)), bool(node.attribute("onesided", 0))
        self.axis_attribute = None
        if at.graph.opset < _AXIS_INPUT:
            self.axis_attribute = int(node.attribute("axis", 1))
            self.axis = b.integers([self.axis_attribute])
        elif node.input(2):
            self.axis = b.op("Reshape", node.input(2), b.integers([1]))
        else:
            self.axis = b.integers([-2])
        self.count = b.op("Gather", b.shape_of(node.inputs[0]), self.axis)
        self.length = self._length()

    def _length(self) -> str:
        b, given = self.b, self.at.node.input(1)
        if given:
            whole = given if b.dtype(given) == _INT64 else b.op("Cast", given, to=_INT64)
            return b.op("Reshape", whole, b.integers([1]))
        if self.inverse and self.onesided:
            return b.mul(b.sub(self.count, b.integers([1])), b.integers([2]))
        return self.count

    def run(self, s: str, *, inverse: bool, onesided: bool = False) -> str:
        """A transform along the same axis over all of `s`."""
        axis = () if self.axis_attribute is not None else ("", self.b.op("Squeeze", self.axis))
        return self.b.op("DFT", s, *axis, axis=self.axis_attribute, inverse=int(inverse), onesided=int(onesided))

    def fitted(self, s: str, have: str, want: str) -> str:
        """Cut or filled with zeros at the end of the axis, from size `have` to size `want`."""
        if have == want:
            return s
        b, zero = self.b, self.b.integers([0])
        cut = b.op("Slice", s, zero, want, self.axis)
        missing = b.op("Max", b.sub(want, have), zero)
        return padded(
            b, cut, self.at.graph.rank(self.at.node.inputs[0]), b.op("Concat", zero, missing, axis=0), self.axis
        )

    def number(self, tensor: str, like: str) -> str:
        return self.b.op("Cast", tensor, to=self.b.dtype(like))

    def bins(self) -> str:
        """How many values the one-sided spectrum has."""
        b = self.b
        return b.add(b.div(self.length, b.integers([2])), b.integers([1]))


def _of_spectrum(t: _Transform, s: str) -> str:
    """The transpose of the forward transform: the inverse one without its 1/n."""
    if t.onesided:
        s = t.fitted(s, t.bins(), t.length)
    return t.b.mul(t.run(s, inverse=True), t.number(t.length, s))


def _of_signal(t: _Transform, s: str) -> str:
    """The transpose of the inverse transform: the forward one over n.

    Of a one-sided spectrum every value but those of frequency 0 and half the length stands for two.
    """
    b = t.b
    back = b.div(t.run(s, inverse=False, onesided=t.onesided), t.number(t.length, s))
    if not t.onesided:
        return back
    bins = t.bins()
    numbers = b.op("Range", b.constant_int(0), b.op("Squeeze", bins), b.constant_int(1))
    mirrored = b.sub(t.length, numbers)
    single = b.op("Or", b.op("Equal", numbers, b.constant_int(0)), b.op("Equal", mirrored, numbers))
    weights = b.where(single, b.scalar(1.0, s), b.scalar(2.0, s))
    rank = b.op("Size", b.op("Shape", s))
    ones = b.op("Expand", b.constant_int(1), b.op("Reshape", rank, b.integers([1])))
    along = b.op("ScatterElements", ones, t.axis, bins, axis=0)
    return b.mul(back, b.op("Reshape", weights, along))


@register("DFT", "average", "shared in proportion to the terms of each frequency", "the conjugate transform")
def dft(at: Situation) -> Linear | Refusal:
    node, x = at.node, at.node.inputs[0]
    shape = at.graph.shape(x)
    if shape is None or not isinstance(shape[-1], int):
        return Refusal("whether its input is real or complex is not known", "run shape inference on the model first")
    parts = shape[-1]

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("DFT", value, *node.inputs[1:], **node.attributes)
        return b.add(out, bias) if bias else out

    def adjoint(b: Builder, s: str) -> str:
        t = _Transform(at, b)
        if t.inverse:
            back = t.fitted(_of_signal(t, s), t.bins() if t.onesided else t.length, t.count)
        else:
            back = t.fitted(_of_spectrum(t, s), t.length, t.count)
        return back if parts == 2 else b.op("Slice", back, b.integers([0]), b.integers([1]), b.integers([-1]))

    if _has_spare_bins(at):
        return Refusal("its one-sided input has more values than its length needs", "cut its input to length / 2 + 1")
    return Linear("average", (Term(x, Fixed(Map(forward, adjoint), sign=0)),), at.y)


def _has_spare_bins(at: Situation) -> bool:
    """Whether an inverse one-sided transform is given values that runtimes treat differently."""
    node, shape = at.node, at.graph.shape(at.node.inputs[0]) or ()
    length = at.facts.integers(node.input(1))
    if not (node.attribute("inverse", 0) and node.attribute("onesided", 0) and length):
        return False
    axis = (node.attribute("axis", 1),) if at.graph.opset < _AXIS_INPUT else at.facts.integers(node.input(2))
    count = shape[(axis or (-2,))[0]]
    return isinstance(count, int) and count > length[0] // 2 + 1


@register(
    "STFT",
    "average",
    "shared in proportion to the terms of each frequency of each frame; a window that is data receives nothing",
    "the conjugate transform, frames added where they overlap; for the window the frames",
    data=(0, 2),
)
def stft(at: Situation) -> Linear | Refusal:
    node, x, y = at.node, at.node.inputs[0], at.y
    shape = at.graph.shape(x)
    if shape is None or not isinstance(shape[-1], int):
        return Refusal("whether its signal is real or complex is not known", "run shape inference on the model first")
    parts, window = shape[-1], node.input(2)

    def forward(b: Builder, value: str, bias: str | None) -> str:
        out = b.op("STFT", value, *node.inputs[1:], **node.attributes)
        return b.add(out, bias) if bias else out

    def to_signal(b: Builder, s: str) -> str:
        frames = [b.mul(frame, window) if window else frame for frame in _frames(at, b, s, parts)]
        whole = [b.op("Unsqueeze", _overlapped(at, b, frame), b.integers([2])) for frame in frames]
        return b.op("Concat", *whole, axis=2) if parts == 2 else whole[0]

    def to_window(b: Builder, s: str) -> str:
        felt = [b.mul(f, _cut(at, b, i)) for i, f in enumerate(_frames(at, b, s, parts))]
        return b.op("ReduceSum", b.sum(felt), b.integers([0, 1]), keepdims=0)

    if not at.is_active(0):

        def under(b: Builder, value: str, bias: str | None) -> str:
            rest = (node.inputs[1], value, *node.inputs[3:])
            out = b.op("STFT", x, *rest, **node.attributes)
            return b.add(out, bias) if bias else out

        return Linear("average", (Term(window, Fixed(Map(under, to_window), sign=0)),), y)
    steered = at.is_active(2)
    return Linear(
        "average",
        (Term(x, Fixed(Map(forward, to_signal), sign=0)),),
        y,
        vjp=(lambda b, s: {x: to_signal(b, s), window: to_window(b, s)}) if steered else None,
        steering=(window,) if steered else (),
    )


def _counted(b: Builder, count: str) -> str:
    return b.op("Range", b.constant_int(0), b.op("Squeeze", count), b.constant_int(1))


def _frame_length(at: Situation, b: Builder) -> str:
    """As an int64 tensor of length 1."""
    node = at.node
    if node.input(3):
        given = node.input(3)
        whole = given if b.dtype(given) == _INT64 else b.op("Cast", given, to=_INT64)
        return b.op("Reshape", whole, b.integers([1]))
    if node.input(2):
        return b.shape_of(node.input(2))
    return b.op("Gather", b.shape_of(node.inputs[0]), b.integers([1]))


def _frames(at: Situation, b: Builder, s: str, parts: int) -> tuple[str, ...]:
    """What each frame under its window [batch, frames, length] gets of its spectrum: real and, if any, imaginary part.

    With angle = 2 pi k n / length the spectrum is re = sum x cos + y sin, im = sum y cos - x sin of a signal x + iy.
    """
    length = _frame_length(at, b)
    bins = b.op("Gather", b.shape_of(at.y), b.integers([2]))
    rows = b.op("Unsqueeze", _counted(b, bins), b.integers([1]))
    # Whole turns are taken off while the numbers are whole, so that float32 keeps the angle.
    turns = b.op("Mod", b.mul(rows, _counted(b, length)), length)
    per_step = b.div(b.scalar(2 * math.pi, s), b.op("Cast", length, to=b.dtype(s)))
    angle = b.mul(b.op("Cast", turns, to=b.dtype(s)), per_step)
    cos, sin = b.op("Cos", angle), b.op("Sin", angle)
    re, im = (b.op("Gather", s, b.constant_int(i), axis=3) for i in (0, 1))
    frames = [b.sub(b.op("MatMul", re, cos), b.op("MatMul", im, sin))]
    if parts == 2:
        frames.append(b.add(b.op("MatMul", re, sin), b.op("MatMul", im, cos)))
    return tuple(frames)


def _places(at: Situation, b: Builder) -> str:
    """Where each frame reads the signal [frames, length]."""
    given = at.node.inputs[1]
    step = given if b.dtype(given) == _INT64 else b.op("Cast", given, to=_INT64)
    count = b.op("Gather", b.shape_of(at.y), b.integers([1]))
    begins = b.op("Unsqueeze", b.mul(_counted(b, count), step), b.integers([1]))
    return b.add(begins, _counted(b, _frame_length(at, b)))


def _overlapped(at: Situation, b: Builder, frames: str) -> str:
    """Frames [batch, frames, length] added up at their places in the signal [batch, time]."""
    flat = b.op("Reshape", frames, b.integers([0, -1]))
    every = b.op("Expand", b.op("Reshape", _places(at, b), b.integers([1, -1])), b.op("Shape", flat))
    size = b.op("Slice", b.shape_of(at.node.inputs[0]), b.integers([0]), b.integers([2]))
    zeros = b.op("Expand", b.scalar(0.0, frames), size)
    return b.op("ScatterElements", zeros, every, flat, axis=1, reduction="add")


def _cut(at: Situation, b: Builder, part: int) -> str:
    """The real (0) or imaginary (1) part of the signal in frames [batch, frames, length], without a window."""
    signal = b.op("Gather", at.node.inputs[0], b.constant_int(part), axis=2)
    return b.op("Gather", signal, _places(at, b), axis=1)


@register(
    "HannWindow HammingWindow BlackmanWindow MelWeightMatrix",
    "stop",
    "relevance ends: made without data",
    "0",
    data=(),
)
def made_without_data(at: Situation) -> Stop:
    return Stop("made without data")
