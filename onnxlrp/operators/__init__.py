"""Operators: one registry entry each, one file per family."""

from onnxlrp.operators import (
    activations,
    averages,
    convolution,
    dense,
    movement,
    normalization,
    pooling,
    products,
    resize,
    slicing,
    softmax,
    stops,
    sums,
)
from onnxlrp.operators.registry import OperatorEntry, entries, find

__all__ = ["OperatorEntry", "catalogue", "find"]

_FAMILIES = (
    activations,
    averages,
    convolution,
    dense,
    movement,
    normalization,
    pooling,
    products,
    resize,
    slicing,
    softmax,
    stops,
    sums,
)


def catalogue() -> tuple[OperatorEntry, ...]:
    """Every operator with how it is treated, by domain and name."""
    return entries()
