"""Random inputs for a model, where the user gives none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from onnxlrp.errors import UsageError
from onnxlrp.graph.view import FLOAT_TYPES, Graph

Array = np.ndarray[Any, Any]

#: Size taken for an axis whose size the model leaves open: enough for five poolings by two.
_OPEN_SIZE = 64


def random_inputs(graph: Graph, samples: int, seed: int = 0) -> dict[str, Array]:
    """Standard normal floats, any whole numbers in 8 bits, zeros and ones for others; open sizes of one name are equal.

    Args:
        samples: size of the first axis where it is open.

    Raises:
        UsageError: an input is not a tensor of known rank.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name in graph.inputs:
        info = graph.info(name)
        if info.shape is None or not info.dtype:
            raise UsageError(f"input {name!r} has no known rank; give data for it")
        shape = [d if isinstance(d, int) else (samples if i == 0 else _OPEN_SIZE) for i, d in enumerate(info.shape)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.dtype)
        if info.dtype in FLOAT_TYPES:
            found[name] = rng.standard_normal(shape).astype(dtype)
        else:
            # Wider integers may be indices into a table of unknown length.
            limits = np.iinfo(dtype) if dtype in (np.uint8, np.int8) else None
            low, high = (0, 2) if limits is None else (limits.min, limits.max + 1)
            found[name] = rng.integers(low, high, shape).astype(dtype)
    return found


def has_open_batch(graph: Graph, inputs: Mapping[str, Array]) -> bool:
    """Whether samples can be run one by one: every input's first axis is open, and they have one length."""
    first = [(graph.shape(name) or (1,))[:1] for name in graph.inputs]
    sizes = {a.shape[0] for a in inputs.values() if a.ndim}
    return all(f and not isinstance(f[0], int) for f in first) and len(sizes) == 1
