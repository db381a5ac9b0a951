"""The values in a rule table, checked one by one; every error names its line."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from onnxlrp.errors import UsageError
from onnxlrp.rules.spec import Parameter, RuleSpec
from onnxlrp.tables.lines import Block
from onnxlrp.tables.names import did_you_mean


@dataclass(frozen=True)
class Section:
    """The keys of one part of a rule table with their values, and where they stand."""

    source: str
    block: Block
    values: Mapping[str, Any]

    def error(self, message: str, key: str | None = None) -> UsageError:
        """The error to raise about `key`, or about the section as a whole."""
        line = self.block.line if key is None else self.block.keys.get(key, self.block.line)
        return UsageError(f"{self.source} line {line}: {message}")

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.error(f"{key} must be a string, not {_described(value)}", key)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false, not {_described(value)}", key)
        return value

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """One of the strings in `choices`."""
        value = self.text(key, default)
        if value not in choices:
            raise self.error(f"{key} must be one of {', '.join(choices)}, not {value!r}", key)
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """A string or a list of them; an empty list would match nothing and is refused."""
        if key not in self.values:
            return ()
        value = self.values[key]
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(item, str) and item for item in listed):
            raise self.error(f"{key} must be a string or a list of strings, not {_described(value)}", key)
        return tuple(listed)

    def number(self, key: str, default: float, minimum: float, maximum: float) -> float:
        """A finite number in [minimum, maximum]."""
        value = self.values.get(key, default)
        if not _is_number(value):
            raise self.error(f"{key} must be a finite number, not {_described(value)}", key)
        if not minimum <= value <= maximum:
            limit = f"at least {minimum:g}" if value < minimum else f"at most {maximum:g}"
            raise self.error(f"{key} must be {limit}, not {value:g}", key)
        return float(value)


def parameters(section: Section, spec: RuleSpec) -> dict[str, Any]:
    """Every parameter of the rule with the value that the section states, or the rule's default."""
    missing = [name for name, parameter in spec.parameters.items() if parameter.required and name not in section.values]
    if missing:
        raise section.error(f"rule {spec.name} needs {' and '.join(missing)}", "rule")
    found = {name: _value(section, name, parameter) for name, parameter in spec.parameters.items()}
    if spec.name == "alpha-beta":
        return found | _alpha_and_beta(section, found)
    if {"low", "high"} <= found.keys():
        _check_bounds(section, found["low"], found["high"])
    return found


def unknown_parameter(section: Section, key: str, spec: RuleSpec, other_keys: Collection[str]) -> UsageError:
    """The error about a key that is neither a condition nor a parameter of the rule."""
    allowed = ", ".join(spec.parameters) or "none"
    hint = did_you_mean(key, [*spec.parameters, *other_keys])
    return section.error(f"rule {spec.name} has no parameter {key!r}{hint} Its parameters: {allowed}.", key)


def _value(section: Section, name: str, parameter: Parameter) -> Any:
    if name not in section.values:
        return parameter.default
    if parameter.kind == "choice":
        return section.choice(name, parameter.choices, parameter.default)
    if parameter.kind == "number":
        return section.number(name, parameter.default, parameter.minimum, parameter.maximum)
    return _bound(section, name)


def _bound(section: Section, name: str) -> float | tuple[float, ...] | str:
    value = section.values[name]
    if isinstance(value, str) and value:
        return value
    if _is_number(value):
        return float(value)
    if isinstance(value, list) and value and all(_is_number(item) for item in value):
        return tuple(float(item) for item in value)
    raise section.error(
        f"{name} must be a finite number, a list of them (one per channel) or the name of an initializer, "
        f"not {_described(value)}",
        name,
    )


def _check_bounds(section: Section, low: Any, high: Any) -> None:
    """Numbers must be in order; what an initializer holds is only known with the model."""
    if isinstance(low, str) or isinstance(high, str):
        return
    lows, highs = (bound if isinstance(bound, tuple) else (bound,) for bound in (low, high))
    if len(lows) > 1 and len(highs) > 1 and len(lows) != len(highs):
        raise section.error(f"low has {len(lows)} values and high has {len(highs)}; one per channel is meant", "high")
    pairs = zip_longest(lows, highs, fillvalue=None)
    for index, (one, other) in enumerate(pairs):
        smallest, largest = (lows[0] if one is None else one), (highs[0] if other is None else other)
        if smallest > largest:
            where = f" (channel {index})" if len(lows) > 1 or len(highs) > 1 else ""
            raise section.error(f"low = {smallest:g} is above high = {largest:g}{where}", "low")


def _alpha_and_beta(section: Section, found: Mapping[str, float]) -> dict[str, float]:
    """alpha and beta; one of them follows from the other where only one is stated."""
    alpha, beta = found["alpha"], found["beta"]
    if "beta" not in section.values:
        beta = alpha - 1.0
    elif "alpha" not in section.values:
        alpha = beta + 1.0
    elif not math.isclose(alpha - beta, 1.0, abs_tol=1e-9):
        raise section.error(f"alpha - beta must be 1, not {alpha:g} - {beta:g} = {alpha - beta:g}", "alpha")
    return {"alpha": alpha, "beta": beta}


def _is_number(value: object) -> bool:
    """A number that a float can hold; TOML's integers have no limit here, and nan compares false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _described(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return repr(value)
