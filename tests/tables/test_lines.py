"""The scanner finds the line of every key, whatever stands in strings, arrays and comments."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlrp.tables.lines import blocks, syntax_error_line

TRICKY = '''\
# [[rule]] in a comment
name = "a # b = [[c]]"  # x = 1
'quoted = key' = 'back\\'
description = """
[[rule]]
fake = 1 \\""" still \\
"""""
literal = \'\'\'
other = 2'\'\'\'

[[rule]]  # low = 3
op = [
    "Conv",  # ] not the end
    # trap = 1
    "Gemm",
]
low.x = 1
low.y = 2
[ rule . "sub = #" ]
inner = {a = "}", b = [1]}
last = 7'''


def test_keys_are_found_between_strings_arrays_and_comments() -> None:
    tomllib.loads(TRICKY)  # the example is valid
    top, rule, sub = blocks(TRICKY)
    assert (top.path, dict(top.keys)) == ((), {"name": 2, "quoted = key": 3, "description": 4, "literal": 8})
    assert (rule.path, rule.line, dict(rule.keys)) == (("rule",), 11, {"op": 12, "low": 17})
    assert (sub.path, sub.line, dict(sub.keys)) == (("rule", "sub = #"), 19, {"inner": 20, "last": 21})


def test_windows_line_ends_count_once() -> None:
    assert blocks("a = 1\r\n\r\nb = 2\r\n")[0].keys == {"a": 1, "b": 3}


@pytest.mark.parametrize(("text", "line"), [("a = 1\nb = \n", 2), ("a = 1\n\nb = [", 3), ("\n\n= 1", 3)])
def test_a_syntax_error_is_placed(text: str, line: int) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert syntax_error_line(caught.value, text) == line


VALUES = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        '"#"',
        "'[['",
        '"a\\"b"',
        '"""x\n=[["""',
        "'''\n#'''",
        "[1,\n# ]\n2]",
        "{q = ']', r = [3]}",
    ]
)
ENDS = st.sampled_from(["\n", " # = [[x]]\n", "\n\n", "\r\n"])


@given(st.lists(st.tuples(st.booleans(), VALUES, ENDS), max_size=12))
def test_any_document_of_such_values_is_placed_right(statements: list[tuple[bool, str, str]]) -> None:
    """Keys are named after the line they are written on, so the expected answer needs no second scanner."""
    text, expected = "", 0
    for header, value, end in statements:
        line = text.count("\n") + 1
        text += f"[[rule]]{end}" if header else f"k{line} = {value}{end}"
        expected += not header
    tomllib.loads(text)
    found = [(key, line) for block in blocks(text) for key, line in block.keys.items()]
    assert len(found) == expected
    assert all(key == f"k{line}" for key, line in found)
    assert all(text.splitlines()[block.line - 1].startswith("[[rule]]") for block in blocks(text)[1:])
