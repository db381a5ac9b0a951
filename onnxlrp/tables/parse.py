"""Rule tables from TOML: read, checked completely, turned into values.

Whatever a table gets wrong is a UsageError that names the file, the line of the offending key, and what is
allowed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from onnxlrp.errors import UsageError
from onnxlrp.plugins import load_installed
from onnxlrp.rules.spec import ALIASES, KINDS, RULES, RuleSpec
from onnxlrp.tables.declare import declarations, read_files
from onnxlrp.tables.library import preset_names, preset_text
from onnxlrp.tables.lines import Block, blocks, syntax_error_line
from onnxlrp.tables.model import Contrast, Entry, Normalize, Output, Position, RuleTable, Scale, Sinks, Start
from onnxlrp.tables.names import did_you_mean, operators, possible_kinds
from onnxlrp.tables.values import Section, parameters, unknown_parameter

_METHOD = ("output", "start", "contrast", "normalize", "scale", "positions")
_MERGES = ("merge_batch_normalization", "merge_through_relu")
_TOP_KEYS = ("name", "description", "note", *_METHOD, *_MERGES, "rule", "operator")
_CONDITIONS = ("op", "kind", "name", "region", "position", "from", "to")


def load_table(ref: str | os.PathLike[str] | RuleTable) -> RuleTable:
    """The rule table that `ref` names: a preset, the path of a TOML file, or a table that was already read.

    A preset goes before a file of the same name; write `./epsilon` for the file. Raises UsageError, one line
    that starts with `FILE line N:` where the fault has a line.
    """
    load_installed()
    if isinstance(ref, RuleTable):
        return ref
    text = os.fspath(ref)
    if isinstance(ref, str) and text in preset_names():
        return parse_table(preset_text(text), name=text, source="preset")
    if isinstance(ref, str) and not text.endswith(".toml") and not Path(text).is_file():
        preset_text(text)  # raises: neither a preset nor a file
    return parse_table(_read(Path(text)), name=Path(text).stem, source=text)


def parse_table(text: str, *, name: str, source: str, files: Mapping[str, bytes] | None = None) -> RuleTable:
    """The rule table in a TOML text.

    `name` is used where the text states none; `source` is "preset" or the path that errors name. Files that the table
    names are read from the folder of `source` unless their bytes are given.
    """
    shown = f"preset {name}" if source == "preset" else source
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown} line {syntax_error_line(error, text)}: not valid TOML: {error}") from error
    found = blocks(text)
    top = Section(shown, found[0], document)
    _check_keys(top, found)
    declared = declarations(_sections(top, found, "operator"))
    rules = _sections(top, found, "rule")
    if not rules:
        raise _located(top, found).error("the table has no [[rule]] entry")
    names = operators() | {op for declaration in declared for op in declaration.ops}
    return RuleTable(
        name=top.text("name", name),
        description=top.text("description", ""),
        entries=tuple(_entry(section, names) for section in rules),
        source=source,
        output=cast(Output, top.choice("output", ("relevance", "gradient"), "relevance")),
        positions=cast(Sinks, top.choice("positions", ("absorb", "sink"), "absorb")),
        start=cast(Start, top.choice("start", get_args(Start), "output")),
        contrast=cast(Contrast, top.choice("contrast", get_args(Contrast), "none")),
        normalize=cast(Normalize, top.choice("normalize", get_args(Normalize), "none")),
        scale=cast(Scale, top.choice("scale", get_args(Scale), "none")),
        note=top.text("note", ""),
        merge_batch_normalization=top.flag("merge_batch_normalization", True),
        merge_through_relu=top.flag("merge_through_relu", False),
        text=text,
        operators=declared,
        files=read_files(shown, Path(source).parent, declared) if files is None else files,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the rule table {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the rule table {path} cannot be read: it is not UTF-8 text") from error


def _located(top: Section, found: tuple[Block, ...]) -> Section:
    """The document's top with the lines of its headers as well."""
    headers = {block.path[0]: block.line for block in reversed(found) if block.path}
    return Section(top.source, Block((), 1, {**headers, **top.block.keys}), top.values)


def _check_keys(top: Section, found: tuple[Block, ...]) -> None:
    for key in top.values:
        if key not in _TOP_KEYS:
            raise _located(top, found).error(f"unknown key {key!r}{_hint(key, _TOP_KEYS)}", key)


def _sections(top: Section, found: tuple[Block, ...], key: str) -> list[Section]:
    """The [[key]] tables of the document, each with the block that holds its keys' lines."""
    tables = top.values.get(key, [])
    if not isinstance(tables, list) or key in top.block.keys:
        raise _located(top, found).error(f"each entry is written as a table of its own, under [[{key}]]", key)
    merged: list[Block] = []
    for block in found:
        if block.path == (key,):
            merged.append(block)
        elif block.path[:1] == (key,):  # a sub-table [key.name] of the entry above it
            last = merged[-1]
            merged[-1] = Block(last.path, last.line, {**last.keys, block.path[1]: block.line})
    return [Section(top.source, block, values) for block, values in zip(merged, tables, strict=True)]


def _entry(section: Section, known: frozenset[str]) -> Entry:
    spec = _rule(section)
    for key in section.values:
        if key != "rule" and key not in _CONDITIONS and key not in spec.parameters:
            raise unknown_parameter(section, key, spec, _CONDITIONS)
    ops, kinds = section.strings("op"), section.strings("kind")
    _check_kinds(section, kinds, spec)
    _check_operators(section, ops, kinds, spec, known)
    depth_from = section.number("from", 0.0, 0.0, 1.0)
    depth_to = section.number("to", 1.0, 0.0, 1.0)
    if depth_from > depth_to:
        key = "from" if "from" in section.values else "to"
        raise section.error(f"from = {depth_from:g} is above to = {depth_to:g}; no step lies between", key)
    return Entry(
        line=section.block.line,
        rule=spec.name,
        parameters=parameters(section, spec),
        ops=ops,
        kinds=kinds,
        names=section.strings("name"),
        regions=section.strings("region"),
        position=_position(section),
        depth_from=depth_from,
        depth_to=depth_to,
    )


def _rule(section: Section) -> RuleSpec:
    if "rule" not in section.values:
        raise section.error("the entry names no rule: add, for example, rule = 'epsilon'")
    name = section.text("rule", "")
    spec = RULES.get(ALIASES.get(name, name))
    if spec is None:
        raise section.error(f"unknown rule {name!r}{_hint(name, [*RULES, *ALIASES], RULES)}", "rule")
    return spec


def _position(section: Section) -> Position | None:
    if "position" not in section.values:
        return None
    return cast(Position, section.choice("position", get_args(Position), "first"))


def _check_kinds(section: Section, kinds: tuple[str, ...], spec: RuleSpec) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise section.error(f"unknown kind {kind!r}{_hint(kind, KINDS)}", "kind")
        if kind not in spec.kinds:
            raise section.error(
                f"rule {spec.name} cannot treat steps of kind {kind!r}, only {', '.join(spec.kinds)}", "kind"
            )


def _check_operators(
    section: Section, ops: tuple[str, ...], kinds: tuple[str, ...], spec: RuleSpec, known: frozenset[str]
) -> None:
    """Refuse operators that do not exist, and entries that no step could match."""
    for op in ops:
        if op not in known:
            raise section.error(
                f"unknown operator {op!r}{did_you_mean(op, known)} "
                "Names are those of ai.onnx, ai.onnx.ml and com.microsoft, and those that an [[operator]] declares.",
                "op",
            )
        possible = possible_kinds(op)
        if possible is not None and not possible & set(kinds or spec.kinds):
            wanted = f"kind {' or '.join(kinds)}" if kinds else f"what rule {spec.name} treats"
            raise section.error(
                f"operator {op} is of kind {' or '.join(sorted(possible))}, not of {wanted}"
                + ("" if kinds else f" ({', '.join(spec.kinds)})"),
                "op",
            )


def _hint(
    name: str, known: Mapping[str, Any] | list[str] | tuple[str, ...], shown: Mapping[str, Any] | None = None
) -> str:
    return f"{did_you_mean(name, known)} Known: {', '.join(shown or known)}."
