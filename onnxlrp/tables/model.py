"""What a rule table says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Position = Literal["first", "last", "head"]
Output = Literal["relevance", "gradient"]
Sinks = Literal["absorb", "sink"]
Start = Literal["output", "one"]
Contrast = Literal["none", "others"]
Normalize = Literal["none", "operand", "sign"]
Scale = Literal["none", "max"]
Treat = Literal["pass", "stop", "function"]


@dataclass(frozen=True)
class Entry:
    """One `[[rule]]` of a table: the conditions under which it applies, the rule and its parameters.

    An empty tuple states no condition. `names` are shell-style patterns, upper and lower case told apart.
    `parameters` holds every parameter of the rule, defaults filled in; a list of bounds per channel is a
    tuple of floats. `depth_from` and `depth_to` are inclusive, 0 at the explained input and 1 at the target.
    """

    line: int
    rule: str
    parameters: Mapping[str, Any]
    ops: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    position: Position | None = None
    depth_from: float = 0.0
    depth_to: float = 1.0


@dataclass(frozen=True)
class Declaration:
    """One `[[operator]]` of a table: how to treat operators that onnxlrp does not know.

    `treat` is "pass" (relevance of the first output goes to input number `input` unchanged), "stop" (relevance ends,
    for `reason`) or "function" (the function of that `function` name, (domain, name, overload), computes the same and
    is read in its place). `file` is where the function stands, as the table names it; "" is the model itself.
    """

    line: int
    ops: tuple[str, ...]
    domain: str
    treat: Treat
    input: int = 0
    reason: str = ""
    function: tuple[str, str, str] = ("", "", "")
    file: str = ""


@dataclass(frozen=True)
class RuleTable:
    """A rule table: entries of which the first that matches a step decides its rule.

    `output` is what the relevance outputs hold: "relevance" (input times multiplier) or "gradient" (the
    multiplier itself, for methods that yield a modified gradient). `positions` says what becomes of the relevance that
    position embeddings receive: "absorb" (a bias, as anywhere) or "sink" (it is returned by position as well, and
    counted to the tokens; the tables of rotary embeddings are factors like any other). `merge_through_relu` reads a
    Relu behind a BatchNormalization as a threshold in front of it, so that the layer behind takes the
    BatchNormalization. `source` is "preset" or the path of the file; `text` is the TOML that the table was read from.
    `files` holds the bytes of the files that its declarations name.

    `start` is what relevance starts with: the explained "output" itself, or "one" shared among what is explained.
    `contrast` "others" takes off what a second pass finds for all other elements of the output. `normalize` after each
    step: "operand" gives what each input receives an absolute sum of 1 per sample, "sign" keeps the sums of positive
    and of negative relevance. `scale` "max" divides finished maps by their largest absolute value per sample. `note` is
    what plans and metadata say of the table.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    source: str
    output: Output = "relevance"
    positions: Sinks = "absorb"
    merge_batch_normalization: bool = True
    merge_through_relu: bool = False
    start: Start = "output"
    contrast: Contrast = "none"
    normalize: Normalize = "none"
    scale: Scale = "none"
    note: str = ""
    text: str = ""
    operators: tuple[Declaration, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class StepFacts:
    """What a table may ask about one step of the relevance pass.

    `operators` are the ONNX operator types treated in the step, the main one first, never empty; `names` the
    names of its nodes; `origins` the composite operators that the main node is a part of, the nearest first.
    `first` and `last` say whether it is the first step of its kind after the explained input, or the last before
    the target, `in_head` whether at most the last layer stands between it and the target. `depth`
    runs from 0 at the input to 1 at the target.
    """

    operators: tuple[str, ...]
    kind: str
    names: tuple[str, ...]
    region: str | None
    first: bool
    last: bool
    depth: float
    origins: tuple[str, ...] = ()
    in_head: bool = False


#: What a table says of the method as a whole, beside its rules, with what is usual.
METHOD: Mapping[str, str] = {"start": "output", "contrast": "none", "normalize": "none", "scale": "none"}


def method_settings(table: RuleTable) -> dict[str, str]:
    """What a table says beyond its rules, as far as it is not the usual."""
    stated = {"start": table.start, "contrast": table.contrast, "normalize": table.normalize, "scale": table.scale}
    noted = {"note": table.note} if table.note else {}
    return {**{key: value for key, value in stated.items() if value != METHOD[key]}, **noted}
