"""Operator names that tables may use, and the kinds that their steps can be of."""

from __future__ import annotations

import pytest

from onnxlrp.operators import catalogue
from onnxlrp.tables.names import did_you_mean, operators, possible_kinds


def test_operators_of_all_three_domains_are_known() -> None:
    assert {
        "Conv",
        "Upsample",
        "TreeEnsemble",
        "QLinearConv",
        "FusedMatMul",
        "SkipLayerNormalization",
    } <= operators()
    assert "conv" not in operators()


def test_every_operator_that_is_treated_can_be_named() -> None:
    assert {entry.op for entry in catalogue()} <= operators()


def test_kinds_known_beforehand_agree_with_the_catalogue() -> None:
    standard = [entry for entry in catalogue() if not entry.domain]
    judged = {entry.op: entry.kind for entry in standard if possible_kinds(entry.op) is not None}
    assert {"Conv", "Relu", "MaxPool", "Reshape"} <= judged.keys()
    assert {op: kind for op, kind in judged.items() if kind not in (possible_kinds(op) or ())} == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("RELU", "; did you mean 'Relu'?"), ("Rel", "; did you mean 'Relu'?"), ("xyz", "."), ("", ".")],
)
def test_close_names_are_proposed(name: str, expected: str) -> None:
    assert did_you_mean(name, ["Conv", "Relu"]) == expected
