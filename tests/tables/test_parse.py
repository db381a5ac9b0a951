"""What a rule table may say, and the one line that each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxlrp.errors import UsageError
from onnxlrp.tables import RuleTable, load_table, parse_table, preset_names


def parse(text: str) -> RuleTable:
    return parse_table(text, name="mine", source="mine.toml")


def test_an_entry_with_every_condition() -> None:
    table = parse(
        """
name = "own"
description = "what it is for"
output = "gradient"
merge_batch_normalization = false
[[rule]]
op = ["Conv", "Gemm"]
kind = "linear"
name = ["/features/*", "head"]
region = "attention"
position = "last"
from = 0.25
to = 1
rule = "gamma"
gamma = 0.5
"""
    )
    assert (table.name, table.description, table.source) == ("own", "what it is for", "mine.toml")
    assert (table.output, table.merge_batch_normalization) == ("gradient", False)
    (entry,) = table.entries
    assert (entry.line, entry.rule, entry.ops, entry.kinds) == (6, "gamma", ("Conv", "Gemm"), ("linear",))
    assert (entry.names, entry.regions, entry.position) == (("/features/*", "head"), ("attention",), "last")
    assert (entry.depth_from, entry.depth_to) == (0.25, 1.0)
    assert entry.parameters == {"gamma": 0.5, "epsilon": 1e-6, "stabiliser": "sign", "bias": "absorb"}


def test_what_is_not_stated_has_a_default() -> None:
    table = parse('[[rule]]\nrule = "gradient"\n')
    assert (table.name, table.description, table.output, table.merge_batch_normalization) == (
        "mine",
        "",
        "relevance",
        True,
    )
    (entry,) = table.entries
    assert (entry.ops, entry.kinds, entry.names, entry.regions, entry.position) == ((), (), (), (), None)
    assert (entry.depth_from, entry.depth_to, dict(entry.parameters)) == (0.0, 1.0, {})


@pytest.mark.parametrize(("alias", "rule"), [("z+", "z-plus"), ("lrp-0", "z"), ("zero", "z"), ("w2", "w-square")])
def test_aliases_are_resolved(alias: str, rule: str) -> None:
    assert parse(f'[[rule]]\nrule = "{alias}"').entries[0].rule == rule


@pytest.mark.parametrize(
    ("stated", "alpha", "beta"),
    [
        ("", 2.0, 1.0),
        ("alpha = 1", 1.0, 0.0),
        ("beta = 2.5", 3.5, 2.5),
        ("alpha = 1.1\nbeta = 0.1", 1.1, 0.1),
    ],
)
def test_alpha_and_beta_follow_from_one_another(stated: str, alpha: float, beta: float) -> None:
    parameters = parse(f'[[rule]]\nrule = "alpha-beta"\n{stated}').entries[0].parameters
    assert (parameters["alpha"], parameters["beta"]) == (alpha, beta)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ("-1", "2", (-1.0, 2.0)),
        ("[0, -1.5]", "1", ((0.0, -1.5), 1.0)),
        ('"lower"', "1", ("lower", 1.0)),
        ("0", "0", (0.0, 0.0)),
    ],
)
def test_bounds_are_numbers_lists_or_initializers(low: str, high: str, expected: tuple[object, object]) -> None:
    parameters = parse(f'[[rule]]\nrule = "z-box"\nlow = {low}\nhigh = {high}').entries[0].parameters
    assert (parameters["low"], parameters["high"]) == expected


BOX = '[[rule]]\nrule = "z-box"\n'
MISTAKES = {
    "syntax": ("a = 1\nb = = 2\n", 2, ["not valid TOML"]),
    "unclosed string": ('[[rule]]\nrule = "eps', 2, ["not valid TOML"]),
    "no entry": ('name = "x"\n', 1, ["no [[rule]] entry"]),
    "empty file": ("", 1, ["no [[rule]] entry"]),
    "one table instead of a list": ('\n[rule]\nrule = "z"\n', 2, ["[[rule]]"]),
    "entries in line": ('\nrule = [{rule = "z"}]\n', 2, ["[[rule]]"]),
    "unknown top-level key": ('\n\nnmae = "x"\n[[rule]]\nrule = "z"\n', 3, ["'nmae'", "did you mean 'name'"]),
    "unknown section": (
        '[[rule]]\nrule = "z"\n[[rules]]\nrule = "z"\n',
        3,
        ["'rules'", "did you mean 'rule'"],
    ),
    "name is no string": ('\nname = 3\n[[rule]]\nrule = "z"\n', 2, ["name must be a string, not 3"]),
    "output": (
        'output = "map"\n[[rule]]\nrule = "z"\n',
        1,
        ["output must be one of relevance, gradient", "'map'"],
    ),
    "merge": (
        'merge_batch_normalization = "no"\n[[rule]]\nrule = "z"\n',
        1,
        ["must be true or false, not 'no'"],
    ),
    "entry without a rule": ('\n[[rule]]\nop = "Conv"\n', 2, ["names no rule"]),
    "rule is no string": ("[[rule]]\nrule = 1\n", 2, ["rule must be a string, not 1"]),
    "unknown rule": (
        '[[rule]]\nop = "Conv"\nrule = "gama"\n',
        3,
        ["'gama'", "did you mean 'gamma'", "alpha-beta"],
    ),
    "unknown key": ('[[rule]]\nrule = "gamma"\n# op\nops = "Conv"\n', 4, ["'ops'", "did you mean 'op'"]),
    "parameter of another rule": (
        '[[rule]]\nrule = "flat"\ngamma = 0.1',
        3,
        ["flat has no parameter 'gamma'", "epsilon"],
    ),
    "parameter of a rule without any": (
        '[[rule]]\nrule = "pass"\nepsilon = 0.1',
        3,
        ["'epsilon'", "parameters: none"],
    ),
    "sub-table": ('[[rule]]\nrule = "z"\n\n[rule.conv]\nx = 1\n', 4, ["no parameter 'conv'"]),
    "unknown kind": (
        '[[rule]]\nrule = "z"\nkind = ["sum", "liner"]',
        3,
        ["'liner'", "did you mean 'linear'"],
    ),
    "unfit kind": ('[[rule]]\nkind = ["linear", "max"]\nrule = "z-box"', 2, ["z-box cannot treat", "'max'"]),
    "unknown operator": (
        '[[rule]]\nrule = "z"\nop = [\n"Conv", "convtranspos"]',
        3,
        ["did you mean 'ConvTranspose'"],
    ),
    "unfit operator": ('[[rule]]\nop = "Relu"\nrule = "z-plus"', 2, ["Relu is of kind activation", "z-plus"]),
    "operator of another kind": (
        '[[rule]]\nop = "Relu"\nkind = "max"\nrule = "gradient"',
        2,
        ["Relu", "of kind max"],
    ),
    "op is no string": (
        '[[rule]]\nop = 3\nrule = "z"',
        2,
        ["op must be a string or a list of strings, not 3"],
    ),
    "op is empty": ('[[rule]]\nop = []\nrule = "z"', 2, ["op must be a string"]),
    "name mixed": ('[[rule]]\nname = ["a", 1]\nrule = "z"', 2, ["name must be a string or a list"]),
    "region is a table": (
        '[[rule]]\nrule = "z"\nregion = {a = 1}',
        3,
        ["region must be a string", "a table"],
    ),
    "position": ('[[rule]]\nposition = "second"\nrule = "z"', 2, ["position must be one of first, last"]),
    "depth is no number": (
        '[[rule]]\nfrom = "0.5"\nrule = "z"',
        2,
        ["from must be a finite number, not '0.5'"],
    ),
    "depth below": ('[[rule]]\nfrom = -0.5\nrule = "z"', 2, ["from must be at least 0, not -0.5"]),
    "depth above": ('[[rule]]\nrule = "z"\nto = 2', 3, ["to must be at most 1, not 2"]),
    "depth the wrong way": (
        '[[rule]]\nrule = "z"\nfrom = 0.6\nto = 0.5',
        3,
        ["from = 0.6 is above to = 0.5"],
    ),
    "parameter is no number": (
        '[[rule]]\nrule = "gamma"\ngamma = "big"',
        3,
        ["gamma must be a finite number, not 'big'"],
    ),
    "parameter is a truth": (
        '[[rule]]\nrule = "gamma"\ngamma = true',
        3,
        ["gamma must be a finite number, not true"],
    ),
    "infinite": ('[[rule]]\nrule = "gamma"\ngamma = inf', 3, ["gamma must be a finite number, not inf"]),
    "not a number": (
        '[[rule]]\nrule = "epsilon"\nepsilon = nan',
        3,
        ["epsilon must be a finite number, not nan"],
    ),
    "beyond a float": (
        f'[[rule]]\nrule = "gamma"\ngamma = 1{"0" * 400}',
        3,
        ["gamma must be a finite number"],
    ),
    "negative": ('[[rule]]\nrule = "epsilon"\nepsilon = -1e-6', 3, ["epsilon must be at least 0"]),
    "alpha below one": ('[[rule]]\nrule = "alpha-beta"\nalpha = 0.5', 3, ["alpha must be at least 1"]),
    "alpha and beta": (
        '[[rule]]\nrule = "alpha-beta"\nbeta = 2\nalpha = 2',
        4,
        ["alpha - beta must be 1", "2 - 2 = 0"],
    ),
    "choice": ('[[rule]]\nrule = "epsilon"\nstabiliser = "abs"', 3, ["one of sign, clip, norm", "'abs'"]),
    "choice is no string": (
        '[[rule]]\nrule = "epsilon"\nbias = false',
        3,
        ["bias must be a string, not false"],
    ),
    "required": (BOX + "low = 0", 2, ["z-box needs high"]),
    "both required": (BOX, 2, ["z-box needs low and high"]),
    "low above high": (BOX + "high = 1\nlow = 2", 4, ["low = 2 is above high = 1"]),
    "low above high in a channel": (
        BOX + "low = [0, 3]\nhigh = 2",
        3,
        ["low = 3 is above high = 2 (channel 1)"],
    ),
    "bounds of two lengths": (BOX + "low = [0, 0, 0]\nhigh = [1, 1]", 4, ["low has 3 values and high has 2"]),
    "bound of another type": (
        BOX + "low = true\nhigh = 1",
        3,
        ["low must be a finite number, a list", "true"],
    ),
    "bound list with text": (BOX + 'low = [0, "a"]\nhigh = 1', 3, ["low must be a finite number, a list"]),
    "bound list is empty": (BOX + "low = []\nhigh = 1", 3, ["low must be a finite number, a list"]),
    "infinite bound": (BOX + "low = -inf\nhigh = 1", 3, ["low must be a finite number"]),
    "second entry": ('[[rule]]\nrule = "z"\n\n[[rule]]\n# x = 1\nrule = "flat"\nx = 2', 7, ["'x'"]),
}


@pytest.mark.parametrize(("text", "line", "parts"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(text: str, line: int, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f"mine.toml line {line}: "), message
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_file_is_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "own table.toml"
    path.write_text('[[rule]]\nrule = "flat"\n', encoding="utf-8")
    for ref in (str(path), path):
        table = load_table(ref)
        assert (table.name, table.source, table.text) == (
            "own table",
            str(path),
            path.read_text(encoding="utf-8"),
        )
    path.write_text('[[rule]]\nrule = "flit"\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"own table\.toml line 2: unknown rule 'flit'"):
        load_table(path)


def test_a_file_needs_no_toml_ending(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text('[[rule]]\nrule = "flat"\n', encoding="utf-8")
    assert load_table(str(path)).entries[0].rule == "flat"


def test_a_preset_goes_before_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epsilon").write_text('[[rule]]\nrule = "flat"\n', encoding="utf-8")
    assert load_table("epsilon").source == "preset"
    assert load_table("./epsilon").entries[0].rule == "flat"
    assert load_table(Path("epsilon")).entries[0].rule == "flat"


def test_a_table_is_returned_as_it_is() -> None:
    table = load_table("epsilon")
    assert load_table(table) is table


@pytest.mark.parametrize("name", ["missing.toml", "folder.toml", "latin.toml"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"\n')
    with pytest.raises(UsageError, match=rf"{name} cannot be read: \w+"):
        load_table(str(tmp_path / name))


def test_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(UsageError) as caught:
        load_table("epsilon_plus")
    assert "'epsilon_plus'; did you mean 'epsilon-plus'" in str(caught.value)
    for name in preset_names():
        assert name in str(caught.value)
