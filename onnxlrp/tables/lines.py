"""The lines on which the keys of a TOML document stand.

`tomllib` tells no line numbers for what it read. This scanner only finds keys and skips values, and it
may assume that the document is valid, since `tomllib` has read it before.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

_STRINGS = ('"""', "'''", '"', "'")


@dataclass(frozen=True)
class Block:
    """A table header, its line, and the line of each key below it; `path` is empty at the document's top."""

    path: tuple[str, ...]
    line: int
    keys: Mapping[str, int] = field(default_factory=dict)


def blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a valid TOML document in order; a dotted key `a.b` counts as its first part `a`."""
    text = text.replace("\r\n", "\n")
    found: list[tuple[tuple[str, ...], int, dict[str, int]]] = [((), 1, {})]
    position, line = 0, 1
    while position < len(text):
        start = position
        if text[position] in " \t\r\n":
            position += 1
        elif text[position] == "#":
            position = _end_of_line(text, position)
        elif text[position] == "[":
            position = _end_of_statement(text, position)
            found.append((_key_path(text[start:position]), line, {}))
        else:
            equals = _equals_sign(text, position)
            key = _key_path(text[position:equals] + "= 0")[0]
            found[-1][2].setdefault(key, line)
            position = _end_of_statement(text, equals)
        line += text.count("\n", start, position)
    return tuple(Block(path, header, keys) for path, header, keys in found)


def syntax_error_line(error: tomllib.TOMLDecodeError, text: str) -> int:
    """The line that a TOML decoder's error speaks of, the last one if it speaks of the document's end."""
    stated = re.search(r"at line (\d+)", str(error))
    return int(stated.group(1)) if stated else max(1, len(text.splitlines()))


def _key_path(statement: str) -> tuple[str, ...]:
    """The key path of a header (`[a."b c"]`, `[[a]]`) or of a key with a plain value (`a.b = 0`)."""
    path: list[str] = []
    value: object = tomllib.loads(statement)
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, dict):
            key, value = next(iter(value.items()))
            path.append(key)
        else:
            value = value[0]
    return tuple(path)


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _equals_sign(text: str, position: int) -> int:
    while text[position] != "=":
        position = _skip_string(text, position) if text[position] in "\"'" else position + 1
    return position


def _end_of_statement(text: str, position: int) -> int:
    """The end of a header or value: the first line end outside of strings, comments and brackets."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character in "\"'":
            position = _skip_string(text, position)
            continue
        if character == "#":
            position = _end_of_line(text, position)
            continue
        if character == "\n" and depth == 0:
            return position
        depth += (character in "[{") - (character in "]}")
        position += 1
    return position


def _skip_string(text: str, position: int) -> int:
    """The position after the string that begins here."""
    quote = next(quote for quote in _STRINGS if text.startswith(quote, position))
    position += len(quote)
    while not text.startswith(quote, position):
        position += 2 if quote[0] == '"' and text[position] == "\\" else 1
    position += len(quote)
    while len(quote) == 3 and text.startswith(quote[0], position):  # `""""` closes after a quotation mark
        position += 1
    return position
