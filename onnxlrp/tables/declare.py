"""The `[[operator]]` entries of a rule table: what it says of operators that onnxlrp does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onnxlrp.errors import UsageError
from onnxlrp.tables.model import Declaration
from onnxlrp.tables.names import did_you_mean
from onnxlrp.tables.values import Section

_TREATMENTS = ("pass", "stop")
#: The keys that go with each way to treat an operator, besides those that name the operator.
_GO_WITH = {"pass": ("input", "reason"), "stop": ("reason",), "function": ("file",)}
#: What each key says.
KEYS: Mapping[str, str] = {
    "op": "the operator, or a list of operators; must be stated",
    "domain": "their domain, which is not ai.onnx; must be stated",
    "treat": "`pass`: relevance of the first output goes unchanged to one input, which has the same shape; `stop`: it"
    " ends here",
    "input": "with `pass`: the position of that input, 0 unless stated",
    "reason": "with `stop` (must be stated) and `pass`: why, as the plan is to say it",
    "function": "instead of `treat`: the function, `domain::name` or `domain::name:overload`, that computes the same;"
    " it is read in the operator's place, and each of its nodes gets its own rule",
    "file": "with `function`: an ONNX file that holds it, beside the table; the model itself unless stated",
}
_STANDARD = ("", "ai.onnx")


def declarations(sections: Sequence[Section]) -> tuple[Declaration, ...]:
    """What the [[operator]] sections say.

    Raises:
        UsageError: naming the line of whatever is wrong.
    """
    found = tuple(_declaration(section) for section in sections)
    lines: dict[tuple[str, str], int] = {}
    for section, declaration in zip(sections, found, strict=True):
        for op in declaration.ops:
            first = lines.setdefault((declaration.domain, op), declaration.line)
            if first != declaration.line:
                raise section.error(f"{declaration.domain}.{op} is declared on line {first} already", "op")
    return found


def _declaration(section: Section) -> Declaration:
    for key in section.values:
        if key not in KEYS:
            raise section.error(f"unknown key {key!r}{did_you_mean(key, KEYS)} Known: {', '.join(KEYS)}.", key)
    for key in ("op", "domain"):
        if key not in section.values:
            raise section.error(f"the declaration needs {key}")
    ops, domain = section.strings("op"), section.text("domain", "")
    if domain in _STANDARD:
        raise section.error("operators of ai.onnx are known; give them a rule with a [[rule]] entry", "domain")
    treat = _treatment(section)
    for key in section.values:
        if key in ("input", "reason", "file") and key not in _GO_WITH[treat]:
            raise section.error(f"{key} does not go with {_stated(treat)}", key)
    if treat == "stop" and not section.text("reason", ""):
        raise section.error("treat = 'stop' needs a reason, which the plan will show", "treat")
    line, reason = section.block.line, section.text("reason", "")
    if treat == "function":
        return Declaration(line, ops, domain, "function", function=_function(section), file=section.text("file", ""))
    return Declaration(line, ops, domain, "pass" if treat == "pass" else "stop", _position(section), reason)


def _treatment(section: Section) -> str:
    if ("treat" in section.values) == ("function" in section.values):
        raise section.error("the declaration needs either treat = 'pass' or 'stop', or a function")
    return section.choice("treat", _TREATMENTS, "pass") if "treat" in section.values else "function"


def _stated(treat: str) -> str:
    return "a function" if treat == "function" else f"treat = {treat!r}"


def _position(section: Section) -> int:
    value = section.values.get("input", 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise section.error("input must be the position of an input, 0 for the first", "input")
    return value


def _function(section: Section) -> tuple[str, str, str]:
    """(domain, name, overload) of "domain::name" or "domain::name:overload"."""
    text = section.text("function", "")
    domain, _, rest = text.rpartition("::")
    name, _, overload = rest.partition(":")
    if not domain or not name:
        raise section.error(f"function must be written as 'domain::name', not {text!r}", "function")
    return domain, name, overload


def read_files(shown: str, folder: Path, declared: Iterable[Declaration]) -> dict[str, bytes]:
    """The bytes of the files that declarations name, from `folder`.

    Raises:
        UsageError: one cannot be read.
    """
    files: dict[str, bytes] = {}
    for declaration in declared:
        if declaration.file and declaration.file not in files:
            try:
                files[declaration.file] = (folder / declaration.file).read_bytes()
            except OSError as error:
                raise UsageError(
                    f"{shown} line {declaration.line}: {declaration.file} cannot be read: {error.strerror or error}"
                ) from error
    return files
