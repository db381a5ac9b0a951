"""Which entry of a rule table decides over a step."""

from __future__ import annotations

from fnmatch import fnmatchcase

from onnxlrp.rules.spec import RULES
from onnxlrp.tables.model import Entry, Position, RuleTable, StepFacts


def match(table: RuleTable, facts: StepFacts) -> Entry | None:
    """The first entry whose stated conditions all hold and whose rule can treat a step of this kind, or None.

    `op` looks at the step's main operator alone: an entry for BatchNormalization or Add is about those that
    stand alone, not about a convolution that one was merged into; an entry for a composite operator is about all
    its parts. `name` matches if any of the nodes does.
    """
    return next((entry for entry in table.entries if _applies(entry, facts)), None)


def _applies(entry: Entry, facts: StepFacts) -> bool:
    return (
        facts.kind in RULES[entry.rule].kinds
        and (not entry.ops or any(op in entry.ops for op in (facts.operators[0], *facts.origins)))
        and (not entry.kinds or facts.kind in entry.kinds)
        and (not entry.names or any(fnmatchcase(name, glob) for name in facts.names for glob in entry.names))
        and (not entry.regions or facts.region in entry.regions)
        and (entry.position is None or _stands(entry.position, facts))
        and entry.depth_from <= facts.depth <= entry.depth_to
    )


def _stands(position: Position, facts: StepFacts) -> bool:
    return {"first": facts.first, "last": facts.last, "head": facts.in_head}[position]
