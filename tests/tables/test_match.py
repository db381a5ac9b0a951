"""The first entry decides whose conditions all hold and whose rule can treat the step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxlrp.tables import StepFacts, match, parse_table

CONV = StepFacts(("Conv", "BatchNormalization"), "linear", ("/f/0/Conv", "/f/0/BN"), None, False, False, 0.5)
RELU = StepFacts(("Relu",), "activation", ("/f/0/Relu",), None, False, False, 0.5)


def decided(conditions: str, facts: StepFacts, rule: str = "gradient") -> bool:
    return match(parse_table(f'[[rule]]\nrule = "{rule}"\n{conditions}', name="t", source="t.toml"), facts) is not None


def test_the_first_match_wins() -> None:
    table = parse_table('[[rule]]\nop = "Conv"\nrule = "flat"\n[[rule]]\nrule = "epsilon"', name="t", source="t.toml")
    first, second = table.entries
    assert match(table, CONV) is first
    assert match(table, replace(CONV, operators=("Gemm",))) is second
    assert match(table, RELU) is None


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('op = "Conv"', True),
        ('op = ["Gemm", "Conv"]', True),
        ('op = "Gemm"', False),
        ('op = "BatchNormalization"', False),  # merged into the convolution, not alone
        ('kind = "linear"', True),
        ('kind = ["sum", "max"]', False),
        ('name = "/f/0/Conv"', True),
        ('name = "*BN"', True),
        ('name = "/f/[1-9]/*"', False),
        ('name = "/F/*"', False),
        ('name = ["/g/*", "/f/*"]', True),
        ('region = "gate"', False),
        ('position = "first"', False),
        ('position = "last"', False),
        ("from = 0.5", True),
        ("to = 0.5", True),
        ("from = 0.51", False),
        ("to = 0.49", False),
        ('op = "Conv"\nname = "/g/*"', False),
    ],
)
def test_each_condition_must_hold(condition: str, holds: bool) -> None:
    assert decided(condition, CONV) is holds


def test_position_and_region_where_they_hold() -> None:
    assert decided('position = "first"', replace(CONV, first=True))
    assert decided('position = "last"', replace(CONV, last=True))
    assert not decided('position = "first"', replace(CONV, last=True))
    assert decided('region = ["gate", "attention"]', replace(CONV, region="attention"))


def test_an_entry_is_passed_over_where_its_rule_cannot_treat_the_kind() -> None:
    assert decided("", CONV, rule="z-plus")
    assert not decided("", RELU, rule="z-plus")
    assert decided("", RELU, rule="pass")
    # a convolution whose weights depend on the data is a product, whatever its operator
    assert not decided('op = "Conv"', replace(CONV, kind="product"), rule="z-plus")
