"""Operators through which nothing flows back: integer, boolean and shape logic, and steps with zero derivative."""

from __future__ import annotations

from collections.abc import Callable

from onnxlrp.operators.behaviour import Stop
from onnxlrp.operators.registry import Describe, Situation, register

_REASONS = {
    "a shape or size, not a value": "Shape Size SequenceLength",
    "an index of the largest or smallest value": "ArgMax ArgMin",
    "a yes-or-no answer": "Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsInf IsNaN OptionalHasElement",
    "indices of elements": "NonZero NonMaxSuppression",
    "a step function: its derivative is zero almost everywhere": "Sign Ceil Floor Round",
    "bits, not a value": "BitCast",
    "integer logic": "BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor",
    "text, or counted from text": "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer",
    "made from a coded file": "ImageDecoder",
    "made without data": "Constant ConstantOfShape EyeLike RandomNormal RandomNormalLike RandomUniform"
    " RandomUniformLike Bernoulli Multinomial",
}


def _stop(reason: str) -> Describe:
    def describe(at: Situation) -> Stop:
        return Stop(reason)

    return describe


def _register(decorate: Callable[[Describe], Describe], reason: str) -> None:
    decorate(_stop(reason))


for _reason, _ops in _REASONS.items():
    _register(register(_ops, "stop", f"relevance ends: {_reason}", "0", data=()), _reason)
