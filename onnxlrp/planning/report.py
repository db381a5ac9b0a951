"""From a program to the plan that people read, with the cost of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from onnxlrp.emit.assemble import depending_on
from onnxlrp.emit.builder import PREFIX, Emitted
from onnxlrp.emit.seed import LOOP_INDEX
from onnxlrp.graph.view import Graph
from onnxlrp.operators.cost import COUNTED, multiply_adds
from onnxlrp.planning.model import PlanStep
from onnxlrp.planning.program import Step
from onnxlrp.understand.blocks import Block, innermost
from onnxlrp.understand.facts import Facts


def _runs(emitted: Sequence[Emitted], facts: Facts, repeats: int) -> Counter[str]:
    """How often each step runs its layer at run time, by scope; what is folded at load time does not count.

    What depends on the counter of a loop over targets runs `repeats` times.
    """
    repeated = depending_on(emitted, [LOOP_INDEX])
    fixed: set[str] = set()
    runs: Counter[str] = Counter()
    for node in emitted:
        inputs = [i for i in node.inputs if i]
        given = [i for i in inputs if i.startswith((f"{PREFIX}/const", f"{PREFIX}/ints"))]
        if all(i in fixed or i in given or facts.is_constant(i) for i in inputs):
            fixed.update(node.outputs)
        elif node.op in COUNTED:
            runs[node.scope] += repeats if repeated.intersection(node.outputs) else 1
    return runs


def plan_steps(
    graph: Graph,
    steps: Sequence[Step],
    emitted: Sequence[Emitted],
    facts: Facts,
    blocks: Sequence[Block] = (),
    repeats: int = 1,
) -> tuple[PlanStep, ...]:
    """One row per step, with the multiply-adds of its forward pass and of its rule.

    Args:
        blocks: the parts of a transformer that were recognised.
        repeats: how many targets are explained one after the other.
    """
    runs = _runs(emitted, facts, repeats)
    titles = {index: block.title for index, block in innermost(blocks).items()}
    return tuple(_row(step, graph, runs, titles) for step in steps)


def count_blocks(steps: Sequence[Step], blocks: Sequence[Block]) -> Mapping[str, int]:
    """How many blocks of each name have a step of the relevance pass."""
    reached = {node.index for step in steps for node in step.nodes}
    return dict(Counter(b.name for b in blocks if any(node.index in reached for node in b.nodes)))


def _row(step: Step, graph: Graph, runs: Counter[str], titles: Mapping[int, str]) -> PlanStep:
    counted = [multiply_adds(n, graph) for n in step.nodes]
    macs = None if any(c is None for c in counted) else sum(c for c in counted if c is not None)
    return PlanStep(
        nodes=tuple(n.title for n in step.nodes),
        operator=step.operator or step.nodes[0].op,
        kind=step.behaviour.kind,
        rule=step.rule,
        parameters=step.parameters,
        reason=step.reason,
        stopped=step.stopped,
        macs=macs,
        relevance_macs=None if macs is None else macs * runs[step.name] if macs else 0,
        inner=tuple(_row(s, graph, Counter(), {}) for s in step.inner),
        block=next((titles[n.index] for n in step.nodes if n.index in titles), ""),
    )


def totals(graph: Graph, rows: Sequence[PlanStep]) -> tuple[int | None, int | None]:
    """(multiply-adds of the whole forward pass, multiply-adds that the relevance pass adds)."""
    forward = [multiply_adds(n, graph) for n in graph.nodes]
    added = [r.relevance_macs for r in rows]
    known = [f for f in forward if f is not None]
    if len(known) < len(forward) or any(a is None for a in added):
        return None, None
    return sum(known), sum(a for a in added if a is not None)
