"""The operator names that a rule table may use, and what was probably meant by one that it may not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache

#: Operators of onnxruntime's own domains (com.microsoft, its nchwc) whose names ONNX does not have, as of onnxruntime
#: 1.31; written down here because a conversion needs no onnxruntime.
_CONTRIB = """
AttnLSTM BeamSearch BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BifurcationDetector
BitmaskBiasDropout BitmaskDropout BranchwiseRMSNorm CDist ComplexMul ComplexMulConj
ConvTransposeWithDynamicPads CropAndResize DecoderAttention DecoderMaskedMultiHeadAttention
DecoderMaskedSelfAttention DequantizeBFP DequantizeWithOrder DynamicQuantizeLSTM
DynamicQuantizeMatMul DynamicSparseAttention DynamicTimeWarping EPContext EmbedLayerNormalization
EngramGate ExpandDims FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation GatedAdd
GatedDeltaNet GatedRMSNorm GatedRelativePositionBias GatherBlockQuantized GemmFastGelu GemmFloat8
GemmaRotaryEmbedding GreedySearch GroupNorm GroupQueryAttention HyperConnectionPostMix
HyperConnectionPreMix Inverse Irfft IsAllFinite LinearAttentionGate LongformerAttention
MRotaryEmbedding MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight MatMulBnb4 MatMulFpQ4
MatMulInteger16 MatMulIntegerToFloat MatMulNBits MatMulNBitsMlp MatMulNBitsQkv MaxpoolWithMask MoE
MulInteger MultiHeadAttention MurmurHash3 NGramHashMapping NGramRepeatBlock NhwcConv NhwcFusedConv
NhwcMaxPool PackedAttention PackedMultiHeadAttention PackedSparseAttentionIndexer PagedAttention
QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat
QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax
QLinearWhere QMoE QOrderedAttention QOrderedGelu QOrderedLayerNormalization
QOrderedLongformerAttention QOrderedMatMul QuantizeBFP QuantizeWithOrder QuickGelu ReduceSumInteger
RelativePositionBias RemovePadding ReorderInput ReorderOutput RestorePadding Rfft SampleOp Sampling ScaledSiLU
SimplifiedLayerNormalization SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization
Snpe SparseAttention SparseAttentionIndexer SparsePagedAttention SparseToDenseMatMul Tokenizer
TorchEmbedding TransposeMatMul UnfoldTensor VarlenCausalConvWithState VarlenNGramHashMapping
WhisperBeamSearch WordConvEmbedding
"""

#: The kinds that a step with this main operator can be of. Operators that are missing here are not judged.
_KINDS: Mapping[str, frozenset[str]] = {
    operator: frozenset(kinds.split())
    for kinds, operators in (
        ("linear product", "Conv ConvTranspose Gemm MatMul"),
        ("linear product average", "Einsum"),
        ("average", "AveragePool GlobalAveragePool ReduceMean ReduceSum"),
        (
            "activation",
            "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Softplus Mish Gelu Erf",
        ),
        ("normalization", "InstanceNormalization GroupNormalization LayerNormalization LRN"),
        ("max", "MaxPool GlobalMaxPool ReduceMax ReduceMin"),
        ("movement", "Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Identity Dropout"),
    )
    for operator in operators.split()
}


_REGISTERED: set[str] = set()


def add_operator(op: str) -> None:
    """Makes the name of an operator that a user registered known to rule tables."""
    _REGISTERED.add(op)


def remove_operator(op: str) -> None:
    """Forgets such a name."""
    _REGISTERED.discard(op)


def operators() -> frozenset[str]:
    """Every operator name that a rule table may use: those of the standard and of onnxruntime, and registered ones."""
    return _standard_operators() | _REGISTERED


@cache
def _standard_operators() -> frozenset[str]:
    """Those of the domains ai.onnx, ai.onnx.ml, ai.onnx.preview and com.microsoft, in any version."""
    from onnx import defs

    domains = ("", "ai.onnx.ml", "ai.onnx.preview")
    standard = frozenset(s.name for s in defs.get_all_schemas_with_history() if s.domain in domains)
    return standard | frozenset(_CONTRIB.split())


def possible_kinds(operator: str) -> frozenset[str] | None:
    """The kinds that a step with this main operator can be of, or None where that is not known beforehand."""
    return _KINDS.get(operator)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?` if `known` has something like `name`, else a full stop."""
    by_folded = {candidate.casefold(): candidate for candidate in sorted(known)}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(by_folded[match]) for match in close)}?" if close else "."
