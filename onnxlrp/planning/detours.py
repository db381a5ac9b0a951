"""Ways from one term of a sum back to another term that it was made from: from a residual branch to its shortcut.

The released code of absLRP differentiates a residual addition by both of its terms. Where the shortcut is what the
branch was made from, its derivative goes through the branch as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxlrp.operators.behaviour import Linear, Product
from onnxlrp.planning.steps import Detour, Step


def with_detours(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps of a program, those with `shortcut = "derivative"` with the ways between their terms."""
    asked = [step.parameters.get("shortcut") == "derivative" and step.behaviour.kind == "sum" for step in steps]
    return tuple(
        replace(step, detours=_between(step, steps[i + 1 :])) if wanted else step
        for i, (step, wanted) in enumerate(zip(steps, asked, strict=True))
    )


def _between(step: Step, before: Sequence[Step]) -> tuple[Detour, ...]:
    terms = dict.fromkeys(step.receivers)
    found = []
    for source in terms:
        ends, reached, way = set(terms) - {source}, {source}, list[Step]()
        for other in before:
            outputs = set(other.nodes[-1].outputs)
            if outputs & reached and not outputs & ends:
                way.append(_derived(other))
                reached.update(way[-1].receivers)
        found += [Detour(source, end, tuple(way), frozenset(reached)) for end in terms if end in ends & reached]
    return tuple(found)


def _derived(step: Step) -> Step:
    """The step with its derivative for a rule; what a normalisation takes from the data is held constant."""
    held = isinstance(step.behaviour, Linear | Product)
    return replace(step, rule="held" if held else "gradient", parameters={})
