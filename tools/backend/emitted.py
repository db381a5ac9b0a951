"""A case before and after conversion, as functions from inputs to outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, helper
from reference.evaluate import Array, reference, to_float64

import onnxlrp
from backend.cases import FLOATS, Case
from onnxlrp.tables import RuleTable

#: Operators over which a conversion steps at the end of a model; their own relevance is wanted here.
_HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax"})

#: LRP-0 for everything that is linear.
LRP_0 = """
name = "lrp-0"
[[rule]]
kind = ["linear", "affine", "average", "sum", "normalization"]
rule = "z"
"""


def probed(model: ModelProto) -> ModelProto:
    """A copy whose outputs are copied once more, so that the tensors before that are explained as they are.

    Only where the model may end in a head that the conversion steps over.
    """
    bodies = [model.graph.node, *(f.node for f in model.functions)]
    copy = ModelProto()
    copy.CopyFrom(model)
    if not any(node.op_type in _HEADS for nodes in bodies for node in nodes):
        return copy
    for value in copy.graph.output:
        if value.type.HasField("tensor_type"):
            copy.graph.node.append(helper.make_node("Identity", [value.name], [f"{value.name}_probe"]))
            value.name += "_probe"
    return copy


def onnxruntime_session(model: ModelProto, *, optimised: bool) -> Any:
    """A session on the CPU; raises what onnxruntime raises."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@dataclass(frozen=True)
class Conversion:
    """A converted case.

    Attributes:
        model: what was emitted.
        outputs: the explained outputs.
    """

    model: ModelProto
    outputs: tuple[str, ...]

    @cached_property
    def in_float64(self) -> Any:
        return reference(to_float64(self.model))

    @cached_property
    def added(self) -> frozenset[str]:
        return frozenset(v.name for v in self.model.graph.output)

    @property
    def several(self) -> bool:
        return len(self.outputs) > 1

    def seeds(self, seeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values of the seed inputs, from one seed per explained output."""
        return {f"lrp_seed_{y}" if self.several else "lrp_seed": seeds[y] for y in self.outputs}

    def relevance_names(self, x: str) -> tuple[str, ...]:
        """The outputs that hold relevance of an input, none where it is not explained."""
        names = (f"{x}_relevance_{y}" if self.several else f"{x}_relevance" for y in self.outputs)
        return tuple(n for n in names if n in self.added)

    def relevance(self, outputs: Mapping[str, Array], x: str) -> Array:
        """The relevance of an input, summed over the explained outputs."""
        found = [np.asarray(outputs[n]).astype(np.float64) for n in self.relevance_names(x)]
        total: Array = np.sum(found, axis=0)
        return total

    def explained(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(x for x in names if self.relevance_names(x))


def convert(
    case: Case,
    model: ModelProto,
    rules: str | RuleTable,
    outputs: Sequence[str],
    inputs: Sequence[str] = (),
    *,
    ledger: bool = False,
) -> Conversion:
    """Converts a case with a seed for each explained output.

    Raises:
        OnnxLrpError: it is refused.
    """
    found = onnxlrp.convert(model, rules=rules, target="seed", inputs=inputs, outputs=tuple(outputs), ledger=ledger)
    onnx.checker.check_model(found)
    return Conversion(found, tuple(outputs))


def typed(model: ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The feeds in the types that the model's inputs have."""
    found = dict(feeds)
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if value.name in found and kind in FLOATS:
            found[value.name] = np.asarray(found[value.name]).astype(helper.tensor_dtype_to_np_dtype(kind))
    return found
