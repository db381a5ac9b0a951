"""What is explained at the far end: float inputs as they are, whole numbers as the floats that are made of them or
by the rows that they pick from a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnxlrp.errors import ConversionError, UsageError
from onnxlrp.graph.view import WHOLE_TYPES, Graph, Node
from onnxlrp.planning.paths import Paths
from onnxlrp.planning.target import Explained
from onnxlrp.understand.facts import Facts

#: What may stand between ids and the lookup without changing the order of the ids.
_KEEPS_ORDER = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
#: What makes floats of whole numbers, one of each.
_MAKES_FLOATS = frozenset({"Cast", "CastLike", "DequantizeLinear"})
#: What reads whole numbers and says nothing of them.
_NO_VALUES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class ExplainedInput:
    """An explained input and the tensors at which its relevance is collected.

    Attributes:
        tensors: the input itself; of whole numbers the floats that are made of them; of token ids the embeddings that
            are looked up by them. One or several.
        ids: for token ids: the tensors that the lookups were made with, in the order of `tensors`.
    """

    name: str
    tensors: tuple[str, ...]
    ids: tuple[str, ...] = ()

    @property
    def is_token(self) -> bool:
        return bool(self.ids)

    @property
    def is_whole(self) -> bool:
        """Whether it is whole numbers that stand for themselves, such as pixels in uint8."""
        return not self.ids and self.tensors != (self.name,)


def lookups(graph: Graph, facts: Facts, ids: str) -> ExplainedInput | None:
    """Ids as far as they pick rows from tables of floats that do not depend on the data; else None."""
    found: list[tuple[str, str]] = []
    pending = [ids]
    while pending:
        tensor = pending.pop(0)
        for node in graph.consumers.get(tensor, ()):
            if node.domain:
                continue
            if node.op in _KEEPS_ORDER and node.inputs[0] == tensor and not graph.is_float(node.outputs[0]):
                pending.append(node.outputs[0])
            elif node.op == "Gather" and node.inputs[1] == tensor and facts.is_constant(node.inputs[0]):
                embedding = _embedding(graph, node)
                if embedding is not None:
                    found.append((embedding, tensor))
    if not found:
        return None
    return ExplainedInput(ids, tuple(e for e, _ in found), tuple(i for _, i in found))


def _embedding(graph: Graph, node: Node) -> str | None:
    """The floats that a lookup along axis 0 gives; of a quantised table behind its DequantizeLinear."""
    y = node.outputs[0]
    if node.attribute("axis", 0) not in (0, -(graph.rank(node.inputs[0]) or 0)):
        return None
    if graph.is_float(y):
        return y
    readers = graph.consumers.get(y, ())
    if len(readers) == 1 and readers[0].op == "DequantizeLinear" and readers[0].inputs[0] == y:
        return readers[0].outputs[0]
    return None


def explained_inputs(
    graph: Graph, facts: Facts, names: Sequence[str], targets: Sequence[Explained]
) -> tuple[ExplainedInput, ...]:
    """The inputs to explain: those named, or every float and token input that the target depends on.

    Whole numbers that stand for themselves are explained where they are named, or where there is nothing else: beside
    floats or tokens they are most often masks and lengths.

    Raises:
        UsageError: a named input does not exist, cannot be explained, or has no way to the target.
        ConversionError: no input has a way to the target.
    """
    possible = {i: _explainable(graph, facts, i) for i in graph.inputs}
    for name in names:
        if name not in possible:
            raise UsageError(f"the model has no input {name!r}; its inputs are {', '.join(graph.inputs) or 'none'}")
        if possible[name] is None:
            raise UsageError(
                f"input {name!r} is neither made of floats, nor are floats made of it, nor are its values looked up in"
                " a table of floats, so it cannot be explained; explain another input, or start behind it"
            )
    chosen = [x for name in tuple(dict.fromkeys(names)) or graph.inputs if (x := possible[name]) is not None]
    reached = _reached(graph, chosen, targets)
    if not names:
        reached = tuple(x for x in reached if not x.is_whole) or reached
    missing = [x.name for x in chosen if x not in reached]
    what = ", ".join(t.name for t in targets)
    if names and missing:
        raise UsageError(f"output {what} does not depend on input {missing[0]!r}, so there is nothing to explain")
    if not reached:
        raise ConversionError(
            f"output {what} does not depend on any float input, on token ids or on numbers that floats are made of,"
            " so there is nothing to explain"
        )
    return reached


def notes_on_inputs(
    graph: Graph, facts: Facts, explained: Sequence[ExplainedInput], targets: Sequence[Explained]
) -> tuple[str, ...]:
    """What the target also depends on and what is not explained, in words."""
    left = (
        f"input {n}: whole numbers beside other inputs are not explained unless named (--input)"
        for n in _left_out(graph, facts, explained, targets)
    )
    unseen = (
        f"input {n}: {node.label} makes floats of whole numbers that are computed from it (integer division, say);"
        " what comes that way is not explained"
        for n, node in _unseen(graph, explained, targets)
    )
    return (*left, *unseen)


def _left_out(
    graph: Graph, facts: Facts, explained: Sequence[ExplainedInput], targets: Sequence[Explained]
) -> tuple[str, ...]:
    """Inputs of whole numbers that the target depends on and that are not explained unless they are named."""
    whole = [x for name in graph.inputs if (x := _explainable(graph, facts, name)) is not None and x.is_whole]
    return tuple(x.name for x in _reached(graph, whole, targets) if x not in explained)


def _unseen(
    graph: Graph, explained: Sequence[ExplainedInput], targets: Sequence[Explained]
) -> tuple[tuple[str, Node], ...]:
    """Explained inputs of whole numbers beside the nodes that make further floats of them, which are not explained.

    Those are made behind integer arithmetic that has no counterpart in floats, such as an integer division.
    """
    found: dict[tuple[str, Node], str] = {}
    for x in explained:
        for node in _float_makers(graph, x.name) if x.is_whole else ():
            if node.outputs[0] not in x.tensors:
                found[x.name, node] = node.outputs[0]
    if not found:
        return ()
    ways = [Paths(graph, tuple(found.values()), (t.tensor,)) for t in targets]
    return tuple(where for where, made in found.items() if any(way.reaches(made) for way in ways))


def _float_makers(graph: Graph, name: str) -> Iterator[Node]:
    """The nodes that make floats of whole numbers or of what is computed from them in whole numbers."""
    pending, seen = [name], {name}
    while pending:
        tensor = pending.pop()
        for node in graph.consumers.get(tensor, ()):
            if node.op in _MAKES_FLOATS and node.inputs[0] == tensor and graph.is_float(node.outputs[0]):
                yield node
            elif node.op not in _NO_VALUES:
                further = [o for o in node.outputs if graph.dtype(o) in WHOLE_TYPES and o not in seen]
                pending += further
                seen.update(further)


def _reached(
    graph: Graph, chosen: Sequence[ExplainedInput], targets: Sequence[Explained]
) -> tuple[ExplainedInput, ...]:
    if not chosen:
        return ()
    ways = [Paths(graph, collected(chosen), (t.tensor,)) for t in targets]
    return tuple(x for x in chosen if any(way.reaches(tensor) for way in ways for tensor in x.tensors))


def _explainable(graph: Graph, facts: Facts, name: str) -> ExplainedInput | None:
    readers = graph.consumers.get(name, ())
    ids = all(node.op == "Cast" and not node.domain and not graph.is_float(node.outputs[0]) for node in readers)
    if not graph.is_float(name):
        return lookups(graph, facts, name) or _as_numbers(graph, name)
    # Keras writes ids as floats that are made whole before they are looked up.
    return (lookups(graph, facts, name) if readers and ids else None) or ExplainedInput(name, (name,))


def _as_numbers(graph: Graph, name: str) -> ExplainedInput | None:
    """Whole numbers as far as floats are made of them; None where none are, or they are true and false."""
    if graph.dtype(name) not in WHOLE_TYPES:
        return None
    made = tuple(
        node.outputs[0]
        for node in graph.consumers.get(name, ())
        if node.op in _MAKES_FLOATS and node.inputs[0] == name and graph.is_float(node.outputs[0])
    )
    return ExplainedInput(name, made) if made else None


def collected(inputs: Iterable[ExplainedInput]) -> tuple[str, ...]:
    """The tensors at which relevance is collected, each once."""
    return tuple(dict.fromkeys(tensor for x in inputs for tensor in x.tensors))
