"""Masks on the relevance of hidden tensors, as graph inputs: relevance is conditioned on a concept at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import helper

from onnxlrp.emit.builder import Builder
from onnxlrp.emit.relevance import Relevance
from onnxlrp.planning.concepts import Mask


@dataclass(frozen=True)
class Masks:
    """The masks of a conversion.

    Attributes:
        factors: by masked tensor, its mask in a shape that broadcasts against it.
        inputs: the graph inputs that they are made of, float [batch, channels] each.
    """

    factors: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[onnx.ValueInfoProto, ...] = ()

    def on(self, b: Builder, tensor: str, r: Relevance, book: Callable[[Callable[[], str]], None]) -> Relevance:
        """R_c = mask_c R_c (Achtibat et al. 2023, eq. 6); what it takes away is booked."""
        factor = self.factors.get(tensor)
        if factor is None:
            return r
        found = replace(r, value=b.mul(r.value, factor), nonnegative=False, normalised=False)
        book(lambda: b.sub(r.as_finite_map(b), found.as_finite_map(b)))
        return found


def mask_inputs(b: Builder, masks: Sequence[Mask]) -> Masks:
    """Declares the inputs [batch, channels] and shapes each like its tensor."""
    factors: dict[str, str] = {}
    inputs: list[onnx.ValueInfoProto] = []
    with b.scope("mask"):
        for mask in masks:
            dtype = b.dtype(mask.tensor)
            b.declare(mask.name, dtype)
            batch = (b.graph.shape(mask.tensor) or (None,))[0]
            dims = ["batch" if batch is None else batch, mask.channels]
            inputs.append(helper.make_tensor_value_info(mask.name, dtype, dims))
            shape = [0 if i == 0 else -1 if i == mask.axis else 1 for i in range(mask.rank)]
            plain = mask.rank == 2
            factors[mask.tensor] = mask.name if plain else b.op("Reshape", mask.name, b.integers(shape))
    return Masks(factors, tuple(inputs))
