"""RotaryEmbedding, taken apart: pairs of values turned by an angle for each position."""

from __future__ import annotations

from onnxlrp.emit.builder import Builder
from onnxlrp.operators.behaviour import Refusal
from onnxlrp.operators.lowering import lowers
from onnxlrp.operators.registry import Situation


@lowers(
    "RotaryEmbedding", treatment="taken apart: products with cosine and sine, which scale; sums share in proportion"
)
def rotary_embedding(at: Situation, b: Builder) -> tuple[str] | Refusal:
    """The function body of the standard, on [batch, sequence, heads, width]."""
    node = at.node
    x, cos, sin = node.inputs[:3]
    rank = at.graph.rank(x)
    if rank not in (3, 4):
        return Refusal("the rank of its input is not known", "run shape inference on the model first")
    heads, interleaved = node.attribute("num_heads", 0), bool(node.attribute("interleaved", 0))
    if rank == 3 and not heads:
        return Refusal("it does not say how many heads there are", "set its attribute num_heads")
    whole = b.op("Reshape", x, b.integers([0, 0, heads, -1])) if rank == 3 else b.op("Transpose", x, perm=[0, 2, 1, 3])
    if node.input(3):
        cos, sin = (b.op("Gather", table, node.input(3), axis=0) for table in (cos, sin))
    cos, sin = (b.op("Unsqueeze", table, b.integers([2])) for table in (cos, sin))
    last, turned = b.integers([-1]), node.attribute("rotary_embedding_dim", 0)
    part, rest = whole, ""
    if turned:
        part = b.op("Slice", whole, b.integers([0]), b.integers([turned]), last)
        rest = b.op("Slice", whole, b.integers([turned]), b.integers([2**62]), last)
    if interleaved:
        pairs = b.op("Reshape", part, b.integers([0, 0, 0, -1, 2]))
        first, second = (b.op("Gather", pairs, b.constant_int(i), axis=4) for i in (0, 1))
    else:
        first, second = b.ops("Split", part, outputs=2, axis=3, num_outputs=2)
    real = b.sub(b.mul(first, cos), b.mul(second, sin))
    imaginary = b.add(b.mul(first, sin), b.mul(second, cos))
    if interleaved:
        both = [b.op("Unsqueeze", half, b.integers([4])) for half in (real, imaginary)]
        out = b.op("Reshape", b.op("Concat", *both, axis=4), b.integers([0, 0, 0, -1]))
    else:
        out = b.op("Concat", real, imaginary, axis=3)
    if rest:
        out = b.op("Concat", out, rest, axis=3)
    return (b.op("Reshape", out, b.integers([0, 0, -1])) if rank == 3 else b.op("Transpose", out, perm=[0, 2, 1, 3]),)
