"""The operators that the tool promises to treat are there, and what it says of them is complete."""

from __future__ import annotations

import onnx
import pytest

from onnxlrp.operators import catalogue
from onnxlrp.rules.spec import KINDS

#: The operators of convolutional networks.
PROMISED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization", "GroupNormalization"),
    *("LRN", "LayerNormalization", "Add", "Sub", "Sum", "Mean", "Mul"),
    *("Div", "Concat", "Split", "Slice", "Pad", "Reshape", "Flatten"),
    *("Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Gather", "Identity"),
    *("Dropout", "Cast", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceSum"),
    *("ReduceMean", "ReduceMax", "ReduceL2", "Resize", "DepthToSpace", "SpaceToDepth", "Relu"),
    *("LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid"),
    *("HardSigmoid", "HardSwish", "Tanh", "Softplus", "Mish", "Gelu", "Erf"),
    *("Swish", "ScatterElements", "ScatterND", "GatherElements", "GatherND", "Compress", "Trilu"),
    *("ReverseSequence", "CenterCropPad", "Unique", "TopK", "MaxUnpool", "OneHot", "CumSum", "Range", "Einsum"),
    *("GridSample", "AffineGrid", "RoiAlign", "Col2Im", "DFT", "STFT"),
)


@pytest.mark.parametrize("op", PROMISED)
def test_promised_operators_carry_relevance(op: str) -> None:
    (entry,) = [e for e in catalogue() if e.op == op and not e.domain]
    assert entry.kind in KINDS
    assert entry.treatment
    assert entry.derivative


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml"])
def test_every_operator_of_the_standard_has_a_stated_treatment(domain: str) -> None:
    """Those that were given up are lifted to what took their place."""
    latest = [s for s in onnx.defs.get_all_schemas() if s.domain == domain and not s.deprecated]
    stated = {entry.op for entry in catalogue() if entry.domain == domain}
    assert {s.name for s in latest} - stated == set()


def test_every_entry_names_an_operator_of_the_standard() -> None:
    for entry in catalogue():
        # onnxruntime's own operators are no part of the standard, even one that it keeps in the standard's domain.
        own = entry.domain.startswith("com.microsoft") or entry.op == "SimplifiedLayerNormalization"
        assert own or onnx.defs.has(entry.op, entry.domain), entry.op


def test_relevance_ends_only_where_the_standard_knows_no_derivative() -> None:
    """The standard's own category, where it states one. (It calls Hardmax differentiable, which is a step function.)"""
    differentiable = onnx.defs.OpSchema.DifferentiationCategory.Differentiable
    for entry in catalogue():
        if entry.kind == "stop" and entry.op != "Hardmax":
            schema = onnx.defs.get_schema(entry.op, entry.domain)
            assert not any(i.differentiation_category == differentiable for i in schema.inputs), entry.op
