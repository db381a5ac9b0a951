"""What a rule table says of operators that onnxlrp does not know, and every mistake in saying it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxlrp.errors import UsageError
from onnxlrp.tables import RuleTable, load_table, parse_table
from onnxlrp.tables.model import Declaration

RULES = '[[rule]]\nrule = "epsilon"\n'


def parse(text: str) -> RuleTable:
    return parse_table(RULES + text, name="mine", source="mine.toml", files={})


def test_each_way_to_treat_an_operator() -> None:
    table = parse("""
[[operator]]
op = ["Norm", "Scale"]
domain = "my.domain"
treat = "pass"
input = 1

[[operator]]
op = "Round"
domain = "my.domain"
treat = "stop"
reason = "it rounds"

[[operator]]
op = "Act"
domain = "other"
function = "my.domain::act:fast"
""")
    assert table.operators == (
        Declaration(4, ("Norm", "Scale"), "my.domain", "pass", input=1),
        Declaration(10, ("Round",), "my.domain", "stop", reason="it rounds"),
        Declaration(16, ("Act",), "other", "function", function=("my.domain", "act", "fast")),
    )
    assert len(table.entries) == 1


def test_the_files_that_it_names_are_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "functions.onnx").write_bytes(b"functions")
    path = tmp_path / "mine.toml"
    path.write_text(f'{RULES}[[operator]]\nop = "A"\ndomain = "d"\nfunction = "d::a"\nfile = "functions.onnx"\n')
    table = load_table(path)
    assert dict(table.files) == {"functions.onnx": b"functions"}
    assert table.operators[0].file == "functions.onnx"
    (tmp_path / "functions.onnx").unlink()
    with pytest.raises(UsageError, match=r"mine\.toml line 3: functions\.onnx cannot be read: No such file"):
        load_table(path)


def test_a_rule_may_name_a_declared_operator() -> None:
    text = '[[operator]]\nop = "Act"\ndomain = "d"\nfunction = "d::a"\n[[rule]]\nop = "Act"\nrule = "z"\n'
    assert parse(text).entries[1].ops == ("Act",)
    with pytest.raises(UsageError, match=r"unknown operator 'Akt'; did you mean 'Act'"):
        parse(text.replace('op = "Act"\nrule', 'op = "Akt"\nrule'))


D = '[[operator]]\nop = "A"\ndomain = "d"\n'
MISTAKES = {
    "one table": ('[operator]\nop = "A"', 3, ["under [[operator]]"]),
    "unknown key": (D + 'treat = "pass"\ninputs = 1', 7, ["unknown key 'inputs'", "did you mean 'input'", "Known: op"]),
    "no operator": ('[[operator]]\ndomain = "d"\ntreat = "pass"', 3, ["needs op"]),
    "no domain": ('[[operator]]\nop = "A"\ntreat = "pass"', 3, ["needs domain"]),
    "op is no string": ('[[operator]]\nop = 1\ndomain = "d"\ntreat = "pass"', 4, ["op must be a string"]),
    "domain is no string": ('[[operator]]\nop = "A"\ndomain = 1\ntreat = "pass"', 5, ["domain must be a string"]),
    "standard domain": (
        '[[operator]]\nop = "Relu"\ndomain = "ai.onnx"\ntreat = "pass"',
        5,
        ["operators of ai.onnx are known", "[[rule]]"],
    ),
    "neither": (D, 3, ["either treat = 'pass' or 'stop', or a function"]),
    "both": (D + 'treat = "pass"\nfunction = "d::a"', 3, ["either treat"]),
    "unknown treatment": (D + 'treat = "skip"', 6, ["treat must be one of pass, stop, not 'skip'"]),
    "stop without a reason": (D + 'treat = "stop"', 6, ["needs a reason"]),
    "input of a stop": (D + 'treat = "stop"\nreason = "r"\ninput = 0', 8, ["input does not go with treat = 'stop'"]),
    "file of a pass": (D + 'treat = "pass"\nfile = "f.onnx"', 7, ["file does not go with treat = 'pass'"]),
    "reason of a function": (D + 'function = "d::a"\nreason = "r"', 7, ["reason does not go with a function"]),
    "input is no number": (D + 'treat = "pass"\ninput = "x"', 7, ["input must be the position"]),
    "input is negative": (D + 'treat = "pass"\ninput = -1', 7, ["input must be the position"]),
    "input is a truth": (D + 'treat = "pass"\ninput = true', 7, ["input must be the position"]),
    "function without a domain": (D + 'function = "act"', 6, ["'domain::name', not 'act'"]),
    "function without a name": (D + 'function = "d::"', 6, ["'domain::name'"]),
    "declared twice": (
        D + 'treat = "pass"\n' + '[[operator]]\nop = ["B", "A"]\ndomain = "d"\ntreat = "pass"',
        8,
        ["d.A is declared on line 3 already"],
    ),
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


def test_declarations_alone_are_no_table() -> None:
    with pytest.raises(UsageError, match=r"the table has no \[\[rule\]\] entry"):
        parse_table(f'{D}treat = "pass"', name="mine", source="mine.toml")
