"""The backward walk: carries relevance from the target through the steps of a program to the explained inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from onnxlrp.emit import control
from onnxlrp.emit.builder import Builder
from onnxlrp.emit.concepts import Masks
from onnxlrp.emit.context import Context, Ledger
from onnxlrp.emit.normalise import Normalisation, normalised
from onnxlrp.emit.relevance import Relevance, total
from onnxlrp.errors import ConversionError
from onnxlrp.operators.behaviour import Stop
from onnxlrp.planning.control import BodyProgram, Control
from onnxlrp.planning.program import Program, Step
from onnxlrp.rules.dispatch import carry_out
from onnxlrp.understand.facts import Facts

NO_MASKS = Masks()
PLAIN = Normalisation()


@dataclass(frozen=True)
class Walked:
    """What a walk leaves behind.

    Attributes:
        relevance: what arrived at each explained input (missing where nothing did), and at other tensors that were
            asked for, behind their masks.
        arrived: the relevance of the outputs of each step, by step number, in front of masks.
        sent: what each step sent to its inputs.
    """

    relevance: Mapping[str, Relevance]
    arrived: Mapping[int, tuple[Relevance, ...]]
    sent: Mapping[int, tuple[Relevance, ...]]


def walk(
    b: Builder,
    facts: Facts,
    program: Program,
    start: Mapping[str, Sequence[Relevance]],
    explained: Sequence[str],
    reachable: frozenset[str],
    ledger: Ledger,
    masks: Masks = NO_MASKS,
    normalisation: Normalisation = PLAIN,
) -> Walked:
    """Emits the relevance pass of one explained tensor.

    Args:
        start: the explained tensors and their relevance.
        explained: the tensors whose relevance is wanted.
        reachable: tensors on a way from an explained input; contributions to others are not followed.
        masks: what the relevance of a tensor is multiplied by before it is passed on.
        normalisation: what is done to relevance after each step.
    """
    given: dict[str, list[Relevance]] = {}
    for tensor, found in start.items():
        given[tensor] = list(found)
        for r in found:
            b.annotate(r.value, tensor)
    arrived: dict[int, tuple[Relevance, ...]] = {}
    sent: dict[int, tuple[Relevance, ...]] = {}
    passed: dict[str, Relevance] = {}
    for number, step in enumerate(program.steps):
        outputs = [o for o in step.nodes[-1].outputs if o in given]
        if not outputs:
            continue
        with b.scope(step.name):
            here = {o: total(b, given[o]) for o in outputs}
            arrived[number] = tuple(here.values())
            here = {o: masks.on(b, o, r, partial(ledger.book, number, "other")) for o, r in here.items()}
            given.update({o: [r] for o, r in here.items()})
            passed.update(here)
            context = Context(b, facts, ledger, number, normalisation.samples)
            sent[number] = _send(context, normalisation, step, here, given, reachable)
    with b.scope("input"):
        for x in explained:
            if x in given and x not in passed:
                passed[x] = masks.on(b, x, total(b, given[x]), _unbooked)
        return Walked({x: passed[x] for x in explained if x in passed}, arrived, sent)


def _unbooked(amount: Callable[[], str]) -> None:
    """No step accounts for what is taken away where relevance ends."""


def _send(
    context: Context,
    normalisation: Normalisation,
    step: Step,
    here: Mapping[str, Relevance],
    given: dict[str, list[Relevance]],
    reachable: frozenset[str],
) -> tuple[Relevance, ...]:
    if isinstance(step.behaviour, Stop):
        return ()
    carry = partial(_carry, context, normalisation, step)
    moves = step.behaviour.kind == "movement"
    if normalisation.mode == "none" or moves:
        contributions = carry(here)
    else:
        contributions = normalised(context, normalisation.mode, here, carry)
    kept = []
    for x, contribution in contributions:
        if x in reachable:
            context.b.annotate(contribution.value, x)
            given.setdefault(x, []).append(contribution)
            kept.append(contribution)
    return tuple(kept)


def _carry(
    context: Context, normalisation: Normalisation, step: Step, here: Mapping[str, Relevance]
) -> list[tuple[str, Relevance]]:
    """The rule of a step, or its bodies."""
    if isinstance(step.behaviour, Control):
        return control.carry(context, step.behaviour, here, partial(run_body, normalisation=normalisation))
    found = carry_out(context, step.rule, step.behaviour, here, step.parameters)
    return _with_detours(context, step, found) if step.detours else found


def _with_detours(
    context: Context, step: Step, contributions: list[tuple[str, Relevance]]
) -> list[tuple[str, Relevance]]:
    """What goes to the terms of a sum, with what the derivative of one term says of another."""
    b, facts = context.b, context.facts
    found = dict(contributions)
    for way in step.detours:
        m = found[way.source].as_multiplier(b, facts, way.source)
        start = {way.source: (Relevance(m, way.source),)}
        walked = walk(b, facts, Program(way.steps), start, (way.end,), way.tensors, Ledger())
        if way.end in walked.relevance:
            back = walked.relevance[way.end].as_multiplier(b, facts, way.end)
            own = found[way.end].as_multiplier(b, facts, way.end)
            found[way.end] = Relevance(b.add(own, back), way.end)
    return list(found.items())


def run_body(
    b: Builder,
    part: BodyProgram,
    start: Mapping[str, Sequence[Relevance]],
    ledger: Ledger,
    normalisation: Normalisation = PLAIN,
) -> control.BodyPass:
    """Emits the relevance pass of a subgraph into its own builder."""
    facts = part.body.reading.facts
    walked = walk(b, facts, part.program, start, part.active, part.between, ledger, NO_MASKS, normalisation)
    return control.BodyPass(b, walked.relevance, control.totals_of(b, part, start, ledger, walked.arrived))


#: What is done to a finished map in the shape of a forward tensor: (map, tensor) -> map.
Finish = Callable[[str, str], str]


def as_output(
    b: Builder, shares: Sequence[tuple[Relevance | None, str]], gradient: bool, dtype: int, finish: Finish
) -> str:
    """What is returned for an explained input, in element type `dtype`: the map, or with `gradient` the multiplier.

    Args:
        shares: (relevance, tensor) for the input itself, or for each tensor of floats that is made of it.
    """
    with b.scope("output"):
        found = [_value(b, relevance, tensor, gradient) for relevance, tensor in shares if relevance is not None]
        whole = b.sum(found) if found else b.zeros_like(shares[0][1])
        return b.cast_down(finish(whole, shares[0][1]), dtype)


def _value(b: Builder, relevance: Relevance | None, x: str, gradient: bool) -> str:
    if relevance is None:
        return b.zeros_like(x)
    return relevance.value if gradient and relevance.base == x else relevance.as_map(b)


def as_token_output(
    b: Builder,
    shares: Sequence[tuple[Relevance | None, str, str]],
    ids: str,
    gradient: bool,
    dtype: int,
    finish: Finish,
    more: Sequence[str] = (),
) -> str:
    """What is returned for token ids, in their shape: relevance summed over the width of the embeddings.

    Args:
        shares: (relevance, embedding, ids that it was looked up by) for each lookup.
        more: what else counts to each token, in the shape of the ids.
    """
    with b.scope("output"):
        sums = []
        for relevance, embedding, looked_up in shares:
            width = _axes_behind(b, embedding, looked_up)
            total = b.op("ReduceSum", _value(b, relevance, embedding, gradient), b.integers(width), keepdims=0)
            sums.append(total if looked_up == ids else b.reshape_like(total, ids))
        return b.cast_down(finish(b.sum([*sums, *more]), ids), dtype)


def _axes_behind(b: Builder, embedding: str, ids: str) -> range:
    """The axes of an embedding that the ids do not have."""
    rank, own = b.graph.rank(embedding), b.graph.rank(ids)
    if rank is None or own is None:
        raise ConversionError(f"the rank of the embeddings {embedding} is not known; run shape inference first")
    return range(own - rank, 0)
