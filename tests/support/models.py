"""Small ONNX models written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

#: A declared dimension: a number, a name, or None for unknown.
Dim = int | str | None


class Net:
    """A model under construction. Every method returns the name of the tensor it made.

    Floating point constants are stored in `dtype`: the same description gives a float32 and a float64 model.
    """

    def __init__(self, dtype: type = np.float64, opset: int = 21) -> None:
        self.dtype = dtype
        self.opset = opset
        self._inputs: list[onnx.ValueInfoProto] = []
        self._initializers: list[TensorProto] = []
        self._nodes: list[NodeProto] = []

    @property
    def nodes(self) -> tuple[NodeProto, ...]:
        """What was added so far."""
        return tuple(self._nodes)

    def input(self, name: str, shape: Sequence[Dim], dtype: type | None = None) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, value: Any, name: str | None = None) -> str:
        """An initializer; floats take the net's dtype, integers become int64."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        elif array.dtype.kind == "i":
            array = array.astype(np.int64)
        name = name or f"c{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def raw(self, value: np.ndarray) -> str:
        """An initializer in the array's own type."""
        name = f"c{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; with several outputs the name of the first one (the others end in _1, _2, ...)."""
        stem = f"{op_type.lower()}{len(self._nodes)}"
        names = [stem, *(f"{stem}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, name=f"node_{stem}", **attributes))
        return stem

    def model(self, *outputs: str, ranks: Sequence[int] | None = None) -> ModelProto:
        """The finished model; each output is declared with the inferred shape."""
        graph = helper.make_graph(self._nodes, "net", self._inputs, [], self._initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10, producer_name="tests"
        )
        known = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
        for i, name in enumerate(outputs):
            if name in known and known[name].type.tensor_type.HasField("shape"):
                model.graph.output.append(known[name])
            elif ranks is not None:
                kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
                model.graph.output.append(helper.make_tensor_value_info(name, kind, [None] * ranks[i]))
            else:
                raise ValueError(f"the rank of output '{name}' is not inferred: name it")
        return model
