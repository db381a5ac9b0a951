"""Operators that are read as the function that the standard defines them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import pytest

import onnxlrp
from onnxlrp.errors import ConversionError
from onnxlrp.operators import catalogue
from tests.operators.examples import GRADIENT
from tests.support.case import Case
from tests.support.evaluate import relative_l2, to_float64, reference
from tests.support.explained import explain_seeded
from tests.support.gradients import central_gradient
from tests.support.models import Net


def test_every_operator_that_a_function_defines_is_treated() -> None:
    """Of the standard's own domain; the bodies of the others are the fall-back that must not be forgotten."""
    have = {entry.op for entry in catalogue() if not entry.domain}
    defined = {
        s.name
        for s in onnx.defs.get_all_schemas()
        if not s.domain and (s.has_function or s.has_context_dependent_function)
    }
    assert not defined - have
