"""The planner: from a graph, a rule table and a target to the list of steps that the emission carries out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxlrp.emit.builder import Builder
from onnxlrp.errors import ConversionError
from onnxlrp.graph.view import Node, reads
from onnxlrp.operators.behaviour import Behaviour, Linear, Product, Refusal, Stop
from onnxlrp.operators.registry import DECLARED, Situation, find
from onnxlrp.planning.control import CONTROL, BodyProgram, Control, Surroundings
from onnxlrp.planning.detours import with_detours
from onnxlrp.planning.paths import Paths
from onnxlrp.planning.steps import Program as Program
from onnxlrp.planning.steps import Step as Step
from onnxlrp.rules.dispatch import obstacle, receivers
from onnxlrp.tables.match import match
from onnxlrp.tables.model import Entry, RuleTable, StepFacts
from onnxlrp.understand.body import Body
from onnxlrp.understand.reading import Reading
from onnxlrp.understand.regions import Region, describe_region, find_regions

#: What happens where a table says nothing. Weighted layers are missing on purpose: the table must decide.
_DEFAULTS: Mapping[str, str] = {
    "affine": "epsilon",
    "average": "epsilon",
    "sum": "epsilon",
    "activation": "pass",
    "normalization": "epsilon",
    "product": "signal",
    "max": "winner",
    "movement": "move",
    "tree": "path",
}
_DEFAULT_PARAMETERS: Mapping[str, Any] = {"epsilon": 1e-6, "stabiliser": "sign", "bias": "absorb"}


@dataclass(frozen=True)
class _Obstacle:
    node: Node
    reason: str
    advice: str

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        is_part = self.node.ancestors and self.node.domain != DECLARED
        part = f" (its part {self.node.op})" if is_part else ""
        return f"{self.node.label}: {self.reason}{part}{advice}"


@dataclass(frozen=True)
class Place:
    """Where the graph that is planned stands.

    Attributes:
        nothing_before, nothing_behind: whether no weighted layers come before or behind it.
        depth: that of a body.
        inside: the composite operators that a body is a part of (an LSTM, of the body of its Scan), nearest first.
    """

    nothing_before: bool = True
    nothing_behind: bool = True
    depth: float | None = None
    inside: tuple[Node, ...] = ()


class Planner:
    """Walks from target tensors back and gives each node on the way its rule.

    Args:
        b: the builder of the relevance pass, for what composite operators inside bodies are taken apart into.

    Attributes:
        obstacles: the nodes that cannot be treated, once `program` has looked for them.
        used: lines of the table's entries that decided something.
    """

    def __init__(
        self,
        reading: Reading,
        table: RuleTable,
        explained: Sequence[str],
        targets: Sequence[str],
        pinned: frozenset[str],
        b: Builder,
        place: Place | None = None,
    ) -> None:
        self.reading, self.table, self.b, self.place = reading, table, b, place or Place()
        self.graph, self.facts = graph, facts = reading.graph, reading.facts
        self.paths = Paths(graph, explained, targets)
        self.regions = find_regions(graph, facts, pinned, table.merge_batch_normalization)
        self.obstacles: list[_Obstacle] = []
        self.used: set[int] = set()

    def program(self) -> Program:
        """The steps of all nodes that can be treated; those that cannot are in `obstacles`."""
        receiving = self._receiving = set(self.paths.targets)
        steps: list[Step] = []
        for node in reversed(self.graph.nodes):
            if not receiving.intersection(node.outputs) or self._is_origin(node):
                continue
            step = self._step(node)
            if step is None:
                # Look on behind a node in the way, so that all of them are found at once.
                receiving.update(self._active(node))
                continue
            steps.append(step)
            receiving.update(x for x in step.receivers if x in self.paths.forward)
        return Program(with_detours(steps))

    def _is_origin(self, node: Node) -> bool:
        """Whether a node makes explained tensors (embeddings that were looked up) of nothing that is explained."""
        return not self.paths.explained.isdisjoint(node.outputs) and not self._active(node)

    def _active(self, node: Node) -> frozenset[str]:
        return frozenset(i for i in reads(node) if i in self.paths.forward)

    def _step(self, node: Node) -> Step | None:
        region = self.regions.get(node.index)
        if region is not None and region.nodes[-1] is node:
            return self._region_step(region)
        control = None if node.domain else CONTROL.get(node.op)
        if control is not None:
            around = Surroundings(self.reading, self.b, self._active(node), frozenset(self._receiving), self._body)
            return self._with_rule((node,), control(node, around), None)
        entry = find(node)
        if entry is None:
            declare = ", declare it in the rule table ([[operator]])" if node.domain else ""
            self._refuse(
                node,
                "no treatment is known for this operator",
                f"export it as standard operators{declare}, or explain an output that does not pass through it",
            )
            return None
        behaviour = entry.describe(Situation(node, self.graph, self.facts, self._active(node)))
        return self._with_rule((node,), behaviour, None)

    def _body(self, body: Body, active: Sequence[str], targets: Sequence[str], node: Node) -> BodyProgram:
        """Plans the relevance pass of a subgraph of `node`, by the same rule table."""
        inside = (*node.ancestors, *self.place.inside)
        place = Place(self._is_first(node), self._is_last(node), self._depth(node), inside)
        pinned = frozenset((*active, *body.outputs))
        inner = Planner(body.reading, self.table, active, targets, pinned, self.b, place)
        program = inner.program()
        self.obstacles += inner.obstacles
        self.used |= inner.used
        return BodyProgram(body, program, tuple(active), frozenset(inner.paths.between))

    def _is_first(self, node: Node) -> bool:
        return self.place.nothing_before and self.paths.is_first(node)

    def _is_last(self, node: Node) -> bool:
        return self.place.nothing_behind and self.paths.is_last(node)

    def _depth(self, node: Node) -> float:
        return self.paths.depth(node) if self.place.depth is None else self.place.depth

    def _region_step(self, region: Region) -> Step | None:
        last = region.nodes[-1]
        at = Situation(last, self.graph, self.facts, self._active(last))
        behaviour = describe_region(region, at, self._active)
        return self._with_rule(region.nodes, behaviour, region)

    def _refuse(self, node: Node, reason: str, advice: str) -> None:
        self.obstacles.append(_Obstacle(node, reason, advice))

    def _with_rule(
        self, nodes: tuple[Node, ...], behaviour: Behaviour | Control | Refusal, region: Region | None
    ) -> Step | None:
        head = region.head if region else nodes[0]
        if isinstance(behaviour, Refusal):
            self._refuse(head, behaviour.reason, behaviour.advice)
            return None
        operator = "+".join(n.op if n.domain != DECLARED or n.origin is None else n.origin.op for n in nodes)
        if isinstance(behaviour, Stop):
            return Step(nodes, behaviour, "stop", {}, behaviour.reason, operator=operator)
        if isinstance(behaviour, Control):
            return Step(nodes, behaviour, "inside", {}, behaviour.note, operator=operator)
        if behaviour.kind == "declared":
            return Step(nodes, behaviour, "pass", {}, behaviour.note, operator=operator)
        others = [n for n in nodes if n is not head]
        named = (*(m for n in (head, *others) for m in (n, *n.ancestors)), *self.place.inside)
        facts = StepFacts(
            operators=(head.op, *(n.op for n in others)),
            kind=behaviour.kind,
            names=tuple(n.title for n in named),
            origins=tuple(n.op for n in (*head.ancestors, *self.place.inside)),
            region=region.name if region else None,
            first=self._is_first(head),
            last=self._is_last(head),
            in_head=self.place.nothing_behind and self.paths.is_in_head(head),
            depth=self._depth(head),
        )
        entry = match(self.table, facts)
        if entry is None:
            return self._by_default(nodes, head, behaviour, operator)
        self.used.add(entry.line)
        reason = self._reason(entry, facts, behaviour)
        rule, parameters = entry.rule, dict(entry.parameters)
        trouble = obstacle(rule, behaviour)
        if trouble and isinstance(behaviour, Linear) and behaviour.kind != "linear":
            reason = f"{trouble}, so epsilon is used"
            rule, parameters = "epsilon", dict(_DEFAULT_PARAMETERS)
        elif trouble:
            self._refuse(head, f"{trouble} ({behaviour.kind})", f"name another rule for it in table {self.table.name}")
            return None
        trouble = self._check_bounds(rule, parameters, behaviour)
        if trouble:
            self._refuse(head, trouble, "correct the rule table")
            return None
        stopped = self._stopped(rule, behaviour, parameters)
        return Step(nodes, behaviour, rule, parameters, reason, stopped, operator)

    def _by_default(self, nodes: tuple[Node, ...], head: Node, behaviour: Behaviour, operator: str) -> Step | None:
        rule = _DEFAULTS.get(behaviour.kind)
        if rule is None:
            self._refuse(head, f"rule table {self.table.name} has no rule for it", "add an entry that matches it")
            return None
        note = f" ({behaviour.note})" if behaviour.note else ""
        reason = f"the usual rule for {behaviour.kind}{note}: the table names none"
        return Step(
            nodes,
            behaviour,
            rule,
            dict(_DEFAULT_PARAMETERS),
            reason,
            self._stopped(rule, behaviour, _DEFAULT_PARAMETERS),
            operator,
        )

    def _reason(self, entry: Entry, facts: StepFacts, behaviour: Behaviour) -> str:
        """Where the entry that decides stands, and the conditions of it that this step meets."""
        conditions = []
        if entry.names:
            conditions.append(f"name {' or '.join(entry.names)}")
        if entry.regions:
            conditions.append(f"region {facts.region}")
        if entry.position:
            conditions.append("in the head" if entry.position == "head" else f"{entry.position} layer")
        if entry.ops:
            conditions.append(f"op {' in '.join((facts.operators[0], *facts.origins))}")
        if entry.kinds:
            conditions.append(f"kind {facts.kind}")
        if (entry.depth_from, entry.depth_to) != (0.0, 1.0):
            conditions.append(f"depth {facts.depth:.2f} in {entry.depth_from:g} to {entry.depth_to:g}")
        text = f"line {entry.line} of {self.table.name}: {', '.join(conditions) or 'whatever is left'}"
        return f"{text}; {behaviour.note}" if behaviour.note else text

    def _check_bounds(self, rule: str, parameters: Mapping[str, Any], behaviour: Behaviour) -> str | None:
        if rule != "z-box":
            return None
        for name in ("low", "high"):
            value = parameters[name]
            if isinstance(value, str) and value not in self.graph.initializers:
                return f"its bound {name} names {value!r}, which is not an initializer of the model"
            if isinstance(value, Sequence) and not isinstance(value, str):
                shape = self.graph.shape(behaviour.data[0])
                channels = shape[1] if shape is not None and len(shape) > 1 else None
                if isinstance(channels, int) and len(value) not in (1, channels):
                    return f"its bound {name} has {len(value)} numbers, but its input has {channels} channels"
        return None

    def _stopped(self, rule: str, behaviour: Behaviour, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        received = set(receivers(rule, behaviour, parameters))
        lost = [x for x in behaviour.data if x not in received and x in self.paths.forward]
        if isinstance(behaviour, Product):
            return tuple(f"{x}: the {behaviour.other} receives nothing" for x in lost)
        return tuple(f"{x} receives nothing" for x in lost)


def programs(planners: Sequence[Planner]) -> tuple[Program, ...]:
    """The program of each planner.

    Raises:
        ConversionError: listing every node that stands in the way of any of them.
    """
    found = tuple(planner.program() for planner in planners)
    obstacles = tuple(dict.fromkeys(o for planner in planners for o in planner.obstacles))
    if obstacles:
        raise ConversionError(_refusal_text(obstacles))
    return found


def unused_entries(table: RuleTable, planners: Sequence[Planner]) -> tuple[str, ...]:
    """Warnings for the entries of the user's own table that no planner had a use for."""
    used = {line for planner in planners for line in planner.used}
    if table.source == "preset":
        return ()
    return tuple(
        f"{table.source} line {e.line}: this entry ({e.rule}) matches no node"
        for e in table.entries
        if e.line not in used
    )


def _refusal_text(obstacles: Sequence[_Obstacle]) -> str:
    many = len(obstacles) > 1
    head = f"{len(obstacles)} nodes stand" if many else "one node stands"
    lines = "".join(f"\n  {o}" for o in obstacles)
    return f"cannot convert: {head} in the way of relevance:{lines}"
